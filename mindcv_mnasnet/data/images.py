"""Image files as bytes that every decoder reads alike.

Sound upright JPEG and plain PNG files pass untouched; all else (CMYK, palettes, 16 bits, alpha, rotated by EXIF, other
formats) goes through Pillow and is handed on upright and without loss. Suffixes say nothing, the content decides.
"""

from __future__ import annotations

import io
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps
from simplejpeg import decode_jpeg_header

from mindcv_mnasnet.data.jpeg import JPEG, jpeg_orientation
from mindcv_mnasnet.errors import JobError, UserError

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_GRAY, _PNG_RGB = 0, 2
_IHDR = 13  # bytes in it
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
# Chunks that change what an image shows: transparency, EXIF and XMP (rotation), animation.
_PNG_NOT_PLAIN = (b"tRNS", b"eXIf", b"acTL", b"iTXtXML:com.adobe.xmp")


class BadImage(UserError):  # noqa: N818
    """A file that no image can be read from; the message names it and says why."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


def read_plain(path: str, lossless: Literal["BMP", "PNG"] = "BMP") -> bytes:
    """The encoded image in a file, plain as the top of this file says.

    Args:
        lossless: format of images that had to be converted; BMP is quick, PNG is small.
    Raises:
        BadImage: there is no such file, or it holds no whole image.
        JobError: the storage fails.
    """
    data = _content(path)
    return data if _is_plain(data) else _convert(data, path, lossless)


def upright_size(path: str) -> tuple[int, int]:
    """Width and height of the pixels that ``read_plain`` hands on, from the header alone where that tells them.

    Raises:
        BadImage: there is no such file, or it is no image.
        JobError: the storage fails.
    """
    data = _content(path)
    orientation = jpeg_orientation(data)
    if orientation is not None:
        with suppress(ValueError):  # simplejpeg stops at what is odd in headers, Pillow judges it
            height, width, *_ = decode_jpeg_header(data)
            return (height, width) if orientation in _SIDEWAYS else (width, height)
    return decode(data, path).size


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise BadImage(path, error.strerror or "unreadable") from None
    except OSError as error:
        raise JobError(f"cannot read {path}: {error.strerror or error}") from error


def _is_plain(data: bytes) -> bool:
    if data.startswith(JPEG):
        return jpeg_orientation(data) == 1
    return data.startswith(_PNG) and _is_plain_png(data)


def _is_plain_png(data: bytes) -> bool:
    """Whether all chunks are whole and the image is 8-bit gray or RGB without alpha, interlacing or animation."""
    at, kind = len(_PNG), b""
    while kind != b"IEND":
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 8 + length
        if len(data) < end + 4 or data.startswith(_PNG_NOT_PLAIN, at + 4):
            return False
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return False
        if kind == b"IHDR":
            if length != _IHDR:
                return False
            depth, color, *_, interlaced = data[at + 16 : end]
            if depth != 8 or color not in (_PNG_GRAY, _PNG_RGB) or interlaced:
                return False
        at = end + 4
    return True


def _convert(data: bytes, name: str, lossless: str) -> bytes:
    image = eight_bits(decode(data, name), name)
    encoded = io.BytesIO()
    image.save(encoded, lossless)
    return encoded.getvalue()


def decode(data: bytes, name: str) -> Image.Image:
    """All pixels of an encoded image, upright.

    Raises:
        BadImage: under ``name``, when it is broken.
    """
    if not data:
        raise BadImage(name, "the file is empty")
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Image.UnidentifiedImageError:
        raise BadImage(name, "no image that Pillow recognizes") from None
    except Exception as error:  # Pillow's many decoders raise errors of many kinds for broken files
        raise BadImage(name, str(error) or type(error).__name__) from None
    with suppress(Exception):  # what is no EXIF turns no image
        return ImageOps.exif_transpose(image)
    return image


def eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Gray or RGB in 8 bits; transparency is dropped as in all of PIL's users, 16 bits keep the upper 8."""
    try:
        if image.mode == "F":
            raise BadImage(name, "floating-point pixels have no defined white")
        if image.mode.startswith("I"):
            deep = np.asarray(image)
            if deep.min() < 0 or deep.max() > 0xFFFF:
                raise BadImage(name, "pixels exceed 16 bits")
            return Image.fromarray((deep >> 8).astype(np.uint8))
        return image.convert("L" if image.mode in ("L", "1", "LA") else "RGB")
    except (OSError, ValueError, SyntaxError) as error:
        if isinstance(error, BadImage):
            raise
        raise BadImage(name, str(error)) from None
