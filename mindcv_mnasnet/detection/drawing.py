"""Detections drawn into their image, for people who would rather look than read."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_GOLDEN = 0.618034  # steps of the hue by which any number of neighbors differ
_PADDING = 2  # pixels around a caption


def draw(image: Image.Image, objects: Sequence[tuple[Sequence[float], str, int]]) -> Image.Image:
    """A copy of an image, RGB, with boxes in it: (left, top, right, bottom) in pixels, caption, number of the color.

    The first is drawn last, on top of all others.
    """
    drawn = image.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    line = max(2, round(min(drawn.size) / 200))
    font = ImageFont.load_default(size=max(10, round(min(drawn.size) / 30)))
    for (left, top, right, bottom), caption, number in reversed(objects):
        color = _color(number)
        last = (max(left, right - 1), max(top, bottom - 1))  # Pillow includes it
        pen.rectangle((left, top, *last), outline=color, width=line)
        _, _, wide, tall = pen.textbbox((0, 0), caption, font=font)
        x = max(0, min(left, drawn.width - wide - 2 * _PADDING))
        y = top - tall - 2 * _PADDING if top >= tall + 2 * _PADDING else top
        pen.rectangle((x, y, x + wide + 2 * _PADDING, y + tall + 2 * _PADDING), fill=color)
        pen.text((x + _PADDING, y + _PADDING), caption, fill="white", font=font)
    return drawn


def _color(number: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.85, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)
