"""Which files of a folder are images: one answer for training, packing, checking and prediction.

Links are followed, hidden entries and run folders are left out; a folder that cannot be read is an error. Files without
a suffix are images where their content is one.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePath

from PIL import Image

from mindcv_mnasnet.errors import UserError

_UNDECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # recognized by Pillow, decoded by other programs
_RUN_FOLDER = {"recipe.yaml", "checkpoints"}  # what marks one; run/folder.py makes them


@dataclass
class LeftOut:
    """What a folder holds besides the images that were asked for.

    Attributes:
        files: number of files that are no images, by suffix.
        hidden: number of hidden entries.
        deeper: number of images in folders below a class folder, by class folder.
        runs: folders of training runs.
    """

    files: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    deeper: Counter[str] = field(default_factory=Counter)
    runs: list[str] = field(default_factory=list)

    def notes(self, root: str) -> tuple[str, ...]:
        """One sentence about ``root``, or none where nothing was left out."""
        parts = []
        if self.files:
            kinds = ", ".join(f"{suffix or 'no suffix'} ({count})" for suffix, count in self.files.most_common(5))
            parts.append(f"{sum(self.files.values())} files that are not images: {kinds}")
        if self.deeper:
            parts.append(f"{sum(self.deeper.values())} images in folders below {min(self.deeper)!r} and the like")
        if self.hidden:
            parts.append(f"hidden files and folders ({self.hidden})")
        if self.runs:
            parts.append(f"run folders ({min(self.runs)!r})")
        return (f"{root}: left out {'; '.join(parts)}",) if parts else ()


@lru_cache(maxsize=1)
def image_suffixes() -> frozenset[str]:
    """Suffixes, in lower case with their dot, of all formats that Pillow decodes here."""
    known = Image.registered_extensions().items()
    decoded = Image.OPEN.keys() - _UNDECODED | {"MPO"}  # which Pillow opens as JPEG
    return frozenset(suffix for suffix, form in known if form in decoded)


def images_under(root: str | os.PathLike[str], left_out: LeftOut | None = None) -> list[str]:
    """Images at any depth, as sorted paths relative to ``root``; what else there is goes to ``left_out``.

    Raises:
        UserError: a folder cannot be read.
    """
    found: list[str] = []
    _collect(os.fspath(root), "", frozenset(), found, LeftOut() if left_out is None else left_out)
    return sorted(found)


def class_folders(root: str | os.PathLike[str]) -> tuple[dict[str, list[str]], LeftOut]:
    """Sorted image names of each folder in ``root``, and what was left out.

    A folder that holds runs and no images, such as ``runs``, is left out; deeper folders are counted only.

    Raises:
        UserError: a folder cannot be read.
    """
    left_out, folders = LeftOut(), {}
    for entry in _entries(os.fspath(root), left_out):
        if not _is_folder(entry):
            left_out.files[_suffix(entry.name)] += 1
            continue
        entries = _entries(entry.path, left_out)
        inner = [one for one in entries if _is_folder(one)]
        names = _images(entries, left_out)
        if _is_run(entries) or (not names and any(_is_run(_entries(one.path, LeftOut())) for one in inner)):
            left_out.runs.append(entry.name)
            continue
        folders[entry.name] = sorted(names)
        deeper = sum(len(images_under(one.path)) for one in inner)
        if deeper:
            left_out.deeper[entry.name] = deeper
    return folders, left_out


def _collect(root: str, below: str, above: frozenset[tuple[int, int]], found: list[str], left_out: LeftOut) -> None:
    folder = os.path.join(root, below)  # noqa: PTH118 - strings, a million times
    entries = _entries(folder, left_out)
    if below and _is_run(entries):
        left_out.runs.append(below)
        return
    status = os.stat(folder)  # noqa: PTH116 - as above
    here = above | {(status.st_dev, status.st_ino)}
    prefix = f"{PurePath(below).as_posix()}/" if below else ""
    found += [f"{prefix}{name}" for name in _images(entries, left_out)]
    for entry in entries:
        if _is_folder(entry):
            inner = entry.stat()
            if (inner.st_dev, inner.st_ino) not in here:  # a link to a folder above would never end
                _collect(root, f"{prefix}{entry.name}", here, found, left_out)


def _images(entries: list[os.DirEntry[str]], left_out: LeftOut) -> list[str]:
    names = []
    for entry in entries:
        if _is_folder(entry):
            continue
        suffix = _suffix(entry.name)
        if not _is_pipe(entry) and (suffix in image_suffixes() or (not suffix and _holds_image(entry.path))):
            names.append(entry.name)
        else:
            left_out.files[suffix] += 1
    return names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself, which is a dead one
        return False


def _is_pipe(entry: os.DirEntry[str]) -> bool:
    """Whether it is there and no file: a pipe would be waited for, while a dead link is an error to be told."""
    try:
        return not entry.is_file() and Path(entry.path).exists()
    except OSError:
        return False


def _holds_image(path: str) -> bool:
    """Whether the first bytes of a file are those of an image."""
    try:
        with open(path, "rb") as file, Image.open(file) as image:  # noqa: PTH123 - a string
            return image.format not in _UNDECODED
    except Exception:
        return False


def _is_run(entries: list[os.DirEntry[str]]) -> bool:
    return {entry.name for entry in entries} >= _RUN_FOLDER


def _entries(folder: str, left_out: LeftOut) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            every = list(entries)
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror or error}") from None
    visible = [entry for entry in every if not entry.name.startswith(".")]
    left_out.hidden += len(every) - len(visible)
    return visible


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - Path is ten times slower, a million times
