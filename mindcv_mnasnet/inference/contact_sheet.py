"""Images as the network saw them with what was predicted, on one sheet, for people who would rather look than read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import replace_file

_SIDE, _TEXT, _MARGIN = 160, 42, 6  # pixels
MOST = 400  # images; more make a sheet that nobody can look at
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".pdf": "PDF"}


def sheet_format(path: Path) -> str:
    """Pillow's name of the format that the suffix of ``path`` stands for.

    Raises:
        UserError: it stands for none that is written here.
    """
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        raise UserError(f"contact_sheet: {path} has to end in {', '.join(_FORMATS)}") from None


def contact_sheet(path: Path, entries: Sequence[tuple[np.ndarray, str]]) -> int:
    """Write a sheet of (image uint8 (H, W) or (H, W, C), caption of up to three lines); returns how many are on it.

    Raises:
        UserError: an unknown suffix.
        JobError: it cannot be written.
    """
    form, shown = sheet_format(path), entries[:MOST]
    columns = max(1, math.ceil(math.sqrt(len(shown))))
    rows = max(1, math.ceil(len(shown) / columns))
    cell = (_SIDE + _MARGIN, _SIDE + _TEXT + _MARGIN)
    sheet = Image.new("RGB", (columns * cell[0] + _MARGIN, rows * cell[1] + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (pixels, caption) in enumerate(shown):
        x, y = (number % columns) * cell[0] + _MARGIN, (number // columns) * cell[1] + _MARGIN
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
        sheet.paste(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), (x, y))
        lines = [_fitting(draw, line) for line in caption.split("\n")[:3]]
        draw.multiline_text((x, y + _SIDE + 1), "\n".join(lines), fill="black", spacing=1)
    content = BytesIO()
    sheet.save(content, form)
    replace_file(path, content.getvalue())
    return len(shown)


def _fitting(draw: ImageDraw.ImageDraw, line: str) -> str:
    """As much of a line as is as wide as an image."""
    line = line.encode("latin-1", "replace").decode("latin-1")  # all that Pillow's own font has
    while draw.textlength(line) > _SIDE:
        line = line[:-2].rstrip(".") + "."
    return line
