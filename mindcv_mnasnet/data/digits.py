"""scikit-learn's 1797 handwritten digits (UCI optdigits, real scans of 8 x 8 pixels) as an image folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from mindcv_mnasnet.data.index import ImageIndex, split
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import unwritable

VALIDATION_IMAGES = 360  # of 1797; drawn once, by class, with the seed below
_SPLIT_SEED = 0


def write_digits(root: Path) -> None:
    """Make ``root`` hold train/<0..9>/ (1437 images) and val/<0..9>/ (360); done already, nothing happens.

    It appears as a whole or not at all, whoever else is writing it.

    Raises:
        UserError: ``root`` holds something else.
        JobError: it cannot be written.
    """
    if (root / "train").is_dir() and (root / "val").is_dir():
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"data_dir {root} is not empty and holds no digits; name a folder that is new or empty")
    partial = root.with_name(f"{root.name}.partial-{os.getpid()}")
    try:
        _write_images(partial)
        partial.replace(root)
    except OSError as error:
        if not (root / "val").is_dir():  # unless another process was first
            raise unwritable(root, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_images(root: Path) -> None:
    from sklearn.datasets import load_digits  # heavy, and needed once

    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    names = tuple(f"{label}/{number:04d}.png" for number, label in enumerate(labels))
    whole = ImageIndex(str(root), names, labels.astype(np.int32), tuple("0123456789"))
    parts = split(whole, VALIDATION_IMAGES / len(names), _SPLIT_SEED)
    for part, image_index in zip(("train", "val"), parts, strict=True):
        for name in image_index.paths:
            path = root / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[int(path.stem)]).save(path)
