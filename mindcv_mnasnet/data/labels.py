"""Validation folders whose labels stand in a file: ImageNet's flat folder, ReaL's several labels per image."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.data.class_files import text_of
from mindcv_mnasnet.data.classes import class_order, match_classes, matching_note
from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.walk import LeftOut, images_under
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import with_home

_MOST_CLASSES = 1_000_000


def list_flat(
    directory: str | os.PathLike[str], label_file: str | os.PathLike[str], class_names: Sequence[str] | None = None
) -> ImageIndex:
    """All images under ``directory``, sorted by file name, with the labels of ``label_file``.

    The file holds lines ``name label`` (separated by blanks, tabs, commas or semicolons, quoted as CSV is, such as
    Kaggle's ``LOC_val_solution.csv``), or one label per line in the order of the sorted names, or a JSON list
    in that order whose items are labels or lists of them (ReaL), or a JSON mapping of names to labels. A label is a
    class name or its number, counted from 0.
    An image with an empty list has labels of -1 only and does not count.

    Raises:
        UserError: the file does not fit the folder or the classes.
    """
    root = os.fspath(directory)
    left_out = LeftOut()
    paths = sorted(images_under(root, left_out), key=lambda path: (Path(path).name, path))
    if not paths:
        raise UserError(f"no images in {root}")
    label_file = with_home(label_file)
    texts = _labels_by_position(label_file, paths)
    class_names, rows, notes = _numbered(texts, class_names, label_file)
    width = max(len(row) for row in rows)
    labels = np.full((len(rows), max(width, 1)), -1, np.int32)
    for row, numbers in zip(labels, rows, strict=True):
        row[: len(numbers)] = numbers
    several = any(len(row) != 1 for row in rows)
    notes = (*notes, *left_out.notes(root))
    return ImageIndex(root, tuple(paths), labels if several else labels[:, 0], tuple(class_names), notes=notes)


def _labels_by_position(label_file: Path, paths: Sequence[str]) -> list[list[str]]:
    """The labels of each path, as text."""
    try:
        text = text_of(label_file)
        if text.lstrip().startswith("["):
            listed = json.loads(text)
            return _ordered([one if isinstance(one, list) else [one] for one in listed], label_file, paths)
        named = json.loads(text) if text.lstrip().startswith("{") else None
    except UnicodeDecodeError:
        raise UserError(f"val_labels: {label_file} is no text in UTF-8 or UTF-16; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise UserError(f"val_labels: cannot read {label_file}: {error}") from None
    places = _Places(paths)
    if isinstance(named, dict):
        return _by_name([[name, _label(label, label_file)] for name, label in named.items()], places, label_file)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    rows = _columns(lines) or [_at_a_blank(line, places) for line in lines]
    if all(len(row) == 1 for row in rows):
        _refuse_counting_from_one(rows, label_file)
        return _ordered(rows, label_file, paths)
    return _by_name(rows, places, label_file)


def _columns(lines: Sequence[str]) -> list[list[str]] | None:
    """Cells of lines that all hold the same separator: a tab, a semicolon or a comma; quoted as CSV is."""
    separator = next((one for one in "\t;," if lines and all(one in line for line in lines)), None)
    if separator is None:
        return None
    rows = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    return [[cell.strip() for cell in row] for row in rows]


def _at_a_blank(line: str, places: _Places) -> list[str]:
    """An image and its label, where the words before a blank name an image; or else the whole line."""
    blanks = list(re.finditer(r"[\s,]+", line))[::-1]
    splits = ((line[: blank.start()].strip("\"'"), line[blank.end() :].strip("\"'")) for blank in blanks)
    return next(([name, label] for name, label in splits if places.find(name)), [line.strip("\"'")])


class _Places:
    """Positions of images by whatever a label file may call them."""

    def __init__(self, paths: Sequence[str]):
        self.paths = paths
        self._places: dict[str, list[int]] = {}
        self._whole: dict[str, list[int]] = {}  # by all of a path
        for place, path in enumerate(paths):
            whole = {path, os.path.splitext(path)[0]}  # noqa: PTH122
            for name in whole:
                self._whole.setdefault(name, []).append(place)
            for name in whole | {Path(path).name, Path(path).stem}:
                self._places.setdefault(name, []).append(place)

    def find(self, name: str) -> list[int]:
        """Images called ``name``, which may lead through folders above theirs; none where it is no image.

        A name without a folder is that of images in any folder; one with folders is none of an image in others.
        """
        if name in self._places:
            return self._places[name]
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        tails = ["/".join(parts[start:]) for start in range(len(parts))]
        places = self._places if len(parts) == 1 else self._whole
        return next((places[tail] for tail in tails if tail in places), [])


def _ordered(labels: Sequence[list[Any]], label_file: Path, paths: Sequence[str]) -> list[list[str]]:
    if len(labels) != len(paths):
        raise UserError(f"val_labels: {label_file} has {len(labels)} labels for {len(paths)} images")
    return [[_label(one, label_file) for one in row] for row in labels]


def _label(value: Any, label_file: Path) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise UserError(f"val_labels: {label_file} holds {value!r} where the name or number of a class is wanted")
    return str(value)


def _refuse_counting_from_one(lines: Sequence[list[str]], label_file: Path) -> None:
    numbers = [int(fields[0]) for fields in lines if fields[0].isdecimal()]
    if len(numbers) == len(lines) and numbers and min(numbers) >= 1 and max(numbers) == 1000:
        raise UserError(
            f"val_labels: {label_file} counts from 1 to 1000, as ImageNet's development kit does, whose numbers are "
            "not in the order of the class names; give lines 'image class' such as those of LOC_val_solution.csv"
        )


def _by_name(rows: Sequence[list[str]], places: _Places, label_file: Path) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in places.paths]
    for row in rows:
        if len(row) < 2:
            continue
        label = re.sub(r"^(\S+)(?: \d+){4}(?: \S+(?: \d+){4})*$", r"\1", row[1])  # Kaggle's: a class and its boxes
        for place in places.find(row[0]):
            if found[place] and found[place] != [label]:
                raise UserError(
                    f"val_labels: {label_file} gives {places.paths[place]} two labels, {found[place][0]!r} and "
                    f"{label!r}; images of one name in several folders are told apart by folder/name"
                )
            found[place] = [label]
    missing = next((path for path, labels in zip(places.paths, found, strict=True) if not labels), None)
    if missing is not None:
        raise UserError(f"val_labels: {label_file} has no label for the image {missing}")
    return found


def _numbered(
    texts: Sequence[list[str]], class_names: Sequence[str] | None, label_file: Path
) -> tuple[Sequence[str], list[list[int]], tuple[str, ...]]:
    """Class names, numeric labels and notes; without known classes they follow from the labels themselves."""
    distinct = {text for row in texts for text in row}
    if not distinct:
        raise UserError(f"val_labels: {label_file} holds no labels")
    if class_names is None and all(text.isdecimal() for text in distinct):
        most = max(map(int, distinct))
        if most >= _MOST_CLASSES:
            raise UserError(f"val_labels: {label_file} holds the number {most}, which is no class counted from 0")
        class_names = [str(label) for label in range(most + 1)]
    elif class_names is None:
        class_names = class_order(distinct)
    matched = match_classes(distinct, class_names)
    if matched is None:
        known = set(class_names)
        odd = sorted(text for text in distinct - known if not (text.isdecimal() and int(text) < len(known)))
        odd = odd or sorted(distinct - known)
        raise UserError(f"val_labels: {label_file} holds {odd[0]!r}, none of the {len(class_names)} classes")
    numbers, how = matched
    return class_names, [[numbers[text] for text in row] for row in texts], matching_note(how, str(label_file))
