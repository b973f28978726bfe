"""Write VOC's or YOLO's boxes as COCO's: python tools/convert_boxes.py voc VOC2007 --output instances_train.json."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from mindcv_mnasnet.commands.convert_boxes import main
from mindcv_mnasnet.errors import run_cli

if __name__ == "__main__":
    sys.exit(run_cli(main))
