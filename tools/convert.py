"""Convert weights between timm, torchvision, MindCV, the authors' TensorFlow checkpoints and this project.

python tools/convert.py mnasnet_100.pth mnasnet_100.safetensors
python tools/convert.py runs/mine/checkpoints/best.safetensors mine.pth --to timm
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from mindcv_mnasnet.commands.convert import main
from mindcv_mnasnet.errors import run_cli

if __name__ == "__main__":
    sys.exit(run_cli(main))
