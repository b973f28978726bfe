"""What a pack holds of a folder's images, and whether it does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mindcv_mnasnet.data.images import BadImage, decode, read_plain
from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.jpeg import JPEG
from mindcv_mnasnet.data.scaling import Scaling, same_image
from mindcv_mnasnet.errors import JobError


def packed_image(image_index: ImageIndex, index: int, scaling: Scaling | None) -> bytes:
    """What a pack holds of an image: its bytes as they are, plain, or scaled.

    Raises:
        JobError: it is broken.
    """
    name = image_index.name(index)
    try:
        encoded = read_plain(name, lossless="PNG")
        if scaling is not None:
            return scaling.apply(encoded, name)
        if not encoded.startswith(JPEG):  # whose check is thorough; of a PNG only the checksums were looked at
            decode(encoded, name)
        return encoded
    except BadImage as error:
        raise JobError(f"{error}; python tools/check_dataset.py {image_index.root} lists all such files") from None


Stamp = list[int]  # size in bytes and time of the last change, in nanoseconds, of a file


def stamps_of(image_index: ImageIndex) -> list[Stamp | None]:
    """The stamp of each image's file; None where there is none."""
    return [_stamp(image_index.name(number)) for number in range(len(image_index))]


def _stamp(name: str) -> Stamp | None:
    with suppress(OSError):
        status = os.stat(name)  # noqa: PTH116 - a string, a million times
        return [status.st_size, status.st_mtime_ns]
    return None


def unchanged(
    image_index: ImageIndex,
    stamps: Sequence[Stamp | None],
    shard: Path,
    contents: Mapping[str, Any],
    scaling: Scaling | None,
) -> bool:
    """Whether a shard holds the images as they are now; those with another stamp than in its ``contents`` are read."""
    before = contents.get("sources") or [None] * len(stamps)
    with shard.open("rb") as file:
        for number, (then, now) in enumerate(zip(before, stamps, strict=True)):
            if then is not None and then == now:
                continue
            file.seek(contents["offsets"][number])
            packed = file.read(contents["lengths"][number])
            if not holds(packed, packed_image(image_index, number, scaling), scaling):
                return False
    return True


def differences(
    image_index: ImageIndex, packed: ImageIndex, progress: Callable[[int], object] | None = None
) -> Iterator[str]:
    """Every difference between a folder's index and the pack, as sentences: classes, names, labels, bytes.

    A scaled pack is held against the folder's images scaled in the same way.
    """
    scaling = packed.scaling
    if packed.class_names != image_index.class_names:
        yield f"the pack has other classes ({len(packed.class_names)}) than the folder ({len(image_index.class_names)})"
    ours = dict(zip(image_index.paths, range(len(image_index)), strict=True))
    yield from (f"{name} is in the pack, not in the folder" for name in packed.paths if name not in ours)
    theirs = dict(zip(packed.paths, range(len(packed)), strict=True))
    for name, index in ours.items():
        if name not in theirs:
            yield f"{name} is in the folder, not in the pack"
        elif image_index.labels[index] != packed.labels[theirs[name]]:
            other = packed.labels[theirs[name]]
            yield f"{name} has label {image_index.labels[index]} in the folder, {other} in the pack"
        elif not holds(packed.read(theirs[name]), packed_image(image_index, index, scaling), scaling, name):
            yield f"{name} is another image in the pack than in the folder"
        if progress:
            progress(1)


def holds(packed: bytes, wanted: bytes, scaling: Scaling | None, name: str = "") -> bool:
    """Whether bytes in a pack are the image that is ``wanted``; scaled ones may be encoded otherwise."""
    if packed == wanted or scaling is None:
        return packed == wanted
    try:
        return same_image(packed, wanted, name)
    except BadImage:
        return False
