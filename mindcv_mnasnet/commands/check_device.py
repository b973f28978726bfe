"""The first minutes on a device, such as `mnasnet check-device --json check.json`.

Versions, jit levels, ten steps against the losses of the CPU, data sinking, two ranks, speeds, memory, export. Every
part is guarded; what needs an NPU is marked so where there is none. The JSON file names no host, user or folder and is
meant to be attached to an issue. Exit code 1: a part failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mindcv_mnasnet.device_check.machine import device_count
from mindcv_mnasnet.device_check.page import page, report
from mindcv_mnasnet.device_check.parts import FAILED, PARTS, Outcome
from mindcv_mnasnet.device_check.run import check
from mindcv_mnasnet.devices.simulation import simulated
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import replace_file, require_writable
from mindcv_mnasnet.recipe.command_line import Parser


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    parts = list(PARTS) if options.parts is None else options.parts.split(",")
    for name in parts:
        if name not in PARTS:
            raise UserError(f"--parts: {name!r} is not one of {', '.join(PARTS)}")
    require_writable("--json", options.json)
    device = options.device_target
    if device == "auto":
        device = "Ascend" if device_count() or simulated() else "CPU"
    outcomes = check(device, parts, _progress)
    print(page(device, outcomes))
    if options.json is not None:
        replace_file(options.json, (json.dumps(report(device, outcomes), indent=2) + "\n").encode())
    return int(any(outcome.state == FAILED for outcome in outcomes.values()))


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, PARTS))
    parser = Parser(
        description=__doc__,
        epilog="parts:\n" + "\n".join(f"  {name:{width}}  {part.meaning}" for name, part in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device_target", choices=("auto", "CPU", "Ascend"), default="auto")
    parser.add_argument("--parts", metavar="PART,...", help="only these (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    return parser


def _progress(name: str, outcome: Outcome | None) -> None:
    if outcome is None and sys.stderr.isatty():
        print(f"{name}: {PARTS[name].meaning}", file=sys.stderr, flush=True)
