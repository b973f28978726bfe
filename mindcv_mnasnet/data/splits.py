"""Which images are kept for validation, decided by their names."""

from __future__ import annotations

import hashlib
import unicodedata

import numpy as np

from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.errors import UserError


def split_by_name(image_index: ImageIndex, fraction: float, seed: int) -> tuple[ImageIndex, ImageIndex]:
    """Two parts, the second with about ``fraction`` of the images; other images do not change where one belongs.

    A number drawn from seed and path decides for each image. A class of several images has one at least in each part:
    where chance gives it none, the nearest to the border is taken, which is all that new images can change.

    Raises:
        UserError: one part would be empty.
    """
    draws = np.array([_draw(path, seed) for path in image_index.paths])
    chosen = draws < fraction
    order = np.lexsort((draws, image_index.labels))
    counts = np.bincount(image_index.labels, minlength=len(image_index.class_names))
    for own in np.split(order, np.cumsum(counts)[:-1]):  # by rising draw
        if len(own) > 1:
            chosen[own[0]], chosen[own[-1]] = True, False
        elif len(own):
            chosen[own] = False
    if chosen.all() or not chosen.any():
        raise UserError(
            f"val_fraction {fraction} of the {len(image_index)} images in {image_index.root} leaves one part empty"
        )
    return image_index.subset(np.flatnonzero(~chosen)), image_index.subset(np.flatnonzero(chosen))


def _draw(path: str, seed: int) -> float:
    """An even draw from [0, 1), the same on every machine."""
    name = unicodedata.normalize("NFC", path).replace("\\", "/")
    digest = hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
