"""Export a checkpoint and check the file against it: mnasnet export runs/mine --format onnx --data_dir D."""

from __future__ import annotations

import argparse
from pathlib import Path

from mindcv_mnasnet.errors import UserError, interrupts_wait
from mindcv_mnasnet.recipe.command_line import Parser, add_keys, typed_keys
from mindcv_mnasnet.recipe.evaluation import EVALUATION_KEYS
from mindcv_mnasnet.run.folder import find_checkpoints

FORMATS = ("mindir", "onnx", "tflite", "air")


_KEYS = tuple(name for name in EVALUATION_KEYS if name != "image_resize")  # that is --image_size


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__)
    parser.add_argument("checkpoint", help="checkpoint or run folder")
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: beside the checkpoint, with its name")
    parser.add_argument("--overwrite", action="store_true", help="the output may be there already")
    parser.add_argument("--quantize", choices=("fp16", "dynamic", "int8"), help="int8 observes the training images")
    parser.add_argument("--input", choices=("float", "uint8"), default="float", help="uint8: raw pixels, NHWC")
    parser.add_argument("--batch", type=int, help="images that the file takes at once (default 1)")
    parser.add_argument("--dynamic_batch", action="store_true", help="leave the number of images open (ONNX)")
    parser.add_argument("--image_size", type=int, help="pixels per side (default: as the checkpoint is evaluated)")
    parser.add_argument("--weights", choices=("ema", "raw"), help="averaged or raw weights (default: ema if there)")
    parser.add_argument("--data_dir", help="real images to check with; the built-in digits need none")
    parser.add_argument("--calibration_images", type=int, help="images that int8 observes (default 200)")
    parser.add_argument("--check_images", type=int, default=200, help="images to compare on (default 200)")
    parser.add_argument(
        "--min_agreement", type=float, metavar="PERCENT", help="least share of equal best classes (int8: 90)"
    )
    parser.add_argument(
        "--weight_bits",
        type=int,
        choices=(7, 8),
        help="int8 of ONNX: 7 (default) is exact on every processor, 8 on those with VNNI and on ARM",
    )
    parser.add_argument(
        "--nms", choices=("True", "False"), default="False", help="a detector's file suppresses overlaps (onnx, tflite)"
    )
    add_keys(parser, only=_KEYS)
    return parser


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    (path, *others) = find_checkpoints([options.checkpoint])
    if others:
        raise UserError(f"{options.checkpoint} stands for {1 + len(others)} checkpoints; name one")
    if options.calibration_images is not None and options.quantize != "int8":
        raise UserError("calibration_images: --quantize int8 alone observes images; leave it out")
    if options.dynamic_batch and options.batch is not None:
        raise UserError("batch: --dynamic_batch leaves the number of images open; leave one of the two out")
    suffix = f"-{options.quantize}" if options.quantize else ""
    output = options.output or path.with_name(f"{path.stem}{suffix}.{options.format}")

    with interrupts_wait():
        from mindcv_mnasnet.export.export import Options, export  # loads MindSpore

    wanted = Options(
        format=options.format,
        quantize=options.quantize,
        input=options.input,
        batch=None if options.dynamic_batch else 1 if options.batch is None else options.batch,
        image_size=options.image_size,
        ema=None if options.weights is None else options.weights == "ema",
        data_dir=options.data_dir,
        **({} if options.calibration_images is None else {"calibration_images": options.calibration_images}),
        check_images=options.check_images,
        min_agreement=options.min_agreement,
        overwrite=options.overwrite,
        weight_bits=options.weight_bits,
        nms=options.nms == "True",
        evaluation=typed_keys(options, _KEYS),
    )
    print(export(path, output, wanted))
    return 0
