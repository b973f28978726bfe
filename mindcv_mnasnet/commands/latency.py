"""Latency of networks on this or another device: measure them, build and check tables, compare with published ones."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import replace_file, require_writable
from mindcv_mnasnet.latency import published as latency_published
from mindcv_mnasnet.latency import table as latency_table
from mindcv_mnasnet.latency.record import LatencySettings, Meter
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.recipe.command_line import Parser
from mindcv_mnasnet.recipe.recipe import RECIPE_SUFFIXES, network_named
from mindcv_mnasnet.recipe.values import in_interval, key_table
from mindcv_mnasnet.recipe.yaml_files import read_recipe_file
from mindcv_mnasnet.search.covering import networks_covering
from mindcv_mnasnet.search.keys import SECTIONS
from mindcv_mnasnet.search.meters import open_meter
from mindcv_mnasnet.search.settings import load_settings
from mindcv_mnasnet.search.space import Space
from mindcv_mnasnet.search.space_files import load_space


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; returns the exit code."""
    options = _parser().parse_args(argv)
    require_writable("--json", getattr(options, "json", None))
    require_writable("--chart", getattr(options, "chart", None))
    if options.command == "build":
        require_writable("--table", options.table)
    handlers = {"measure": _measure, "build": _build, "predict": _measure, "check": _check}
    return handlers.get(options.command, _published)(options)


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    described = {
        "measure": "the latency of networks, with random weights",
        "build": "measure every part that networks of a space can have, and write the table (goes on where it stopped)",
        "predict": "the latency of networks by a table",
        "check": "a table's predictions against measurements of random networks",
        "grid": "the authors' 25 sizes of A1, beside their Pixel 1",
        "uniform": "A1 and the uniform networks of the paper's table 6, beside their Pixel 1",
    }
    for name, text in described.items():
        command = commands.add_parser(name, help=text, description=text)
        if name in ("measure", "predict"):
            command.add_argument("networks", nargs="+", help="NAME or FILE.yaml, either with @WIDTH")
            command.add_argument("--image_size", type=int, help="pixels per side (default: the network's own)")
        if name in ("build", "check"):
            command.add_argument("--space", required=True, help="preset, space (.yaml), or a search's file (.yaml)")
            command.add_argument("--data_dir", help="images of that search, where its recipe does not say the classes")
            default = 30 if name == "check" else None
            command.add_argument("--random", type=int, default=default, metavar="N", help=_RANDOM)
            command.add_argument("--seed", type=int, default=0)
        if name in ("build", "check", "predict"):
            command.add_argument("--table", required=True, help="the table's file (JSON lines)")
        if name in ("grid", "uniform"):
            command.add_argument(
                "--chart", "--picture", dest="chart", metavar="FILE.png", help="draw published against measured"
            )
        if name != "predict":
            _add_settings(command)
        command.add_argument("--json", metavar="FILE", help="write the figures there too")
    return parser


_RANDOM = "this many random networks of the space; build: only their parts (default: all parts of the space)"


def _add_settings(command: argparse.ArgumentParser) -> None:
    """The options of a measurement, by names of their own and by those of a search's keys, which sentences name."""
    command.add_argument(
        "--latency", dest="kind", default="onnxruntime", choices=("onnxruntime", "litert", "mindspore", "command")
    )
    command.add_argument("--threads", "--latency_threads", type=int, default=1)
    command.add_argument("--batch", "--latency_batch", type=int, default=1)
    command.add_argument("--repetitions", "--latency_repetitions", type=int, default=100)
    command.add_argument("--warm_up", "--latency_warm_up", type=int, default=10)
    command.add_argument(
        "--timeout_s", "--latency_timeout_s", type=float, default=120.0, help="most seconds for one network"
    )
    command.add_argument("--command_line", "--latency_command", help="--latency command: a command line with {model}")
    command.add_argument(
        "--format", "--latency_format", default="onnx", choices=("onnx", "tflite", "mindir"), help="what {model} is"
    )
    command.add_argument(
        "--calls", "--latency_calls", type=int, default=1, help="calls of the command, whose median counts (default 1)"
    )
    command.add_argument("--pattern", "--latency_pattern", help="regular expression whose group is the milliseconds")
    command.add_argument(
        "--json_path", "--latency_json_path", help="place of the milliseconds in JSON output, such as a.b.0"
    )
    command.add_argument(
        "--scale", "--latency_scale", type=float, default=1.0, help="milliseconds per unit of the answer"
    )


def _settings(options: argparse.Namespace) -> LatencySettings:
    known = {field.name for field in fields(LatencySettings)} - {"command", "table"}
    values = {name: value for name, value in vars(options).items() if name in known}
    for name, value in values.items():
        key = key_table(SECTIONS).get(f"latency_{name}")
        if key is not None and key.rule.within and not in_interval(value, key.rule.within):
            raise UserError(f"--{name}: {value} is impossible; allowed: {key.allowed()}")
    return LatencySettings(**values, command=options.command_line)


def _meter(options: argparse.Namespace) -> Meter:
    if options.command == "predict":
        return latency_table.Table.read(options.table)
    return open_meter(_settings(options))


def _measure(options: argparse.Namespace) -> int:
    networks = {name: _network(name, options.image_size) for name in options.networks}
    meter, rows = _meter(options), []
    for name, network in networks.items():
        found = meter.measure(network)
        rows.append({"network": name, **found.to_dict()})
        spread = f" (90 % below {found.p90_ms:.3f}, {found.repetitions} calls)" if found.repetitions else ""
        print(
            f"{name}: {found.median_ms:.3f} ms{spread}, {found.image_size} px, batch {found.batch}, {found.threads} "
            f"thread(s), {found.runtime}, {found.device}",
            flush=True,
        )
    return _done(options, rows)


def _network(name: str, image_size: int | None) -> Network:
    network = network_named(name)
    return network if image_size is None else replace(network, image_size=image_size)


def _space(options: argparse.Namespace) -> Space:
    for option, least in (("random", 1), ("seed", 0)):
        given = getattr(options, option)
        if given is not None and given < least:
            raise UserError(f"--{option}: {given} is impossible; it is {least} or more")
    name, data_dir = options.space, options.data_dir
    if name.endswith(RECIPE_SUFFIXES) and "decisions" not in read_recipe_file(name):
        return load_settings(name, {} if data_dir is None else {"data_dir": data_dir}).open_space()
    return load_space(name)


def _random(space: Space, count: int, seed: int) -> list[Network]:
    rng = np.random.default_rng(seed)
    return [space.network(space.random(rng)) for _ in range(count)]


def _build(options: argparse.Namespace) -> int:
    space = _space(options)
    networks = networks_covering(space) if options.random is None else _random(space, options.random, options.seed)
    with tqdm(unit="part", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        fitted_on = _random(space, 12, options.seed + 1)
        table = latency_table.build(networks, fitted_on, _settings(options), Path(options.table), progress)
    fit = table.fit
    print(
        f"{table.path}: {len(table.entries)} parts; a network's latency is {fit.factor:.3f} times the sum of its "
        f"parts, less {fit.call_ms:.4f} ms for each, more {fit.weight_ms:.4f} ms for a million weights"
    )
    return 0


def _check(options: argparse.Namespace) -> int:
    table = latency_table.Table.read(options.table)
    networks = _random(_space(options), options.random, options.seed + 2)
    found, pairs = latency_table.check(table, open_meter(_settings(options)), networks)
    print(
        f"{found.count} random networks: Spearman {found.spearman:.3f}, Kendall {found.kendall:.3f}, mean error "
        f"{100 * found.relative_error:.1f} %"
    )
    return _done(options, {"spearman": found.spearman, "kendall": found.kendall, "pairs_ms": pairs})


def _published(options: argparse.Namespace) -> int:
    meter = open_meter(_settings(options))
    work = latency_published.measure_grid if options.command == "grid" else latency_published.measure_uniform
    with tqdm(unit="network", disable=None) as bar:

        def progress(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update()

        rows = work(meter, progress)
    print(latency_published.format_rows(rows))
    if options.chart:
        latency_published.draw_rows(rows, Path(options.chart))
    return _done(options, [row.to_dict() for row in rows])


def _done(options: argparse.Namespace, content: Any) -> int:
    if options.json:
        replace_file(Path(options.json), json.dumps(content, indent=2).encode())
    return 0
