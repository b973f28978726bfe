"""Objects in images, by a detector's checkpoint or exported file, in the pixels of the original image."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mindcv_mnasnet.data.decoder import decode_whole
from mindcv_mnasnet.data.images import read_plain, upright_size
from mindcv_mnasnet.detection.data import preparation
from mindcv_mnasnet.detection.drawing import draw
from mindcv_mnasnet.detection.postprocess import Detections
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.export.detector import CheckpointDetector
from mindcv_mnasnet.export.metadata import ModelMetadata
from mindcv_mnasnet.files import replace_file, require_writable
from mindcv_mnasnet.inference.image_paths import sound_paths
from mindcv_mnasnet.inference.opened import OpenedModel, open_model

MIN_SCORE = 0.3  # of what is worth showing; for precisions, a recipe's min_score goes much lower


@dataclass(frozen=True)
class FoundObjects:
    """What is in one image of ``width`` x ``height`` pixels, upright, best first.

    ``boxes`` are (left, top, right, bottom) in its pixels, ``numbers`` those of the classes.
    """

    path: str
    width: int
    height: int
    classes: tuple[str, ...]
    numbers: tuple[int, ...]
    scores: tuple[float, ...]
    boxes: tuple[tuple[float, float, float, float], ...]


class ObjectDetector:
    """A checkpoint or exported file that finds objects; open it with ``open_detector``."""

    def __init__(self, opened: OpenedModel):
        self.opened, self.checkpoint, self.recipe = opened, opened.checkpoint, opened.recipe
        self.class_names = self.checkpoint.class_names
        if opened.artifact is None:
            metadata = ModelMetadata.of(self.checkpoint, self.recipe, ema=opened.ema, batch=None)
            self._runner = CheckpointDetector(self.checkpoint, metadata, opened.ema, opened.batch_size or 8)
        else:
            metadata = opened.artifact.metadata
        self._metadata = metadata
        self._post = metadata.post_process(self.recipe)
        detector = metadata.detector_description()
        assert detector is not None
        self._preparation = preparation(self.recipe, detector)

    def detections(self, images: np.ndarray) -> list[Detections]:
        """What is in uint8 images (N, H, W, C) of the network's size, as shares of them.

        Raises:
            JobError: the network's answer is not finite.
        """
        if self.opened.artifact is not None:
            return self.opened.artifact.detections(images, self._post)
        outputs = self._runner.outputs(images)
        if not all(np.isfinite(one).all() for one in outputs):
            raise JobError(f"{self.checkpoint.path} gives answers that are not finite")
        return [self._post(*answer) for answer in zip(*outputs, strict=True)]

    def predict(self, images: str | Path | Sequence[str | Path], min_score: float = MIN_SCORE) -> list[FoundObjects]:
        """The objects in every image with at least this score, in the order of the paths.

        Args:
            images: files, folders (all images below them) or glob patterns.
        Raises:
            UserError: a name that stands for nothing, or an impossible score.
            JobError: an image that cannot be decoded.
        """
        require_score(min_score)
        return list(self.found_objects(sound_paths(images), min_score))

    def found_objects(self, paths: Sequence[str], min_score: float) -> Iterator[FoundObjects]:
        """Objects image by image, in the order of the paths.

        Raises:
            UserError: the exported file drops objects that score above ``min_score``.
        """
        if min_score < self.recipe.min_score:
            if self.opened.artifact is not None and self._metadata.suppresses:
                raise UserError(
                    f"min_score: {self.checkpoint.path} was exported to give no score below {self.recipe.min_score}; "
                    "ask for that, or export it again with --nms False"
                )
            self._post = self._metadata.post_process(replace(self.recipe, min_score=min_score))  # lower for later calls
        for numbers, images in self.opened.batches(paths, self._preparation):
            for number, found in zip(numbers, self.detections(images), strict=True):
                yield _in_pixels(paths[number], found.above(min_score), self.class_names)


def require_score(min_score: float) -> None:
    """Refuse a score that none has."""
    if not 0 <= min_score <= 1:
        raise UserError(f"min_score: {min_score} is impossible; scores are 0 to 1")


def open_detector(
    name: str,
    backend: str | None = None,
    ema: bool | None = None,
    batch_size: int | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> ObjectDetector:
    """A detector from a checkpoint, a run folder or an exported file; the arguments are those of ``open_classifier``.

    Raises:
        UserError: what ``open_classifier`` raises it for, or a classifier.
    """
    opened = open_model(name, backend, ema, batch_size, evaluation)
    if opened.checkpoint.detector is None:
        raise UserError(f"{opened.checkpoint.path} is a classifier; open_classifier opens it")
    return ObjectDetector(opened)


def _in_pixels(path: str, found: Detections, names: Sequence[str]) -> FoundObjects:
    width, height = upright_size(path)
    corners = found.corners * np.tile([width, height], 2)
    return FoundObjects(
        path=path,
        width=width,
        height=height,
        classes=tuple(names[number] for number in found.classes),
        numbers=tuple(found.classes.tolist()),
        scores=tuple(found.scores.tolist()),
        boxes=tuple((left, top, right, bottom) for left, top, right, bottom in corners.tolist()),
    )


def formatted(found: Sequence[FoundObjects], form: str) -> str:
    """All objects as "table", "csv" or "jsonl": class, score and (left, top, right, bottom) in pixels."""
    out = io.StringIO()
    if form == "csv":
        csv.writer(out).writerow(["path", "rank", "class", "score", "left", "top", "right", "bottom"])
    for one in found:
        rows = list(zip(one.classes, one.scores, one.boxes, strict=True))
        if form == "csv":
            csv.writer(out).writerows(
                [one.path, rank, name, f"{score:.6f}", *(f"{value:.1f}" for value in box)]
                for rank, (name, score, box) in enumerate(rows, 1)
            )
        elif form == "jsonl":
            objects = [
                {"class": name, "score": round(score, 6), "box": [round(value, 2) for value in box]}
                for name, score, box in rows
            ]
            line = {"path": one.path, "width": one.width, "height": one.height, "objects": objects}
            out.write(json.dumps(line) + "\n")
        else:
            out.write(f"{one.path}: {len(rows) or 'no'} object{'s' if len(rows) != 1 else ''}\n")
            for name, score, box in rows:
                out.write(f"  {100 * score:5.1f} %  {'  '.join(f'{value:7.1f}' for value in box)}  {name}\n")
    return out.getvalue()


def make_folder(folder: Path, images: Sequence[str]) -> None:
    """Make, before the work, the folder that images are drawn to.

    Raises:
        UserError: it cannot be made or written in, or it holds one of the images, which might be overwritten.
    """
    inside = next((path for path in images if Path(path).resolve().parent == folder.resolve()), None)
    if inside is not None:
        raise UserError(f"drawn: {folder} holds {inside} itself; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"drawn: cannot make the folder {folder}: {error.strerror or error}") from None
    require_writable("drawn", folder / "image.png")


def write_drawn(folder: Path, found: Sequence[FoundObjects]) -> None:
    """Draw every image with its objects to ``folder``, as PNG with its own name, numbered where two have the same.

    Raises:
        JobError: an image cannot be written.
    """
    taken: set[str] = set()
    for one in found:
        stem = name = Path(one.path).stem
        number = 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        image = Image.fromarray(decode_whole(read_plain(one.path), one.path))
        captions = [f"{kind} {100 * score:.0f} %" for kind, score in zip(one.classes, one.scores, strict=True)]
        content = io.BytesIO()
        draw(image, list(zip(one.boxes, captions, one.numbers, strict=True))).save(content, "PNG")
        replace_file(folder / f"{name}.png", content.getvalue())
