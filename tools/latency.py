"""Latency of networks on this or another device: measure them, build and check tables, compare with published ones."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from mindcv_mnasnet.commands.latency import main
from mindcv_mnasnet.errors import run_cli

if __name__ == "__main__":
    sys.exit(run_cli(main))
