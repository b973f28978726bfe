"""Packs written: shards one by one, each verified, kept when packing is begun again."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.pack_check import packed_image, stamps_of, unchanged
from mindcv_mnasnet.data.packs import CONTENTS, FORMAT, index_path, read_json
from mindcv_mnasnet.data.scaling import Scaling, scaling_of
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.files import replace_file, unwritable, utf8

_RECORDS_PER_WRITE = 64
_LARGEST_IMAGE = (1 << 25) - 64  # bytes; a record has to fit into a page, 32 MB by default
_HEAD = 256  # bytes of an image to search a shard for
_SCHEMA = {"image": {"type": "bytes"}, "label": {"type": "int32"}, "name": {"type": "string"}}


def write_pack(
    image_index: ImageIndex,
    directory: Path,
    shards: int,
    progress: Callable[[int], object] | None = None,
    scaling: Scaling | None = None,
) -> int:
    """Pack a folder's index; finished shards are kept, except those whose images have changed since.

    Whether they have is seen from size and time of change, and where one of these differs by content. Returns how many
    finished shards were made again.

    Args:
        scaling: makes images smaller; None keeps their bytes.
        progress: called with the number of images that have just been packed, or were there already.
    Raises:
        UserError: ``directory`` holds a pack of other images, with other shards or scaled otherwise, or its name is
            not UTF-8.
        JobError: a broken image, or a full disk.
    """
    if utf8(str(directory)) != str(directory):
        raise UserError(f"{directory}: MindRecord writes into folders whose names are UTF-8 alone; choose another")
    again = 0
    parts = np.array_split(np.arange(len(image_index)), min(shards, len(image_index)))
    names = [f"shard-{number:05d}-of-{len(parts):05d}.mindrecord" for number in range(len(parts))]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        foreign = {path.name for path in directory.glob("shard-*.mindrecord")} - set(names)
        if foreign:
            raise UserError(
                f"{directory} holds shards of another packing ({min(foreign)}); remove it or choose another"
            )
        for leftover in directory.glob(".partial-*"):
            shutil.rmtree(leftover)
        for name, part in zip(names, parts, strict=True):
            own = image_index.subset(part)
            if not _is_finished(own, directory, name, scaling):
                again += index_path(directory, name).is_file()
                _write_shard(own, directory, name, scaling)
            if progress:
                progress(len(own))
    except OSError as error:
        raise unwritable(directory, error) from error
    contents = {"format": FORMAT, "images": len(image_index), "classes": image_index.class_names, "shards": names}
    replace_file(directory / CONTENTS, json.dumps(contents | _memory(scaling), indent=1).encode())
    return again


def _memory(scaling: Scaling | None) -> dict[str, Any]:
    return {} if scaling is None else {"scaled": scaling.to_dict()}


def _write_shard(image_index: ImageIndex, directory: Path, name: str, scaling: Scaling | None) -> None:
    """Write one shard aside, then move it into place, its index last."""
    from mindspore.mindrecord import FileWriter  # reading a pack needs no MindSpore

    partial = directory / f".partial-{name}"
    partial.mkdir()
    stamps = stamps_of(image_index)
    written: list[_Written] = []
    try:
        writer = FileWriter(str(partial / name), shard_num=1, overwrite=True)
        writer.add_schema(_SCHEMA, "pictures")
        for start in range(0, len(image_index), _RECORDS_PER_WRITE):
            indices = range(start, len(image_index))[:_RECORDS_PER_WRITE]
            records = [_record(image_index, index, scaling) for index in indices]
            writer.write_raw_data(records)
            written += [_Written.of(record["image"]) for record in records]
        writer.commit()
    except RuntimeError as error:
        if isinstance(error, JobError):
            raise
        raise JobError(f"MindRecord could not write {partial / name} (is the disk full?): {_first(error)}") from error
    spans = _locate(written, partial / name)
    labels = [int(label) for label in image_index.labels]
    index = {"names": image_index.paths, "labels": labels, "offsets": spans, "lengths": [one.length for one in written]}
    index |= {"sources": stamps}
    index_path(directory, name).unlink(missing_ok=True)  # that of a shard before this one would not fit it
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.chmod(directory.stat().st_mode & 0o666)  # MindRecord keeps its files to their owner
        path.replace(directory / path.name)
    partial.rmdir()
    replace_file(index_path(directory, name), json.dumps(index | _memory(scaling)).encode())


@dataclass(frozen=True)
class _Written:
    head: bytes
    length: int
    digest: bytes

    @classmethod
    def of(cls, image: bytes) -> _Written:
        return cls(image[:_HEAD], len(image), _digest(image))


def _record(image_index: ImageIndex, index: int, scaling: Scaling | None) -> dict[str, Any]:
    image = packed_image(image_index, index, scaling)
    if len(image) > _LARGEST_IMAGE:
        raise JobError(f"{image_index.name(index)}: {len(image)} bytes are too many for a MindRecord page")
    return {"image": image, "label": int(image_index.labels[index]), "name": utf8(image_index.paths[index])}


def _locate(written: Sequence[_Written], shard: Path) -> list[int]:
    """Offset of each image in a shard: found by its content, without knowledge of the format, and so verified."""
    offsets = []
    with shard.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = 0
        for one in written:
            offset = content.find(one.head, end)
            while offset >= 0 and _digest(content[offset : offset + one.length]) != one.digest:
                offset = content.find(one.head, offset + 1)
            if offset < 0:
                raise JobError(f"{shard} does not hold what was written to it; check the disk and pack again")
            offsets.append(offset)
            end = offset + one.length
    return offsets


def _is_finished(image_index: ImageIndex, directory: Path, name: str, scaling: Scaling | None) -> bool:
    if not index_path(directory, name).is_file() or not (directory / name).is_file():
        return False
    index = read_json(index_path(directory, name))
    if index["names"] != list(image_index.paths) or index["labels"] != [int(label) for label in image_index.labels]:
        raise UserError(
            f"{directory / name} holds other images than {image_index.root}; remove it or choose another folder"
        )
    before = scaling_of(index)
    if before != scaling:
        what = "images at full size" if before is None else f"images scaled to {before}"
        raise UserError(f"{directory / name} holds {what}; say the same again, remove it or choose another folder")
    stamps = stamps_of(image_index)
    if stamps == index.get("sources"):
        return True
    if not unchanged(image_index, stamps, directory / name, index, scaling):
        return False
    replace_file(index_path(directory, name), json.dumps(index | {"sources": stamps}).encode())
    return True


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _first(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.startswith("[ERROR]")), str(error)[:200])
