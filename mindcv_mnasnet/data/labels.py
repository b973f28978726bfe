"""Validation folders whose labels stand in a file: ImageNet's flat folder, ReaL's several labels per image."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.data.index import ImageIndex, class_order, images_under
from mindcv_mnasnet.errors import UserError


def list_flat(
    directory: str | os.PathLike[str], label_file: str | os.PathLike[str], class_names: Sequence[str] | None = None
) -> ImageIndex:
    """All images under ``directory``, sorted by file name, with the labels of ``label_file``.

    The file holds lines ``name label`` (separated by blanks, tabs or commas, such as Kaggle's
    ``LOC_val_solution.csv``), or one label per line in the order of the sorted names, or a JSON list in that order
    whose items are labels or lists of them (ReaL). A label is a class name or its number, counted from 0.
    An image with an empty list has labels of -1 only and does not count.

    Raises:
        UserError: the file does not fit the folder or the classes.
    """
    root = os.fspath(directory)
    paths = sorted(images_under(root), key=lambda path: (Path(path).name, path))
    if not paths:
        raise UserError(f"no images in {root}")
    texts = _labels_by_position(Path(label_file), paths)
    class_names, rows = _numbered(texts, class_names, Path(label_file))
    width = max(len(row) for row in rows)
    labels = np.full((len(rows), max(width, 1)), -1, np.int32)
    for row, numbers in zip(labels, rows, strict=True):
        row[: len(numbers)] = numbers
    several = any(len(row) != 1 for row in rows)
    return ImageIndex(root, tuple(paths), labels if several else labels[:, 0], tuple(class_names))


def _labels_by_position(label_file: Path, paths: Sequence[str]) -> list[list[str]]:
    """The labels of each path, as text."""
    try:
        text = label_file.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            listed = json.loads(text)
            return _ordered([one if isinstance(one, list) else [one] for one in listed], label_file, paths)
    except (OSError, ValueError) as error:
        raise UserError(f"val_labels: cannot read {label_file}: {error}") from None
    lines = [re.split(r"[\s,]+", line.strip()) for line in text.splitlines() if line.strip()]
    if all(len(fields) == 1 for fields in lines):
        _refuse_counting_from_one(lines, label_file)
        return _ordered(lines, label_file, paths)
    return _by_name({fields[0]: fields[1] for fields in lines if len(fields) > 1}, label_file, paths)


def _ordered(labels: Sequence[list[Any]], label_file: Path, paths: Sequence[str]) -> list[list[str]]:
    if len(labels) != len(paths):
        raise UserError(f"val_labels: {label_file} has {len(labels)} labels for {len(paths)} images")
    return [[str(one) for one in row] for row in labels]


def _refuse_counting_from_one(lines: Sequence[list[str]], label_file: Path) -> None:
    numbers = [int(fields[0]) for fields in lines if fields[0].isdecimal()]
    if len(numbers) == len(lines) and numbers and min(numbers) >= 1 and max(numbers) == 1000:
        raise UserError(
            f"val_labels: {label_file} counts from 1 to 1000, as ImageNet's development kit does, whose numbers are "
            "not in the order of the class names; give lines 'image class' such as those of LOC_val_solution.csv"
        )


def _by_name(labels: dict[str, str], label_file: Path, paths: Sequence[str]) -> list[list[str]]:
    found = []
    for path in paths:
        name = Path(path)
        label = next((labels[key] for key in (path, name.name, name.stem) if key in labels), None)
        if label is None:
            raise UserError(f"val_labels: {label_file} has no label for the image {path}")
        found.append([label])
    return found


def _numbered(
    texts: Sequence[list[str]], class_names: Sequence[str] | None, label_file: Path
) -> tuple[Sequence[str], list[list[int]]]:
    """Class names and numeric labels; without known classes they follow from the labels themselves."""
    distinct = {text for row in texts for text in row}
    if not distinct:
        raise UserError(f"val_labels: {label_file} holds no labels")
    if class_names is None and all(text.isdecimal() for text in distinct):
        class_names = [str(label) for label in range(max(map(int, distinct)) + 1)]
    elif class_names is None:
        class_names = class_order(distinct)
    numbers = {name: label for label, name in enumerate(class_names)}
    for text in distinct - numbers.keys():
        if not (text.isdecimal() and int(text) < len(class_names)):
            raise UserError(f"val_labels: {label_file} holds {text!r}, none of the {len(class_names)} classes")
        numbers[text] = int(text)
    return class_names, [[numbers[text] for text in row] for row in texts]
