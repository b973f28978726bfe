"""Images with boxes as the input pipeline takes them: which of them, and what becomes of one in training."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mindspore.dataset.vision as vision
import numpy as np

from mindcv_mnasnet.data.augment import INTERPOLATIONS, gray
from mindcv_mnasnet.data.decoder import Decoder, decode_box
from mindcv_mnasnet.data.images import BadImage
from mindcv_mnasnet.data.known import Known, inherits_split, noting, split_again
from mindcv_mnasnet.data.pipeline import Preparation
from mindcv_mnasnet.detection.anchors import anchors_of
from mindcv_mnasnet.detection.augment import Cut, RandomCut
from mindcv_mnasnet.detection.coco import AnnotatedImage, Annotations, read_annotations
from mindcv_mnasnet.detection.index import DetectionIndex, Truth
from mindcv_mnasnet.detection.matching import Matcher
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import with_home
from mindcv_mnasnet.networks.detector import Detector
from mindcv_mnasnet.recipe.keys import DataKeys
from mindcv_mnasnet.recipe.recipe import Recipe

_SHOWN = 5  # missing files that an error sentence spells out


def open_train_val(
    recipe: Recipe, class_names: Sequence[str] | None = None
) -> tuple[DetectionIndex, DetectionIndex | None]:
    """Training images, and validation images where there are any.

    They are ``data_dir/<split>`` with ``data_dir/annotations/instances_<split>.json``, or parts of the training split
    by ``val_fraction``. Training leaves out crowds, boxes without an area, and images that have no others.

    Args:
        class_names: classes of a run that goes on, which the files have to have.
    Raises:
        UserError: what is missing, faulty or contradictory there.
    """
    root = _root(recipe)
    whole = _open(root, recipe.train_split, recipe, class_names)
    val: DetectionIndex | None = None
    if recipe.val_fraction is not None:
        if _file(root, recipe.val_split).is_file():
            raise UserError(f"val_fraction: {_file(root, recipe.val_split)} is there already; remove one of the two")
        train, val = _split(whole, recipe)
    else:
        train = whole
        if _file(root, recipe.val_split).is_file() or "val_split" in recipe.given:
            val = _open(root, recipe.val_split, recipe, train.class_names)
            if val.category_ids != train.category_ids:
                raise UserError(f"{val.root} has other category ids than {train.root}")
    return _for_training(train, recipe), val


def open_val(recipe: Recipe, class_names: Sequence[str] | None = None) -> DetectionIndex:
    """Validation images only."""
    root = _root(recipe)
    if recipe.val_fraction is not None and not _file(root, recipe.val_split).is_file():
        return _split(_open(root, recipe.train_split, recipe, class_names), recipe)[1]
    return _open(root, recipe.val_split, recipe, class_names)


def open_known_val(recipe: Recipe, class_names: Sequence[str] | None, known: Known | None) -> DetectionIndex:
    """The validation images that a checkpoint is measured on: see ``data.known.open_known_val``."""
    if known is None or known["val"] is None:
        return open_val(recipe, class_names)
    root = _root(recipe)
    if inherits_split(recipe) and not _file(root, recipe.val_split).is_file():
        whole = _open(root, recipe.train_split, recipe, class_names)
        return split_again(recipe, known, whole, lambda: _split(whole, recipe)[1])
    return noting(open_val(recipe, class_names), recipe, known)


def preparation(recipe: Recipe, detector: Detector) -> Preparation:
    """Crops and flips with their boxes, whole images in evaluation; both resized to the network's square."""
    size = recipe.image_resize
    resize = vision.Resize((size, size), INTERPOLATIONS[recipe.interpolation])
    train = [resize]
    if recipe.color_jitter > 0:
        train.append(vision.RandomColorAdjust(*(recipe.color_jitter,) * 3))
    name = recipe.val_interpolation or recipe.interpolation
    if name not in INTERPOLATIONS:
        raise UserError(f"val_interpolation: {name!r} is not one of {', '.join(INTERPOLATIONS)} in detection")
    evaluate = [vision.Resize((size, size), INTERPOLATIONS[name]), *gray(recipe.in_channels)]
    train += gray(recipe.in_channels)
    return Preparation(Cutter(recipe, detector).decoders, train, evaluate, partial(_whole, size=size))


def _whole(data: bytes, name: str, label: Any, size: int) -> tuple[np.ndarray, Any]:
    """Pixels of a whole image, decoded at less than full size where training does so too."""
    return decode_box(data, name, size, lambda height, width: (0, 0, height, width)), label


class Cutter:
    """Random cuts of images, and the targets of the boxes in them."""

    def __init__(self, recipe: Recipe, detector: Detector):
        self._cut = RandomCut(recipe.crop_overlaps, recipe.hflip, recipe.vflip)
        self._size = recipe.image_resize
        anchors = anchors_of(detector, recipe.image_resize)
        self._matcher = Matcher(anchors, recipe.match_threshold, recipe.prior_scaling)

    def decoders(self, generator: np.random.Generator) -> Iterator[Decoder]:
        """One cut after the other, without end."""
        while True:
            yield partial(self, draws=self._cut.draw(generator))

    def __call__(self, data: bytes, name: str, label: Truth, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 pixels (any height, any width, 3) and float32 targets (anchors, 5).

        Raises:
            BadImage: under ``name``, when no image can be decoded or it has another size than its annotation says.
        """
        chosen: list[Cut] = []

        def choose(height: int, width: int) -> tuple[int, int, int, int]:
            require_size(name, (width, height), (label.width, label.height))
            chosen.append(self._cut(height, width, label.corners, draws))
            return chosen[-1].box

        pixels = decode_box(data, name, self._size, choose)
        cut = chosen[-1]
        return cut.of(pixels), self._matcher.targets(cut.corners, label.classes[cut.kept])


def require_size(name: str, found: tuple[int, int], said: tuple[int, int]) -> None:
    """Refuse an image that is not as wide and high as its annotation says: its boxes would lie elsewhere.

    Raises:
        BadImage: naming both sizes.
    """
    if found != said:
        raise BadImage(name, f"it has {found[0]} x {found[1]} pixels, its annotation says {said[0]} x {said[1]}")


def _root(recipe: DataKeys) -> Path:
    root = with_home(recipe.data_dir)
    if not root.is_dir():
        raise UserError(f"data_dir: there is no folder {root}")
    return root


def _file(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}.json"


def _open(root: Path, split: str, recipe: Recipe, class_names: Sequence[str] | None) -> DetectionIndex:
    annotations = read_annotations(_file(root, split))
    names = annotations.class_names
    if recipe.num_classes not in (None, len(names)):
        hint = "; background is not counted here, as it is in MindCV" if recipe.num_classes == len(names) + 1 else ""
        raise UserError(f"num_classes: {recipe.num_classes}, but {annotations.path} has {len(names)} categories{hint}")
    if class_names is not None and tuple(class_names) != names:
        odd = next(iter(set(names).symmetric_difference(class_names)), "their order")
        raise UserError(f"{annotations.path} has other categories than were trained with; the first is {odd!r}")
    _require_files(root / split, annotations)
    paths = tuple(image.file_name for image in annotations.images)
    numbers = np.arange(len(paths), dtype=np.int32)
    return DetectionIndex(str(root / split), paths, numbers, names, annotations=annotations)


def _require_files(folder: Path, annotations: Annotations) -> None:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} with the images of {annotations.path}")
    with os.scandir(folder) as entries:
        there = {entry.name for entry in entries}
    missing = [
        image
        for image in annotations.images
        if image.file_name not in there and not (folder / image.file_name).is_file()
    ]
    if missing:
        shown = ", ".join(f"image id {image.id} ({image.file_name})" for image in missing[:_SHOWN])
        others = f" and {len(missing) - _SHOWN} others" if len(missing) > _SHOWN else ""
        raise UserError(f"{folder} lacks {len(missing)} of {len(annotations.images)} images: {shown}{others}")


def _split(whole: DetectionIndex, recipe: DataKeys) -> tuple[DetectionIndex, DetectionIndex]:
    """Two parts, the second with ``val_fraction`` of the images; the same for the same seed everywhere."""
    assert recipe.val_fraction is not None
    count = round(len(whole) * recipe.val_fraction)
    if not 0 < count < len(whole):
        raise UserError(
            f"val_fraction {recipe.val_fraction} of the {len(whole)} images in {whole.root} leaves one part empty"
        )
    order = np.random.Generator(np.random.Philox(key=[recipe.split_seed, 0])).permutation(len(whole))
    return _part(whole, np.sort(order[count:])), _part(whole, np.sort(order[:count]))


def _part(whole: DetectionIndex, chosen: np.ndarray) -> DetectionIndex:
    assert whole.annotations is not None
    images = tuple(whole.annotations.images[number] for number in chosen)
    return replace(
        whole,
        paths=tuple(image.file_name for image in images),
        labels=np.arange(len(images), dtype=np.int32),
        annotations=replace(whole.annotations, images=images),
    )


def _for_training(whole: DetectionIndex, recipe: DataKeys) -> DetectionIndex:
    assert whole.annotations is not None
    class_of = {number: label for label, number in enumerate(whole.category_ids, 1)}
    truths = [_truth(image, class_of) for image in whole.annotations.images]
    boxes = [box for image in whole.annotations.images for box in image.boxes]
    crowds = sum(box.crowd for box in boxes)
    flat = sum(not box.crowd and not (box.width > 0 and box.height > 0) for box in boxes)
    kept = np.array([number for number, truth in enumerate(truths) if len(truth.classes)], np.int64)
    if not len(kept):
        raise UserError(f"{whole.annotations.path} has no box to train on")
    note = (
        f"{whole.root}: {len(kept)} images with {len(boxes) - crowds - flat} boxes to train on; left out are "
        f"{len(truths) - len(kept)} images without any, {crowds} crowds and {flat} boxes without an area"
    )
    if recipe.num_samples is not None and recipe.num_samples < len(kept):
        generator = np.random.Generator(np.random.Philox(key=[recipe.split_seed, 1]))
        kept = np.sort(generator.permutation(kept)[: recipe.num_samples])
    part = _part(whole, kept)
    labels = np.empty(len(kept), object)
    labels[:] = [truths[number] for number in kept]
    return replace(part, labels=labels, notes=(note,))


def _truth(image: AnnotatedImage, class_of: dict[int, int]) -> Truth:
    own = [box for box in image.boxes if not box.crowd and box.width > 0 and box.height > 0]
    corners = np.array([(b.left, b.top, b.left + b.width, b.top + b.height) for b in own], np.float64).reshape(-1, 4)
    shares = np.clip(corners / np.tile([image.width, image.height], 2), 0, 1)
    classes = np.array([class_of[box.category] for box in own], np.int64)
    return Truth(image.width, image.height, shares.astype(np.float32), classes)
