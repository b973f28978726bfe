"""What a data set consists of, before any image is opened: names, labels, classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mindcv_mnasnet.data.classes import class_order, label_of_folder, matching_note
from mindcv_mnasnet.data.images import BadImage, read_plain
from mindcv_mnasnet.data.scaling import Scaling
from mindcv_mnasnet.data.walk import LeftOut, class_folders
from mindcv_mnasnet.errors import JobError, UserError


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """Images of a data set in a fixed order.

    Attributes:
        root: folder that ``paths`` are relative to, or that holds the MindRecord shards.
        labels: int32 (N,); (N, M) where several labels are right, filled up with -1.
        kind: "folder" or "mindrecord".
        notes: sentences for the log.
        scaling: how images were made smaller; None: not at all.
        shards: shard files, and ``spans`` (N, 3) int64: shard, offset and length of each image; for packs only.
    """

    root: str
    paths: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    kind: str = "folder"
    notes: tuple[str, ...] = ()
    scaling: Scaling | None = None
    shards: tuple[str, ...] = ()
    spans: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """The image's file, or where it is in a pack, for messages."""
        return os.path.join(self.root, self.paths[index])  # noqa: PTH118 - a string, a million times

    def read(self, index: int) -> bytes:
        """The encoded image, plain as ``images`` says; threads may read at once.

        Raises:
            BadImage: the file is broken.
            JobError: the storage is.
        """
        if self.spans is None:
            return read_plain(self.name(index))
        shard, offset, length = (int(number) for number in self.spans[index])
        data = os.pread(self._files[shard].fileno(), length, offset)
        if len(data) != length:
            raise BadImage(self.name(index), f"{self.shards[shard]} ends before its image does")
        return data

    def label_digest(self) -> str | None:
        """SHA-256 (hex) of what is known of the images beyond their paths; None where these say it all."""
        return None

    @cached_property
    def _files(self) -> list[BinaryIO]:
        try:
            return [Path(self.root, shard).open("rb") for shard in self.shards]
        except OSError as error:
            raise JobError(f"cannot read the pack {self.root}: {error}") from error

    def subset(self, indices: Sequence[int] | np.ndarray) -> ImageIndex:
        """The images at ``indices``, in that order, with the same classes."""
        return replace(
            self,
            paths=tuple(self.paths[index] for index in indices),
            labels=self.labels[indices],
            spans=None if self.spans is None else self.spans[indices],
        )


def list_folder(directory: str | os.PathLike[str], class_names: Sequence[str] | None = None) -> ImageIndex:
    """The images in ``directory/<class>/``, classes in the order of :func:`class_order` unless it is given.

    What :mod:`mindcv_mnasnet.data.walk` leaves out is counted in ``notes``. With ``class_names`` classes may be
    missing.

    Raises:
        UserError: no images, a single class, a class without images, or a class that is not in ``class_names``.
    """
    root = os.fspath(directory)
    folders, left_out = class_folders(root)
    if class_names is None:
        _require_classes(root, folders, left_out)
        class_names = class_order(folders)
    numbers, how = label_of_folder(folders, class_names, root)
    paths: list[str] = []
    labels: list[int] = []
    for folder in sorted(folders, key=numbers.__getitem__):
        paths += [f"{folder}/{name}" for name in folders[folder]]
        labels += [numbers[folder]] * len(folders[folder])
    if not paths:
        raise UserError(f"no images in {root}: it should hold one folder per class with images inside")
    notes = (*matching_note(how, root), *left_out.notes(root))
    return ImageIndex(root, tuple(paths), np.array(labels, np.int32), tuple(class_names), notes=notes)


def split(image_index: ImageIndex, fraction: float, seed: int) -> tuple[ImageIndex, ImageIndex]:
    """Two parts, the second with ``fraction`` of the images of each class; the same for the same seed everywhere.

    Raises:
        UserError: one part would be empty.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, 0]))
    counts = np.bincount(image_index.labels, minlength=len(image_index.class_names))
    quotas = _quotas(counts, fraction)
    members = np.split(np.argsort(image_index.labels, kind="stable"), np.cumsum(counts)[:-1])
    chosen = [generator.permutation(own)[:quota] for own, quota in zip(members, quotas, strict=True)]
    second = np.sort(np.concatenate(chosen))
    first = np.setdiff1d(np.arange(len(image_index)), second)
    if not len(first) or not len(second):
        raise UserError(
            f"val_fraction {fraction} of the {len(image_index)} images in {image_index.root} leaves one part empty"
        )
    return image_index.subset(first), image_index.subset(second)


def _quotas(counts: np.ndarray, fraction: float) -> np.ndarray:
    """How many of each class to set apart: ``fraction`` by largest remainder, but never a whole class."""
    exact = counts * fraction
    quotas = np.floor(exact).astype(np.int64)
    missing = round(float(exact.sum())) - int(quotas.sum())
    quotas[np.argsort(quotas - exact, kind="stable")[:missing]] += 1
    return np.minimum(quotas, np.maximum(counts - 1, 0))


def _require_classes(root: str, folders: dict[str, list[str]], left_out: LeftOut) -> None:
    where = "the working folder" if root == "." else root  # data_dir's default
    if not any(folders.values()):
        raise UserError(
            f"no images in {where}: it should hold one folder per class with images inside; "
            "point data_dir at the folder that holds the classes"
        )
    empty = [folder for folder, names in folders.items() if not names]
    if empty:
        deeper = left_out.deeper[min(empty)]
        but = f" ({deeper} images lie in folders below it)" if deeper else ""
        remove = "remove them, or " if 2 * len(empty) < len(folders) else ""
        raise UserError(
            f"{len(empty)} of the {len(folders)} class folders in {where} hold no images, such as {min(empty)!r}{but}; "
            f"{remove}point data_dir at the folder that holds the classes"
        )
    if len(folders) == 1:
        raise UserError(
            f"{where} holds a single class folder, {next(iter(folders))!r}; is data_dir one level too high?"
        )
