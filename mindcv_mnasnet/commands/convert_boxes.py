"""Write VOC's or YOLO's boxes as COCO's: mnasnet convert-boxes voc VOC2007 --output D/annotations/instances_train.json

Images stay where they are; training looks for them in D/train.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mindcv_mnasnet.detection.coco import judged
from mindcv_mnasnet.detection.voc import read_voc
from mindcv_mnasnet.detection.yolo import read_yolo
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import replace_file, require_writable
from mindcv_mnasnet.recipe.command_line import Parser


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    if options.output.exists():
        raise UserError(f"output: {options.output} is there already; name another file or remove it")
    require_writable("output", options.output)
    for name in options.classes or ():
        if options.classes.count(name) > 1:
            raise UserError(f"classes: {name!r} is given twice; every class has a name of its own")
    if options.form == "voc":
        labels = read_voc(options.source, options.images, options.classes, options.list)
    elif options.list is not None:
        raise UserError("list: YOLO's images are those of a folder; only voc has lists")
    else:
        labels = read_yolo(options.source, options.images, options.classes)
    for fault in labels.faults:
        print(f"failed: {fault}", file=sys.stderr)
    if labels.faults and not options.skip_faults:
        print(f"{len(labels.faults)} faults: nothing is written; --skip_faults leaves them out", file=sys.stderr)
        return 1
    document = labels.document()
    counts = {name: len(document[name]) for name in ("images", "annotations", "categories")}
    if not counts["annotations"]:
        raise UserError(f"{options.source} has no box that could be taken")
    faults = judged(document, options.output)[1]  # such as names that cannot be printed
    if faults:
        raise UserError(f"{options.source}: {faults[0]}; rename it first")
    replace_file(options.output, json.dumps(document).encode())
    left_out = f"; {len(labels.faults)} faults left out" if labels.faults else ""
    print(
        f"{options.output}: {counts['images']} images, {counts['annotations']} boxes, {counts['categories']} classes "
        f"({', '.join(labels.names())}){left_out}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("form", choices=("voc", "yolo"), help="what wrote the labels")
    parser.add_argument("source", type=Path, help="voc: folder with XML files; yolo: folder with images and labels")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="annotation file to write")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="images, if they are elsewhere")
    parser.add_argument("--list", type=Path, metavar="FILE", help="voc: names to take, as ImageSets/Main/train.txt")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="classes in order; needed where a split lacks one")
    parser.add_argument("--skip_faults", action="store_true", help="leave out broken images and boxes")
    return parser
