"""Train a MnasNet: mnasnet train -c RECIPE [--key value ...].

mnasnet train -c configs/digits/mnasnet_small_digits.yaml
mnasnet train --resume runs/mine
mnasnet train -c configs/mnasnet/mnasnet_0.75_ascend.yaml --dry_run --devices 8
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mindcv_mnasnet.errors import UserError, interrupts_wait
from mindcv_mnasnet.files import replace_file, require_writable
from mindcv_mnasnet.recipe.command_line import Parser, parse_command_line
from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe
from mindcv_mnasnet.run.folder import RunFolder
from mindcv_mnasnet.run.resume import merged


def _parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    dry = parser.add_argument_group("dry run: compile the job for NPUs, without one, and stop")
    dry.add_argument(
        "--dry_run", action="store_true", help="say what the job would launch and hold; nothing is trained"
    )
    dry.add_argument("--devices", type=int, metavar="N", help="NPUs of the dry run (default: 1)")
    dry.add_argument("--json", metavar="FILE", help="write the dry run's report as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; returns the exit code."""
    config, overrides, options = parse_command_line(sys.argv[1:] if argv is None else argv, _parser())
    recipe = load_recipe(config, overrides)
    if options.dry_run:
        if recipe.resume is not None:
            recipe = merged(recipe, RunFolder.open(recipe.resume).recipe())
        return _dry_run(recipe, Path(config).stem if config else str(recipe.model), options)
    for name in ("devices", "json"):
        if getattr(options, name) is not None:
            raise UserError(f"--{name} belongs to --dry_run; msrun --worker_num says how many processes train")

    with interrupts_wait():
        from mindcv_mnasnet.train.engine import fit  # after the recipe is checked: MindSpore takes seconds to load

    fit(recipe)
    return 0


def _dry_run(recipe: Recipe, name: str, options: argparse.Namespace) -> int:
    require_writable("--json", options.json)
    from mindcv_mnasnet.dry_run.run import dry_run

    report = dry_run(recipe, name, 1 if options.devices is None else options.devices)
    print(report.text())
    if options.json:
        replace_file(Path(options.json), json.dumps(report.to_dict(), indent=2).encode())
    return 0
