"""Validate checkpoints and exported files: mnasnet validate --ckpt_path FILE|GLOB|RUN [-c RECIPE] [--data_dir D]."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mindcv_mnasnet.errors import interrupts_wait
from mindcv_mnasnet.files import replace_file, require_writable
from mindcv_mnasnet.networks.reported import format_table
from mindcv_mnasnet.recipe.command_line import Parser, parse_command_line
from mindcv_mnasnet.recipe.evaluation import VALIDATION_KEYS
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.recipe.rule import Use
from mindcv_mnasnet.recipe.values import keys_for, typed
from mindcv_mnasnet.run.folder import find_checkpoints


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument("checkpoints", nargs="*", help="checkpoints, globs or run folders, besides --ckpt_path")
    parser.add_argument("--weights", choices=("ema", "raw"), help="averaged or raw weights (default: ema if there)")
    parser.add_argument("--backend", help="run checkpoints by mindspore (default), onnxruntime or litert")
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON")
    parser.add_argument("--results", metavar="FILE", help="write a detector's detections in COCO's format")
    parser.add_argument("--csv", metavar="FILE", help="append the results to a CSV file")
    parser.add_argument("--tolerance", type=float, default=0.1, help="points that a reported result may differ by")
    parser.add_argument("--require_reported", action="store_true", help="exit 1 unless a reported result is reproduced")
    parser.add_argument("--list_reported", action="store_true", help="print all reported results and stop")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Validate as the command line says; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    config, overrides, options = parse_command_line(words, _parser(), only=VALIDATION_KEYS)
    if options.list_reported:
        print(format_table())
        return 0
    for name in ("json", "csv", "results"):
        require_writable(f"--{name}", getattr(options, name))
    recipe = None if config is None else load_recipe(config)
    for name, value in overrides.items():
        typed(name, value, "command line")  # a typo is said before MindSpore loads
    with interrupts_wait():
        from mindcv_mnasnet.inference import results as output  # loads MindSpore
        from mindcv_mnasnet.inference import validation
        from mindcv_mnasnet.weights.hub import pretrained_for

    if options.csv:
        output.csv_text(Path(options.csv))  # one that is no text is said before the work
    asked = load_recipe(config, {name: overrides[name] for name in keys_for(Use.PUBLISHED) if name in overrides})
    overrides = {name: value for name, value in overrides.items() if name not in ("ckpt_path", "pretrained")}
    named = str(pretrained_for(asked)) if asked.pretrained else asked.ckpt_path
    paths = find_checkpoints([name for name in (named, *options.checkpoints) if name])
    ema = None if options.weights is None else options.weights == "ema"
    results, machine = validation.validate(paths, recipe, overrides, ema, options.tolerance, options.backend)
    if machine.rank == 0:
        print(output.format_results(results))
        if options.json:
            replace_file(Path(options.json), json.dumps([one.to_dict() for one in results], indent=2).encode())
        if options.results:
            output.write_detections(Path(options.results), results)
        if options.csv:
            output.append_csv(Path(options.csv), results)
    if options.require_reported:
        output.require_reported(results)
    return 0
