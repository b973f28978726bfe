"""Compile recipes for NPUs without one, and table what they launch: python tools/dry_run.py configs/mnasnet/*.yaml."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from mindcv_mnasnet.commands.dry_run import main
from mindcv_mnasnet.errors import run_cli

if __name__ == "__main__":
    sys.exit(run_cli(main))
