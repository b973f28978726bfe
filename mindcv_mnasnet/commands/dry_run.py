"""Compile recipes for NPUs without one, and table what they launch: python tools/dry_run.py configs/mnasnet/*.yaml.

Files of searches are recipes too: what is compiled is the training of a trial, or the supernet's step.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.files import replace_file, require_writable
from mindcv_mnasnet.recipe.command_line import Parser
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.recipe.values import key_table
from mindcv_mnasnet.recipe.yaml_files import read_recipe_file
from mindcv_mnasnet.search.keys import SECTIONS as SEARCHES
from mindcv_mnasnet.search.settings import load_settings

if TYPE_CHECKING:
    from mindcv_mnasnet.dry_run.report import Report

_OF_SEARCHES = {"proxy", "rungs", "target", *key_table(SEARCHES)} - set(key_table())  # keys that no recipe has
_HEADER = "| recipe | level | devices | phase | kernels | fused | collectives | copies | compile s | peak GB |"


def main(argv: Sequence[str] | None = None) -> int:
    """Dry-run every recipe at every level and number of devices; returns 1 if one does not compile."""
    parser = Parser(description=__doc__)
    parser.add_argument("recipes", nargs="+", help="files of recipes and searches")
    parser.add_argument("--devices", type=int, nargs="+", default=[1], help="numbers of NPUs (default: 1)")
    parser.add_argument("--levels", nargs="+", default=["O0", "O1"], help="jit levels (default: O0 O1)")
    parser.add_argument(
        "--phases", nargs="+", default=["train", "validate"], help="of train, validate, export, loop; searches have own"
    )
    parser.add_argument("--json", metavar="FILE", help="write every report as JSON")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    require_writable("--json", options.json)
    from mindcv_mnasnet.dry_run.run import PHASES, require_possible  # loads MindSpore

    require_possible(options.devices, options.levels)

    if unknown := set(options.phases) - set(PHASES):
        raise UserError(f"phases: {unknown.pop()!r} is not one of {', '.join(PHASES)}")
    runs = [run for file in options.recipes for run in _runs(file, options.levels, options.devices, options.phases)]
    reports, failures = [], []
    print(f"{_HEADER}\n{'|---' * 10}|", flush=True)
    for words, run in runs:
        try:
            report = run()
        except JobError as error:
            failures.append(str(error))
            print(f"| {words} | does not compile | | | | | | |", flush=True)
            continue
        reports.append(report.to_dict())
        for one in report.phases:
            numbers = (one.name, f"{one.launched:,}", one.fused, one.collectives, one.kernels["TensorMove"])
            more = (f"{one.seconds:.0f}", f"{report.peak_bytes / 2**30:.1f}")
            print("| " + " | ".join([words, *map(str, (*numbers, *more))]) + " |", flush=True)
    if options.json:
        replace_file(Path(options.json), json.dumps(reports, indent=2).encode())
    for sentence in failures:
        print(f"failed: {sentence}", file=sys.stderr)
    return 1 if failures else 0


def _runs(
    file: str, levels: Sequence[str], devices: Sequence[int], phases: Sequence[str]
) -> Iterator[tuple[str, Callable[[], Report]]]:
    """The dry runs of a file, each with the first cells of its rows; a search's jobs have one device each."""
    from mindcv_mnasnet.dry_run.run import dry_run, dry_run_search, require_training

    name = Path(file).stem
    if set(read_recipe_file(file)) & _OF_SEARCHES:
        settings = load_settings(file)
        require_training(settings, name)
        for level in levels:
            yield f"{name} | {level} | 1", partial(dry_run_search, settings, name, level)
        return
    recipe = load_recipe(file)
    for level in levels:
        for count in devices:
            yield f"{name} | {level} | {count}", partial(dry_run, recipe, name, count, level, phases)
