"""Compile recipes for NPUs without one, and table what they launch: python tools/dry_run.py configs/mnasnet/*.yaml."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.files import replace_file, require_writable
from mindcv_mnasnet.recipe.command_line import Parser
from mindcv_mnasnet.recipe.recipe import load_recipe


def main(argv: Sequence[str] | None = None) -> int:
    """Dry-run every recipe at every level and number of devices; returns 1 if one does not compile."""
    parser = Parser(description=__doc__)
    parser.add_argument("recipes", nargs="+", help="recipe files")
    parser.add_argument("--devices", type=int, nargs="+", default=[1], help="numbers of NPUs (default: 1)")
    parser.add_argument("--levels", nargs="+", default=["O0", "O1"], help="jit levels (default: O0 O1)")
    parser.add_argument("--phases", nargs="+", default=["train", "validate"], help="of train, validate, loop")
    parser.add_argument("--json", metavar="FILE", help="write every report as JSON")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    require_writable("--json", options.json)
    from mindcv_mnasnet.dry_run.run import PHASES, dry_run  # loads MindSpore

    if unknown := set(options.phases) - set(PHASES):
        raise UserError(f"phases: {unknown.pop()!r} is not one of {', '.join(PHASES)}")
    recipes = {name: load_recipe(name) for name in options.recipes}
    reports, failures = [], []
    print("| recipe | level | devices | phase | kernels | fused | collectives | copies | compile s | peak GB |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for name, recipe in recipes.items():
        for level in options.levels:
            for devices in options.devices:
                try:
                    report = dry_run(recipe, Path(name).stem, devices, level, options.phases)
                except JobError as error:
                    failures.append(str(error))
                    print(f"| {Path(name).stem} | {level} | {devices} | does not compile | | | | | | |", flush=True)
                    continue
                reports.append(report.to_dict())
                for one in report.phases:
                    cells = (report.recipe, level, devices, one.name, f"{one.launched:,}", one.fused, one.collectives)
                    more = (one.kernels["TensorMove"], f"{one.seconds:.0f}", f"{report.peak_bytes / 2**30:.1f}")
                    print("| " + " | ".join(map(str, (*cells, *more))) + " |", flush=True)
    if options.json:
        replace_file(Path(options.json), json.dumps(reports, indent=2).encode())
    for sentence in failures:
        print(f"failed: {sentence}", file=sys.stderr)
    return 1 if failures else 0
