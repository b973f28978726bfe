"""Average checkpoints: mnasnet average runs/mine --last 5 -o averaged.safetensors."""

from __future__ import annotations

import argparse
from pathlib import Path

from mindcv_mnasnet.errors import UserError, interrupts_wait
from mindcv_mnasnet.files import require_writable
from mindcv_mnasnet.recipe.command_line import Parser
from mindcv_mnasnet.run.folder import find_checkpoints


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__)
    parser.add_argument("sources", nargs="+", help="a run folder with --last or --best, or checkpoints")
    parser.add_argument("--last", type=int, metavar="N", help="the N newest checkpoints of the run")
    parser.add_argument("--best", type=int, metavar="N", help="the N with the best validation accuracy")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--weights", choices=("ema", "raw"), help="averaged or raw weights (default: ema if there)")
    parser.add_argument("--reestimate_bn", action="store_true", help="batch-norm statistics from training images")
    parser.add_argument("--bn_batches", type=int, help="batches to estimate them on (default 100)")
    parser.add_argument("--data_dir", help="data set for that (default: the recipe's)")
    parser.add_argument("--overwrite", action="store_true", help="the output may be there already")
    return parser


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    if options.output.exists() and not options.overwrite:
        raise UserError(f"output: {options.output} is there already; name another file or say --overwrite")
    require_writable("--output", options.output)
    for name in ("bn_batches", "data_dir"):
        if getattr(options, name) is not None and not options.reestimate_bn:
            raise UserError(f"{name}: --reestimate_bn alone looks at images; say that too, or leave it out")
    if options.bn_batches is not None and options.bn_batches < 1:
        raise UserError(f"bn_batches: {options.bn_batches} is impossible; it is 1 or more")
    with interrupts_wait():
        from mindcv_mnasnet.train.averaging import average, choose  # loads MindSpore

    if options.last is not None or options.best is not None:
        if len(options.sources) > 1 or None not in (options.last, options.best):
            raise UserError("--last or --best, one of them, choose from one run folder")
        paths = choose(Path(options.sources[0]), options.last, options.best)
    else:
        paths = find_checkpoints(options.sources)
    ema = None if options.weights is None else options.weights == "ema"
    batches = (options.bn_batches or 100) if options.reestimate_bn else 0
    count = average(paths, options.output, ema, options.data_dir, batches)
    print(f"{options.output}: {count} tensors, the mean of {', '.join(path.name for path in paths)}")
    return 0
