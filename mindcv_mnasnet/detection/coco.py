"""Annotation files in COCO's format: read, judged as a whole, and turned into boxes by image.

Every fault is listed with the id of what has it; nothing is put right in silence.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindcv_mnasnet.errors import UserError

_SHOWN = 5  # faults that an error sentence spells out
_EDGE = 1.0  # pixels by which a box may leave its image: roundings of annotators' tools
_MOST_ID, _MOST_SIDE = 2**63 - 1, 2**31 - 1  # what evaluators and image files can hold


@dataclass(frozen=True)
class Box:
    """One annotation: (left, top, width, height) in pixels, ``category`` as the file's id. ``area`` is the object's."""

    id: int
    category: int
    left: float
    top: float
    width: float
    height: float
    area: float
    crowd: bool


@dataclass(frozen=True)
class AnnotatedImage:
    """One image of the file with its annotations, in the order of their ids; sizes in pixels."""

    id: int
    file_name: str
    width: int
    height: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Annotations:
    """A sound annotation file: ``images`` by id, ``categories`` (id, name) by id."""

    path: Path
    images: tuple[AnnotatedImage, ...]
    categories: tuple[tuple[int, str], ...]

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Ids in the order of the classes."""
        return tuple(number for number, _ in self.categories)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the same order."""
        return tuple(name for _, name in self.categories)


def read_annotations(path: str | Path) -> Annotations:
    """Read a file without faults.

    Raises:
        UserError: there is no such file, it is no JSON or of another schema, or it has faults: how many, and the first.
    """
    annotations, faults = judge(path)
    if faults:
        more = f"; {len(faults) - _SHOWN} others" if len(faults) > _SHOWN else ""
        raise UserError(
            f"{path} has {len(faults)} faults: {'; '.join(faults[:_SHOWN])}{more}; mnasnet check-dataset lists them all"
        )
    return annotations


def judge(path: str | Path) -> tuple[Annotations, list[str]]:
    """What is sound in a file, and a sentence about each fault.

    Raises:
        UserError: there is no such file, it is no JSON, or it has another schema altogether.
    """
    return judged(_stored(Path(path)), Path(path))


def judged(stored: Mapping[str, Sequence[Any]], path: Path) -> tuple[Annotations, list[str]]:
    """``judge`` for the content of a file, which ``path`` is to hold."""
    faults: list[str] = []
    categories = _categories(stored["categories"], faults)
    images = _images(stored["images"], faults)
    own: dict[int, list[Box]] = {number: [] for number in images}
    for image, box in _boxes(stored["annotations"], categories, images, faults):
        own[image].append(box)
    found = tuple(
        AnnotatedImage(number, *images[number], tuple(sorted(own[number], key=lambda box: box.id)))
        for number in sorted(images)
        if _is_sound(*images[number])
    )
    return Annotations(path, found, tuple(sorted(categories.items()))), faults


def _stored(path: Path) -> dict[str, list[Any]]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"there is no annotation file {path}") from None
    except OSError as error:
        raise UserError(f"cannot read the annotation file {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not an annotation file: it is not text") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); is it truncated?") from None
    except RecursionError:
        raise UserError(f"{path} is no COCO instances file: its JSON is nested too deeply") from None
    wanted = ("images", "annotations", "categories")
    lists: dict[str, Any] = {name: stored.get(name) for name in wanted} if isinstance(stored, dict) else {}
    missing = [name for name in wanted if not isinstance(lists.get(name), list)]
    if missing:
        raise UserError(
            f"{path} is no COCO instances file: it has no list {' and no list '.join(missing)}; "
            "tools/convert_boxes.py writes one from VOC or YOLO"
        )
    for name in ("images", "categories"):
        if not lists[name]:
            raise UserError(f"{path} lists no {name}")
    return lists


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MOST_ID


def _number(value: Any) -> bool:
    return _whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_name(value: Any) -> bool:
    """Text that files, tables and terminals can hold: no control characters, no halves of surrogate pairs."""
    return isinstance(value, str) and value != "" and not any(unicodedata.category(c) in ("Cc", "Cs") for c in value)


def _entries(kind: str, entries: Sequence[Any], faults: list[str]) -> list[tuple[int, Mapping[str, Any]]]:
    """Entries with an id of their own, the others being faults."""
    found: dict[int, Mapping[str, Any]] = {}
    for position, entry in enumerate(entries):
        number: Any = entry.get("id") if isinstance(entry, dict) else None
        if not _whole(number):
            faults.append(f"{kind} number {position} has no whole number as id")
        elif number in found:
            faults.append(f"{kind} id {number} is given twice")
        else:
            found[number] = entry
    return list(found.items())


def _categories(entries: Sequence[Any], faults: list[str]) -> dict[int, str]:
    names: dict[int, Any] = {number: entry.get("name") for number, entry in _entries("category", entries, faults)}
    for number, name in names.items():
        if not _is_name(name):
            faults.append(f"category id {number} has no printable name, but {name!r}")
    for name, count in Counter(name for name in names.values() if isinstance(name, str)).items():
        if count > 1:
            ids = [number for number in names if names[number] == name]
            faults.append(f"categories {ids} share the name {name!r}")
    return names


def _leaves(name: str) -> bool:
    return Path(name).is_absolute() or ".." in Path(name).parts


def _is_size(width: Any, height: Any) -> bool:
    return _whole(width) and _whole(height) and 0 < width <= _MOST_SIDE and 0 < height <= _MOST_SIDE


def _is_sound(name: Any, width: Any, height: Any) -> bool:
    return _is_name(name) and not _leaves(name) and _is_size(width, height)


def _images(entries: Sequence[Any], faults: list[str]) -> dict[int, tuple[str, int, int]]:
    found: dict[int, tuple[str, int, int]] = {}
    files: dict[str, int] = {}
    for number, entry in _entries("image", entries, faults):
        name: Any = entry.get("file_name")
        width: Any = entry.get("width")
        height: Any = entry.get("height")
        if not _is_name(name):
            faults.append(f"image id {number} has no printable file_name, but {name!r}")
        elif _leaves(name):
            faults.append(f"image id {number}: file_name {name!r} leaves the folder of the images")
        elif name in files:
            faults.append(f"image id {number} has the file_name {name!r} of image id {files[name]}")
        else:
            files[name] = number
        if not _is_size(width, height):
            faults.append(f"image id {number} has no width and height in pixels, but {width!r} and {height!r}")
        found[number] = (name, width, height)
    return found


def _boxes(
    entries: Sequence[Any],
    categories: Mapping[int, str],
    images: Mapping[int, tuple[str, int, int]],
    faults: list[str],
) -> list[tuple[int, Box]]:
    found = []
    for number, entry in _entries("annotation", entries, faults):
        image: Any = entry.get("image_id")
        category: Any = entry.get("category_id")
        box: Any = entry.get("bbox")
        before = len(faults)
        if not _whole(image) or image not in images:
            faults.append(f"annotation id {number}: image_id {image!r} is none of the images")
        if not _whole(category) or category not in categories:
            faults.append(f"annotation id {number}: category_id {category!r} is none of the categories")
        if entry.get("iscrowd", 0) not in (0, 1):
            faults.append(f"annotation id {number}: iscrowd is {entry['iscrowd']!r}, neither 0 nor 1")
        area = entry.get("area")
        if area is not None and not (_number(area) and area >= 0):
            faults.append(f"annotation id {number}: area {area!r} is no number from 0 on")
        size = images[image][1:] if _whole(image) and image in images else None
        if reason := box_fault(box, size):
            faults.append(f"annotation id {number}: bbox {box!r} {reason}")
        if len(faults) == before:
            left, top, width, height = (float(value) for value in box)
            crowd = bool(entry.get("iscrowd", 0))
            area = width * height if area is None else float(area)
            found.append((image, Box(number, category, left, top, width, height, area, crowd)))
    return found


def box_fault(box: Any, size: tuple[Any, Any] | None) -> str | None:
    """What is wrong with a box; sizes of 0 are degenerate, not wrong, and are counted where they are left out."""
    if not isinstance(box, list) or len(box) != 4 or not all(_number(value) for value in box):
        return "is not four finite numbers"
    left, top, width, height = box
    if width < 0 or height < 0:
        return "has a negative size"
    if size is None or not _is_size(*size):
        return None
    if left < -_EDGE or top < -_EDGE or left + width > size[0] + _EDGE or top + height > size[1] + _EDGE:
        return f"leaves its image of {size[0]} x {size[1]} pixels"
    return None
