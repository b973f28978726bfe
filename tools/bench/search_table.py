"""The search on NAS-Bench-Macro: python tools/bench/search_table.py nas-bench-macro_cifar10.json [--seeds 100]."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from mindcv_mnasnet.errors import UserError, run_cli
from mindcv_mnasnet.files import replace_file
from mindcv_mnasnet.search.nas_bench_macro import compare, read_band


def main(argv: Sequence[str] | None = None) -> int:
    """Compare in every band, print a table and, with ``--json``, write the figures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="the file of github.com/xiusu/NAS-Bench-Macro")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--bands", type=float, nargs="+", default=[35.0, 55.0], help="upper ends, M multiply-adds")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    options = parser.parse_args(argv)
    if options.seeds < 2:
        raise UserError(f"--seeds: {options.seeds} is too few; 2 or more have an interval")
    found = {
        f"{madds:g} M": compare(read_band(options.table, madds * 1e6), range(options.seeds)) for madds in options.bands
    }
    print("| band | rival | rival, % | predictor, % | difference | 95 % interval | above, below | sign test p |")
    print("|---|---|---|---|---|---|---|---|")
    for band, figures in found.items():
        ours = figures["predictor with verified finalists"]
        for name, row in figures["rivals"].items():
            low, high = row["interval"]
            print(
                f"| {band} | {name} | {row['mean']:.2f} | {ours:.2f} | {row['difference']:+.2f} | {low:+.2f} to "
                f"{high:+.2f} | {row['above']}, {row['below']} | {row['p']:g} |"
            )
    if options.json:
        content = {"table": "NAS-Bench-Macro, CIFAR-10; short trainings simulated", "bands": found}
        replace_file(Path(options.json), (json.dumps(content, indent=2) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
