"""What a pack holds of a folder's images, and whether it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mindcv_mnasnet.data.images import BadImage, read_plain
from mindcv_mnasnet.data.index import ImageIndex
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
        return encoded if scaling is None else scaling.apply(encoded, name)
    except BadImage as error:
        raise JobError(f"{error}; python tools/check_dataset.py {image_index.root} lists all such files") from None


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
        elif not _holds(packed.read(theirs[name]), packed_image(image_index, index, scaling), name, scaling):
            yield f"{name} is another image in the pack than in the folder"
        if progress:
            progress(1)


def _holds(packed: bytes, wanted: bytes, name: str, scaling: Scaling | None) -> bool:
    if packed == wanted or scaling is None:
        return packed == wanted
    try:
        return same_image(packed, wanted, name)
    except BadImage:
        return False
