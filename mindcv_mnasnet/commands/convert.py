"""Convert weights between timm, torchvision, MindCV, the authors' TensorFlow checkpoints and this project.

mnasnet convert mnasnet_100.pth mnasnet_100.safetensors
mnasnet convert runs/mine/checkpoints/best.safetensors mine.pth --to timm
"""

from __future__ import annotations

import argparse

from mindcv_mnasnet.data.class_files import read_class_names
from mindcv_mnasnet.recipe.command_line import Parser, add_keys, typed_keys
from mindcv_mnasnet.recipe.evaluation import EVALUATION_KEYS
from mindcv_mnasnet.weights.convert import convert
from mindcv_mnasnet.weights.read import SOURCES

_KEYS = tuple(name for name in EVALUATION_KEYS if name != "image_resize")  # that is --image_size


def main(argv: list[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("src", help="weight file; for TensorFlow also a prefix, folder or .tgz")
    parser.add_argument("dst", help="file to write: .safetensors (ours), .ckpt (MindCV), .pth, or a TensorFlow prefix")
    parser.add_argument("--from", dest="source", choices=SOURCES, help="where it comes from (default: recognized)")
    parser.add_argument("--to", dest="target", choices=SOURCES, help="whom it is for (default: by the suffix of dst)")
    parser.add_argument("--model", help="model name (default: recognized from the shapes)")
    parser.add_argument("--width_mult", type=float, help="width of --model, where it is not the name's own")
    parser.add_argument("--image_size", type=int, help="pixels that the weights are meant for (default: the model's)")
    parser.add_argument(
        "--class_names", metavar="FILE", help="class names: one per line in logit order, numbered, or JSON"
    )
    parser.add_argument("--raw", action="store_true", help="raw weights where there are averaged ones (EMA) too")
    parser.add_argument("--overwrite", action="store_true", help="dst may be there already")
    add_keys(parser, only=_KEYS)
    options = parser.parse_args(argv)
    names = None if options.class_names is None else read_class_names(options.class_names)
    report = convert(
        options.src,
        options.dst,
        source=options.source,
        target=options.target,
        model=options.model,
        raw=options.raw,
        class_names=names,
        image_size=options.image_size,
        width_mult=options.width_mult,
        overwrite=options.overwrite,
        evaluation=typed_keys(options, _KEYS),
    )
    print(report)
    print(options.dst)
    return 0
