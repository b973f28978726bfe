"""Export a checkpoint, run the file with its own runtime on real images, and keep it only if it answers alike."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.export.artifact import filled, open_artifact
from mindcv_mnasnet.export.images import evaluation_images
from mindcv_mnasnet.export.metadata import ModelMetadata, folded_as
from mindcv_mnasnet.files import require_writable, unwritable
from mindcv_mnasnet.recipe.recipe import Recipe, with_evaluation
from mindcv_mnasnet.run.checkpoint import Checkpoint, read_checkpoint
from mindcv_mnasnet.train.evaluation import Evaluator
from mindcv_mnasnet.weights.sound import require_sound

FORMATS = ("mindir", "onnx", "tflite", "air")
#: Largest difference of a logit from the checkpoint's, in standard deviations of all logits. float32 runtimes differ by
#: the order of their sums (1e-5 seen); half precision rounds weights to 11 bits.
BOUNDS: Mapping[str | None, float] = {None: 1e-3, "fp16": 0.1}
#: Least share of images with the checkpoint's best class, per cent, where ``min_agreement`` does not say another.
AGREEMENT: Mapping[str | None, float] = {"int8": 90.0}
#: The same for detections of files that suppress overlaps: near-equal scores and overlaps near the threshold may swap.
NMS_AGREEMENT = 95.0
_OFFERED = {"mindir": (None,), "air": (None,), "onnx": (None, "int8"), "tflite": (None, "fp16", "dynamic", "int8")}
_BATCH = 32


@dataclass(frozen=True)
class Options:
    """What to export: see ``tools/export.py --help``. ``batch`` None leaves the number of images open.

    ``evaluation`` holds recipe keys on how images are prepared; ``weight_bits`` None is 7 for ONNX's int8, and TFLite's
    has 8. ``nms``: a detector's file suppresses overlaps itself, and gives detections.
    """

    format: str
    quantize: str | None = None
    input: str = "float"
    batch: int | None = 1
    image_size: int | None = None
    ema: bool | None = None
    data_dir: str | None = None
    calibration_images: int = 200
    check_images: int = 200
    min_agreement: float | None = None
    overwrite: bool = False
    weight_bits: int | None = None
    nms: bool = False
    evaluation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportReport:
    """How the file at ``path`` compares with its checkpoint on ``images`` images.

    ``difference``: the largest of a logit, in standard deviations of the checkpoint's logits; ``agreement``: percent of
    images with the same best class. What they are for detectors is said at ``detector.compare``.
    """

    path: Path
    metadata: ModelMetadata
    megabytes: float
    images: int
    difference: float
    agreement: float

    def __str__(self) -> str:
        kind = self.metadata.quantization or "float32"
        if self.metadata.suppresses:
            found = f"same detections {self.agreement:.2f} %, with scores that differ by up to {self.difference:.2g}"
        else:
            found = f"largest logit difference {self.difference:.2g} standard deviations, same best class "
            found += f"{self.agreement:.2f} %" + (" of anchors" if self.metadata.detector else "")
        return (
            f"{self.path}: {kind}, {self.megabytes:.2f} MB, {self.metadata.input} input; against the checkpoint on "
            f"{self.images} images: {found}"
        )


def export(checkpoint_path: str | Path, path: str | Path, options: Options) -> ExportReport:
    """Export a checkpoint to ``path``; the file appears there only when it has been found equal.

    Raises:
        UserError: options that do not go together, a missing extra or data set, or ``path`` is there already.
        JobError: the file answers otherwise than the checkpoint, beyond ``BOUNDS`` or ``min_agreement``; it is deleted.
    """
    path = Path(path)
    _require_possible(path, options)
    checkpoint = read_checkpoint(checkpoint_path)
    _require_offered(checkpoint, options)
    require_sound(checkpoint.weights(options.ema), str(checkpoint_path))
    runtime.start("auto")
    recipe = with_evaluation(checkpoint.recipe, {**options.evaluation, **_sized(options)})
    metadata = ModelMetadata.of(
        checkpoint, recipe, options.input, options.ema, options.quantize, options.batch, options.nms
    )
    images = evaluation_images(recipe, metadata, options.data_dir, options.check_images)
    tensors = checkpoint.weights(options.ema)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            fresh = Path(folder) / path.name
            _write(fresh, tensors, recipe, metadata, options)
            report = _compared(fresh, path, checkpoint, metadata, images, options.ema)
            _require_equal(report, options)
            for part in sorted(_parts(Path(folder), path.name), reverse=True):  # the metadata before the file
                part.replace(path.with_name(part.name))
    except OSError as error:
        raise unwritable(path, error) from error
    return report


def _parts(folder: Path, name: str) -> list[Path]:
    """The file and what belongs to it; not the float file that an int8 one was made of."""
    return [part for part in folder.iterdir() if part.name.startswith(name)]


def _require_possible(path: Path, options: Options) -> None:
    if options.format not in FORMATS:
        raise UserError(f"format: {options.format!r} is unknown; it can be {', '.join(FORMATS)}")
    if options.quantize not in _OFFERED[options.format]:
        offered = [name for name in _OFFERED[options.format] if name]
        instead = f"it can be {', '.join(offered)}" if offered else "leave it out"
        raise UserError(f"quantize: {options.quantize} is not offered for {options.format}; {instead}")
    if path.suffix != f".{options.format}":
        raise UserError(f"output: {path} has to end in .{options.format}")
    if not path.parent.is_dir():
        raise UserError(f"output: there is no folder {path.parent}")
    if path.exists() and not options.overwrite:
        raise UserError(f"output: {path} is there already; name another file or say --overwrite")
    require_writable("output", path)
    _require_numbers(options)


def _require_numbers(options: Options) -> None:
    for name in ("batch", "image_size", "calibration_images", "check_images"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"{name}: {value} is impossible; it is 1 or more")
    least = options.min_agreement
    if least is not None and not 0 <= least <= 100:
        raise UserError(f"min_agreement: {least:g} is impossible; it is 0 to 100 %")
    if options.weight_bits is not None and (options.format, options.quantize) != ("onnx", "int8"):
        raise UserError("weight_bits: it is a choice of --format onnx --quantize int8 alone")


def _require_offered(checkpoint: Checkpoint, options: Options) -> None:
    """Refuse what detectors, or classifiers, are not exported with."""
    if checkpoint.detector is None:
        if options.nms:
            raise UserError(f"nms: {checkpoint.path} is a classifier, which has no boxes; leave it out")
        return
    if options.quantize is not None:
        raise UserError(f"quantize: detectors are exported in float32, not {options.quantize}; leave it out")
    if options.nms and options.format not in ("onnx", "tflite"):
        raise UserError(f"nms: {options.format} files give a detector's raw answer; say --nms False")
    if options.nms and options.batch != 1:
        raise UserError("nms: a file that suppresses overlaps takes one image at a time; leave out --batch")


def _sized(options: Options) -> dict[str, Any]:
    return {} if options.image_size is None else {"image_resize": options.image_size}


def _write(
    path: Path, tensors: Mapping[str, np.ndarray], recipe: Recipe, metadata: ModelMetadata, options: Options
) -> None:
    if options.format in ("mindir", "air"):
        from mindcv_mnasnet.export.mindir import write_mindir

        write_mindir(tensors, path, metadata, options.format.upper())
        return
    folded = folded_as(metadata, tensors)
    ranges = {
        name.removeprefix("ranges."): (float(v[0]), float(v[1])) for name, v in tensors.items() if "ranges." in name
    }
    calibration = []
    if options.quantize == "int8":
        images = evaluation_images(recipe, metadata, options.data_dir, options.calibration_images, training=True)
        calibration = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
    if options.format == "tflite":
        from mindcv_mnasnet.export.tflite import write_tflite

        write_tflite(folded, path, metadata, calibration, ranges)
        return
    from mindcv_mnasnet.export.onnx_int8 import quantize_onnx
    from mindcv_mnasnet.export.onnx_writer import write_onnx

    if options.quantize is None:
        write_onnx(folded, path, metadata)
        return
    whole = path.with_name(f"float-{path.name}")
    write_onnx(folded, whole, metadata)
    quantize_onnx(whole, path, calibration, ranges, options.weight_bits or 7)


def _compared(
    fresh: Path, path: Path, checkpoint: Checkpoint, metadata: ModelMetadata, images: np.ndarray, ema: bool | None
) -> ExportReport:
    if fresh.suffix == ".air":
        raise JobError(f"{path}: there is no runtime for AIR files here to compare it with the checkpoint")
    if metadata.detector is not None:
        from mindcv_mnasnet.export.detector import compare

        difference, agreement = compare(checkpoint, open_artifact(fresh), images, ema)
    else:
        expected = checkpoint_logits(checkpoint, metadata, images, ema)
        got = open_artifact(fresh).logits(images)
        difference = float(np.abs(got - expected).max() / max(float(expected.std()), 1e-12))
        agreement = float((got.argmax(1) == expected.argmax(1)).mean() * 100)
    return ExportReport(path, metadata, fresh.stat().st_size / 1e6, len(images), difference, agreement)


def checkpoint_logits(
    checkpoint: Checkpoint, metadata: ModelMetadata, images: np.ndarray, ema: bool | None
) -> np.ndarray:
    """Logits of the checkpoint itself, by MindSpore, for uint8 images (N, H, W, C).

    One that was trained for 8 bits is taken in float where the export is.
    """
    recipe = metadata.own_recipe()
    recipe = replace(recipe, quantize=recipe.quantize and metadata.quantization == "int8")
    evaluator = Evaluator(metadata.network_description(), recipe, runtime.start("auto"))
    evaluator.load(checkpoint.weights(ema), str(checkpoint.path))
    return np.concatenate([evaluator.answer(part) for part in filled(images, _BATCH)])[: len(images)]


def _require_equal(report: ExportReport, options: Options) -> None:
    bound = None if options.nms else BOUNDS.get(options.quantize)
    if not np.isfinite(report.difference):
        raise JobError(f"{report.path} gives logits that are not finite; it is not kept")
    if bound is not None and report.difference > bound:
        raise JobError(f"{report}: more than {bound:g}; it is not kept")
    least = options.min_agreement
    if least is None:
        least = NMS_AGREEMENT if options.nms else AGREEMENT.get(options.quantize)
    if least is not None and report.agreement < least:
        raise JobError(f"{report}: less than the {least:g} % asked for (--min_agreement); it is not kept")
