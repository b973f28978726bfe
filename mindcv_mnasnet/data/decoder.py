"""Encoded images to pixels: whole ones, and random crops of which large images are decoded at less than full size.

libjpeg-turbo reads JPEG files, through simplejpeg: in half of the time that MindSpore's own decoder takes, without
holding up other threads, and an error in a file is an error, not the end of the process.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from simplejpeg import decode_jpeg, decode_jpeg_header

from mindcv_mnasnet.data.images import BadImage, decode, eight_bits, read_plain
from mindcv_mnasnet.data.jpeg import JPEG
from mindcv_mnasnet.recipe.keys import DataKeys

# Encoded image, its name and its label to pixels and what the network is to answer.
Decoder = Callable[[bytes, str, Any], tuple[np.ndarray, Any]]
Box = tuple[int, int, int, int]  # top, left, height, width in pixels

_TRIES = 10  # boxes drawn before the largest possible one is taken, as in torchvision and MindSpore
_reused = threading.local()  # each thread's memory for pixels that are copied from at once


def whole_image(data: bytes, name: str, label: Any) -> tuple[np.ndarray, Any]:
    """A decoder that crops nothing; see :func:`decode_whole`."""
    return decode_whole(data, name), label


def decode_whole(data: bytes, name: str) -> np.ndarray:
    """uint8 (height, width, 3); gray images have three equal channels.

    Raises:
        BadImage: under ``name``, when no image can be decoded.
    """
    if data.startswith(JPEG):
        with suppress(ValueError):  # simplejpeg stops at what is odd in headers, Pillow judges it
            return decode_jpeg(data, "RGB", strict=False)
    return _by_pillow(data, name)


def check_image(path: str, size: tuple[int, int] | None = None) -> str | None:
    """The reason why training cannot read an image file, or that its width and height are not ``size``; or None."""
    try:
        height, width, _ = decode_whole(read_plain(path), path).shape
    except BadImage as error:
        return error.reason
    if size is not None and (width, height) != size:
        return f"it has {width} x {height} pixels, its annotation says {size[0]} x {size[1]}"
    return None


class RandomCrop:
    """A box of random area and aspect ratio, as in Inception's training and, with these numbers, MindCV's and timm's.

    JPEG files are decoded at 1/2, 1/4 or 1/8 of their size where the box still has the network's size then. That is
    quicker, keeps memory small for photographs of many megapixels, and is smoother than what decoding all and shrinking
    without smoothing gives.
    """

    def __init__(self, recipe: DataKeys):
        self._size = recipe.image_resize
        self._scale = recipe.scale
        self._ratio = recipe.ratio

    @staticmethod
    def draw(generator: np.random.Generator) -> np.ndarray:
        """The random numbers of one box, (tries, 4) in [0, 1)."""
        return generator.random((_TRIES, 4))

    def decoders(self, generator: np.random.Generator) -> Iterator[Decoder]:
        """This crop with one box after the other, without end."""
        while True:
            yield partial(self.labeled, draws=self.draw(generator))

    def labeled(self, data: bytes, name: str, label: Any, draws: np.ndarray) -> tuple[np.ndarray, Any]:
        """The crop, and the label as it is."""
        return self(data, name, draws), label

    def box(self, height: int, width: int, draws: np.ndarray) -> Box:
        """Top, left, height, width of the box in an image: the first of the drawn ones that fits."""
        (low, high), (narrow, broad) = self._scale, self._ratio
        for area, ratio, down, across in draws.tolist():
            aspect = narrow * (broad / narrow) ** ratio  # even in its logarithm: as often wide as tall
            wide = round(math.sqrt(height * width * (low + (high - low) * area) * aspect))
            tall = round(wide / aspect)
            if 0 < wide <= width and 0 < tall <= height:
                return int(down * (height - tall + 1)), int(across * (width - wide + 1)), tall, wide
        aspect = min(max(width / height, narrow), broad)
        tall = max(min(height, round(width / aspect)), 1)
        wide = max(min(width, round(tall * aspect)), 1)
        return (height - tall) // 2, (width - wide) // 2, tall, wide

    def __call__(self, data: bytes, name: str, draws: np.ndarray) -> np.ndarray:
        """uint8 (any height, any width, 3), not yet of the network's size.

        Raises:
            BadImage: under ``name``, when no image can be decoded.
        """
        return decode_box(data, name, self._size, lambda height, width: self.box(height, width, draws))


def decode_box(data: bytes, name: str, size: int, choose: Callable[[int, int], Box]) -> np.ndarray:
    """Pixels of a box, uint8 (any height, any width, 3), at less than full size where ``size`` pixels are left then.

    Args:
        choose: gives the box for the image's height and width.
    Raises:
        BadImage: under ``name``, when no image can be decoded.
    """
    if data.startswith(JPEG):
        with suppress(ValueError):  # as above
            height, width, *_ = decode_jpeg_header(data)
            return _cut_jpeg(data, height, width, choose(height, width), size)
    pixels = _by_pillow(data, name)
    return _cut(pixels, choose(pixels.shape[0], pixels.shape[1]), 1)


def _cut_jpeg(data: bytes, height: int, width: int, box: Box, size: int) -> np.ndarray:
    shrink = next((n for n in (8, 4, 2) if min(box[2:]) >= n * size), 1)
    least = {"min_height": -(-height // shrink), "min_width": -(-width // shrink), "min_factor": shrink}
    room = _room(3 * least["min_height"] * least["min_width"])
    return _cut(decode_jpeg(data, "RGB", strict=False, buffer=room, **least), box, shrink)


def _by_pillow(data: bytes, name: str) -> np.ndarray:
    return np.asarray(eight_bits(decode(data, name), name).convert("RGB"))


def _room(size: int) -> np.ndarray:
    if len(getattr(_reused, "room", b"")) < size:
        _reused.room = np.empty(size, np.uint8)
    return _reused.room


def _cut(pixels: np.ndarray, box: Box, shrink: int) -> np.ndarray:
    top, left, tall, wide = (number // shrink for number in box)
    return pixels[top : top + tall, left : left + wide].copy()
