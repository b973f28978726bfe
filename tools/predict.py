"""Name what images show: python tools/predict.py MODEL IMAGES...

MODEL is a checkpoint, a run folder, or an exported .onnx, .tflite or .mindir file; IMAGES are files, folders, glob
patterns, or - for names on standard input.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from mindcv_mnasnet.commands.predict import main
from mindcv_mnasnet.errors import run_cli

if __name__ == "__main__":
    sys.exit(run_cli(main))
