"""How the cost of a row of tools/bench/benchmark.py grows: python tools/bench/scaling.py --vary batch_size=8,16,32.

Each value is measured --rounds times in turn, each in a process of its own; the median times per batch are fitted by a
straight line over what should carry the cost: images, pixels (image_size), or multiply-adds (model).
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:] = [str(ROOT), *(entry for entry in sys.path if Path(entry).resolve() != ROOT / "tools" / "bench")]
benchmark = importlib.import_module("tools.bench.benchmark")

from mindcv_mnasnet.errors import UserError, run_cli
from mindcv_mnasnet.files import replace_file
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.recipe.command_line import Parser

_ROWS = ("train_step", "infer", "timm", "timm_channels_last", "timm_infer")
_KEYS = {"batch_size": "images", "image_size": "pixels per image", "model": "multiply-adds per image"}


def carried(key: str, value: str, image_size: int) -> float:
    """What should carry the cost: see the top of this file."""
    if key == "model":
        return float(network_cost(resolve(value, image_size=image_size)).madds)
    return float(value) if key == "batch_size" else float(value) ** 2


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Offset, slope and R squared of the straight line of least squares."""
    slope, offset = np.polyfit(x, y, 1)
    rest = np.asarray(y) - (offset + slope * np.asarray(x))
    return float(offset), float(slope), float(1 - (rest**2).sum() / ((np.asarray(y) - np.mean(y)) ** 2).sum())


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = Parser(prog="scaling.py", description=__doc__)
    parser.add_argument("--vary", required=True, metavar="KEY=V,V,V", help=f"KEY is one of {', '.join(_KEYS)}")
    parser.add_argument("--row", default="train_step", choices=_ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options, rest = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    key, _, text = options.vary.partition("=")
    values = [value for value in text.split(",") if value]
    if key not in _KEYS or len(values) < 3:
        raise UserError(
            f"--vary {options.vary}: KEY=V,V,V is needed, with one of {', '.join(_KEYS)} and 3 values or more"
        )
    parser = benchmark.command_line()
    settings = {v: benchmark.settings_of(parser.parse_args([*rest, f"--{key}", v]), [options.row]) for v in values}
    with TemporaryDirectory(prefix="scaling-") as scratch:
        rounds = benchmark.measure_rounds(
            values, options.rounds, lambda value: benchmark.run_row(options.row, settings[value], Path(scratch))
        )
    x = [carried(key, value, settings[value]["image_size"]) for value in values]
    y = [float(np.median([one[value]["ms_per_step"] for one in rounds])) for value in values]
    offset, slope, fit = line(x, y)
    for value, carrier, found in zip(values, x, y, strict=True):
        print(f"{key} {value:12}{carrier:>14.4g} {_KEYS[key]}{found:>10.1f} ms; line {offset + slope * carrier:.1f}")
    print(f"{options.row}: {offset:.1f} ms and {slope:.4g} ms for each of the {_KEYS[key]}; R squared {fit:.4f}")
    if options.json:
        content: dict[str, Any] = {"row": options.row, "key": key, "values": values, "x": x, "ms": y}
        content |= {"offset_ms": offset, "slope_ms": slope, "r_squared": fit, "settings": settings[values[0]]}
        replace_file(options.json, (json.dumps(content, indent=2) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
