"""Images and image folders for the tests of the data package."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def scene(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """A smooth color image without symmetry, so that JPEG keeps it and a flip shows."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    shift = 17 * seed
    planes = [(x * 5 + shift) % 200, (y * 6 + shift) % 180, (x * 2 + y * 3 + shift) % 220]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8)).resize((width, height))


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def flat(value: int, side: int = 8) -> bytes:
    """A PNG of one gray value, which every crop and resize keeps."""
    return encode(Image.new("RGB", (side, side), (value, value, value)))


def make_folder(root: Path, images: dict[str, bytes]) -> Path:
    for name, content in images.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def numbered_folder(root: Path, count: int, classes: int = 3) -> Path:
    """``count`` flat images whose gray value is their place in the image_index (up to 255), spread over classes."""
    sizes = [len(part) for part in np.array_split(np.arange(count), classes)]
    names = [f"class{label}/{place:04d}.png" for label, size in enumerate(sizes) for place in range(size)]
    return make_folder(root, {name: flat(value) for value, name in enumerate(names)})
