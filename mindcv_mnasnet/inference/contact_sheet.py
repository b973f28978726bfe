"""Images with what was predicted for them, on one sheet, for people who would rather look than read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from mindcv_mnasnet.files import replace_file

_SIDE, _TEXT, _MARGIN = 160, 28, 6  # pixels
_MOST = 400  # images; more make a sheet that nobody can look at


def contact_sheet(path: Path, entries: Sequence[tuple[str, str]]) -> int:
    """Write a PNG sheet of (image path, caption) pairs; returns how many of them are on it.

    Raises:
        JobError: it cannot be written.
    """
    shown = entries[:_MOST]
    columns = max(1, math.ceil(math.sqrt(len(shown))))
    rows = max(1, math.ceil(len(shown) / columns))
    cell = (_SIDE + _MARGIN, _SIDE + _TEXT + _MARGIN)
    sheet = Image.new("RGB", (columns * cell[0] + _MARGIN, rows * cell[1] + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (picture, caption) in enumerate(shown):
        x, y = (number % columns) * cell[0] + _MARGIN, (number // columns) * cell[1] + _MARGIN
        with Image.open(picture) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        sheet.paste(ImageOps.pad(upright, (_SIDE, _SIDE), color="white"), (x, y))
        lines = [_fitting(draw, line) for line in caption.split("\n")[:2]]
        draw.multiline_text((x, y + _SIDE + 1), "\n".join(lines), fill="black", spacing=1)
    content = BytesIO()
    sheet.save(content, "PNG")
    replace_file(path, content.getvalue())
    return len(shown)


def _fitting(draw: ImageDraw.ImageDraw, line: str) -> str:
    """As much of a line as is as wide as an image."""
    line = line.encode("latin-1", "replace").decode("latin-1")  # all that Pillow's own font has
    while draw.textlength(line) > _SIDE:
        line = line[:-2].rstrip(".") + "."
    return line
