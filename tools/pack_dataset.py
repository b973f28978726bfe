"""Pack an image folder into MindRecord shards: python tools/pack_dataset.py /data/imagenet /data/imagenet-packed.

SRC holds class folders, or train and val folders that do. An interrupted packing goes on where it stopped when the same
command is given again; the result is a data_dir for training. With --short_side images are packed smaller, which is
what makes reading them quicker: decoding takes as long as an image has pixels.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from mindcv_mnasnet.commands.pack import main
from mindcv_mnasnet.errors import run_cli

if __name__ == "__main__":
    sys.exit(run_cli(main))
