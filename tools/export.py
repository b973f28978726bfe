"""Export a checkpoint and check the file against it: python tools/export.py runs/mine --format onnx --data_dir D."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from mindcv_mnasnet.commands.export import main
from mindcv_mnasnet.errors import run_cli

if __name__ == "__main__":
    sys.exit(run_cli(main))
