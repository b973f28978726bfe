"""Train a MnasNet: python train.py -c RECIPE [--key value ...]; --help lists all keys."""

import sys

from mindcv_mnasnet.commands.train import main
from mindcv_mnasnet.errors import run_cli

if __name__ == "__main__":
    sys.exit(run_cli(main))
