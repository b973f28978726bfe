"""Average checkpoints: python tools/average_checkpoints.py runs/mine --last 5 -o averaged.safetensors."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from mindcv_mnasnet.commands.average import main
from mindcv_mnasnet.errors import run_cli

if __name__ == "__main__":
    sys.exit(run_cli(main))
