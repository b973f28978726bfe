"""Data sets packed into MindRecord shards: few large files instead of a million small ones.

A pack is a folder with shards (columns ``image``, ``label``, ``name``; any MindRecord reader opens them), beside each
shard an index, and ``dataset.json`` with the class names, written last. The index says where each image lies in
the shard, so that images are read in any order straight from the file, as quickly as from a folder.
"""

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

from mindcv_mnasnet.data.classes import label_of_folder
from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.pack_check import packed_image, stamps_of, unchanged
from mindcv_mnasnet.data.scaling import Scaling, scaling_of
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.files import replace_file, unwritable

_FORMAT = 1
_CONTENTS = "dataset.json"
_RECORDS_PER_WRITE = 64
_LARGEST_IMAGE = (1 << 25) - 64  # bytes; a record has to fit into a page, 32 MB by default
_HEAD = 256  # bytes of an image to search a shard for
_SCHEMA = {"image": {"type": "bytes"}, "label": {"type": "int32"}, "name": {"type": "string"}}


def is_pack(directory: Path) -> bool:
    """Whether ``directory`` holds a pack; another program's ``dataset.json`` makes none.

    Raises:
        UserError: there are shards of a packing that did not finish.
    """
    shards = next(directory.glob("shard-*.mindrecord"), None)
    if (directory / _CONTENTS).is_file():
        return shards is not None or {"format", "classes", "shards"} <= _keys(directory / _CONTENTS)
    if shards is not None:
        raise UserError(f"the pack {directory} is not finished; give the same mnasnet pack command again")
    return False


def _keys(path: Path) -> set[str]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return set()
    return set(content) if isinstance(content, dict) else set()


def open_pack(directory: Path, class_names: Sequence[str] | None = None) -> ImageIndex:
    """The images of a pack in the order of the folder it was made from; labels follow ``class_names`` if given.

    Raises:
        UserError: a shard is missing, or a class is not in ``class_names``.
    """
    contents = _read_json(directory / _CONTENTS)
    if contents.get("format") != _FORMAT:
        raise UserError(f"{directory / _CONTENTS} is not the contents of a pack that this version reads")
    own: list[str] = contents["classes"]
    indices = [_read_json(_index_path(directory, shard)) for shard in contents["shards"]]
    for shard in contents["shards"]:
        if not (directory / shard).is_file():
            raise UserError(f"the pack {directory} lacks its shard {shard}; pack again, finished shards are kept")
    names = tuple(name for index in indices for name in index["names"])
    labels = np.array([label for index in indices for label in index["labels"]], np.int32)
    if class_names is not None:
        numbers, _ = label_of_folder(own, class_names, str(directory))
        labels = np.array([numbers[name] for name in own], np.int32)[labels]
    spans = [
        np.column_stack([np.full(len(index["names"]), number), index["offsets"], index["lengths"]])
        for number, index in enumerate(indices)
    ]
    scaling = scaling_of(contents)
    return ImageIndex(
        root=str(directory),
        paths=names,
        labels=labels,
        class_names=tuple(own if class_names is None else class_names),
        kind="mindrecord",
        notes=() if scaling is None else (f"{directory}: its images were scaled down to {scaling}",),
        scaling=scaling,
        shards=tuple(contents["shards"]),
        spans=np.concatenate(spans).astype(np.int64),
    )


def write_pack(
    image_index: ImageIndex,
    directory: Path,
    shards: int,
    progress: Callable[[int], object] | None = None,
    scaling: Scaling | None = None,
) -> int:
    """Pack a folder's index; finished shards are kept, except those whose images have changed since.

    Whether they have is told by size and time of change, and where one of these differs by content. Returns how many
    finished shards were made again.

    Args:
        scaling: makes images smaller; None keeps their bytes.
        progress: called with the number of images that have just been packed, or were there already.
    Raises:
        UserError: ``directory`` holds a pack of other images, with other shards or scaled otherwise.
        JobError: a broken image, or a full disk.
    """
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
                again += _index_path(directory, name).is_file()
                _write_shard(own, directory, name, scaling)
            if progress:
                progress(len(own))
    except OSError as error:
        raise unwritable(directory, error) from error
    contents = {"format": _FORMAT, "images": len(image_index), "classes": image_index.class_names, "shards": names}
    replace_file(directory / _CONTENTS, json.dumps(contents | _memory(scaling), indent=1).encode())
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
    _index_path(directory, name).unlink(missing_ok=True)  # that of a shard before this one would not fit it
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.chmod(directory.stat().st_mode & 0o666)  # MindRecord keeps its files to their owner
        path.replace(directory / path.name)
    partial.rmdir()
    replace_file(_index_path(directory, name), json.dumps(index | _memory(scaling)).encode())


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
    name = image_index.paths[index].encode("utf-8", "backslashreplace").decode()
    return {"image": image, "label": int(image_index.labels[index]), "name": name}


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
    if not _index_path(directory, name).is_file() or not (directory / name).is_file():
        return False
    index = _read_json(_index_path(directory, name))
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
    replace_file(_index_path(directory, name), json.dumps(index | {"sources": stamps}).encode())
    return True


def _index_path(directory: Path, shard: str) -> Path:
    return directory / f"{shard}.index.json"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _first(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.startswith("[ERROR]")), str(error)[:200])
