"""Search for networks that suit a device: mnasnet search -c configs/search/NAME.yaml [--key value ...]."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mindcv_mnasnet.errors import UserError, interrupts_wait
from mindcv_mnasnet.recipe.command_line import Parser, parse_command_line
from mindcv_mnasnet.search.keys import SECTIONS
from mindcv_mnasnet.search.settings import load_settings

_BELONGS = {"to": "compare", "longer": "proxy_check", "seeds": "proxy_check", "images_per_second": "dry_run"}


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    does = parser.add_argument_group("instead of a new search").add_mutually_exclusive_group()
    does.add_argument(
        "--images", metavar="FOLDER", help="a whole search from images: --images FOLDER --like NAME; --images . --help"
    )
    does.add_argument("--resume", metavar="RUN", help="go on with a search; --trials and --workers may be others")
    does.add_argument("--report", metavar="RUN", help="write report.html, report.md and winners/ of a search again")
    does.add_argument("--compare", metavar="RUN", nargs="+", help="a table of searches; at most four in the images")
    does.add_argument("--dry_run", action="store_true", help="print what the search would cost")
    does.add_argument("--proxy_check", metavar="N", type=int, help="evaluate and train N random networks")
    parser.add_argument("--to", metavar="FOLDER", type=Path, help="--compare: write its figures and images there")
    parser.add_argument("--longer", type=int, help="--proxy_check: times the proxy's epochs (default 4)")
    parser.add_argument("--seeds", type=int, help="--proxy_check: seeds of the spread (default 3)")
    parser.add_argument(
        "--images_per_second", type=float, help="--dry_run: training speed of one worker (default: timed here)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Search as the command line says; returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    if any(word.partition("=")[0] == "--images" for word in words):
        from mindcv_mnasnet.search.quick import main as from_images

        return from_images(words)
    config, overrides, options = parse_command_line(words, _parser(), SECTIONS)
    given = options.resume or options.report or options.compare
    if given and config:
        raise UserError("--config: a search that is there has its own; leave it out")
    _require_use(options, overrides)
    if not (config or given):
        raise UserError("--config FILE is needed (configs/search/ has some), or --images FOLDER, or --resume RUN")
    if options.dry_run:
        from mindcv_mnasnet.search.estimate import estimate

        print(estimate(load_settings(config, overrides), options.images_per_second))
        return 0
    if options.report:
        from mindcv_mnasnet.search.report import write_report

        print(write_report(options.report))
        return 0

    if options.compare:
        from mindcv_mnasnet.search.compare import compare

        print(compare(options.compare, options.to))
        return 0

    with interrupts_wait():
        from mindcv_mnasnet.search import session  # loads MindSpore

    if options.proxy_check is not None:
        settings = load_settings(config, {"run_name": None, **overrides})
        longer = 4 if options.longer is None else options.longer
        seeds = 3 if options.seeds is None else options.seeds
        print(session.proxy_check(settings, options.proxy_check, longer, seeds))
        return 0
    if options.resume:
        session.resume(options.resume, overrides)
    else:
        session.begin(load_settings(config, overrides))
    return 0


def _require_use(options: argparse.Namespace, overrides: Mapping[str, object]) -> None:
    """Refuse what the command would not look at."""
    for option, user in _BELONGS.items():
        if getattr(options, option) is not None and getattr(options, user) in (None, False):
            raise UserError(f"--{option} belongs to --{user}")
    for user in ("report", "compare"):
        if getattr(options, user) and overrides:
            raise UserError(f"--{next(iter(overrides))}: --{user} has no use for it; leave it out")
    speed = options.images_per_second
    if speed is not None and not 0 < speed < math.inf:
        raise UserError(f"--images_per_second: {speed} is impossible; it is a number above 0")
