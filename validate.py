"""Validate checkpoints and exported files: python validate.py --ckpt_path FILE|GLOB|RUN [-c RECIPE] [--data_dir D]."""

import sys

from mindcv_mnasnet.commands.validate import main
from mindcv_mnasnet.errors import run_cli

if __name__ == "__main__":
    sys.exit(run_cli(main))
