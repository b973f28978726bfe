"""Labels as YOLO has them: a text file for each image, with "class center-x center-y width height" as shares of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from mindcv_mnasnet.data.images import BadImage
from mindcv_mnasnet.data.walk import images_under
from mindcv_mnasnet.detection.foreign import ForeignBox, Labels
from mindcv_mnasnet.errors import UserError

_NAME_FILES = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names")
_LEVELS = 3  # folders above the images that may hold the class names
_OTHERS = frozenset(("classes", "train", "val", "test"))  # text files that are not labels
_NOT_LABELS = (".", "README.")  # nor are hidden files and Roboflow's README.dataset.txt


def read_yolo(source: Path, images: Path | None = None, class_names: Sequence[str] | None = None) -> Labels:
    """Read the images below ``source`` (or ``source/images``) with their labels.

    Labels are where the image's last folder ``images`` is called ``labels``, or beside it. An image without a file of
    labels shows no objects.

    Args:
        images: folder of the images, if it is another.
        class_names: names by class number; None reads data.yaml or classes.txt there or in a folder above.
    Raises:
        UserError: no such folder, no images, or no class names.
    """
    folder = images or (source / "images" if (source / "images").is_dir() else source)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    folder = folder.absolute()
    names = images_under(str(folder))
    if not names:
        raise UserError(f"no images in {folder}")
    class_names = class_names or _class_names(folder)
    found = Labels(class_names=class_names)
    labels = _labels_of(folder)
    used = set()
    for name in names:
        path = (labels / name).with_suffix(".txt")
        used.add(path)
        found.add(path.name, folder, name, partial(_boxes, path, class_names))
    for path in sorted(set(labels.rglob("*.txt")) - used):
        if path.stem not in _OTHERS and not path.name.startswith(_NOT_LABELS):
            found.faults.append(f"{path.relative_to(labels)}: there is no image of that name")
    return found


def _labels_of(folder: Path) -> Path:
    """The folder whose tree of labels is like the tree of images in ``folder``."""
    parts = list(folder.parts)
    for place in reversed(range(len(parts))):
        if parts[place] == "images":
            other = Path(*parts[:place], "labels", *parts[place + 1 :])
            return other if other.is_dir() else folder
    return folder


def _class_names(folder: Path) -> list[str]:
    for place in (folder, *folder.parents[:_LEVELS]):
        for path in (place / name for name in _NAME_FILES):
            if path.is_file():
                names = _read_names(path)
                if not names or len(set(names)) < len(names):
                    raise UserError(f"{path} has no list of distinct class names; give them with --classes")
                return names
    raise UserError(f"no {' or '.join(_NAME_FILES)} with class names in or above {folder}; give them with --classes")


def _read_names(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix != ".yaml":
            return [line.strip() for line in text.splitlines() if line.strip()]
        stored: Any = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read class names from {path}: {error}") from None
    names = stored.get("names") if isinstance(stored, dict) else None
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    return [str(name) for name in names] if isinstance(names, list) else []


def _boxes(path: Path, class_names: Sequence[str], width: int, height: int) -> Iterator[ForeignBox | str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise BadImage(path.stem, f"its labels cannot be read ({error})") from None
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        values = _numbers(words)
        if len(values) != 5 or not values[0].is_integer():
            yield f"line {number} is no class and four numbers"
        elif not 0 <= values[0] < len(class_names):
            yield f"line {number}: class {words[0]} is none of the {len(class_names)} classes"
        else:
            wide, tall = values[3] * width, values[4] * height
            box = (values[1] * width - wide / 2, values[2] * height - tall / 2, wide, tall)
            yield ForeignBox(class_names[int(values[0])], box)


def _numbers(words: Sequence[str]) -> list[float]:
    """The words as numbers; none at all if one is not finite."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return []
    return values if all(map(math.isfinite, values)) else []
