"""Images scaled down before they are packed: what is left to decode in training is less."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from mindcv_mnasnet.data.images import BadImage, decode
from mindcv_mnasnet.errors import UserError

DEFAULT_QUALITY = 95
SHORTEST, LOWEST_QUALITY, HIGHEST_QUALITY = 16, 50, 100
# Mean difference, in levels of 255, that another version of Pillow or libjpeg may make.
_SAME_PIXELS = 1.0


@dataclass(frozen=True)
class Scaling:
    """Shrink to a short side of ``short_side`` pixels, never enlarge; JPEG of ``quality``.

    Raises:
        UserError: a side below 16 pixels, or a quality outside 50 to 100.
    """

    short_side: int
    quality: int = DEFAULT_QUALITY

    def __post_init__(self) -> None:
        if self.short_side < SHORTEST:
            raise UserError(f"short_side: {self.short_side} is below {SHORTEST} pixels")
        if not LOWEST_QUALITY <= self.quality <= HIGHEST_QUALITY:
            raise UserError(f"quality: {self.quality} is not in [{LOWEST_QUALITY}, {HIGHEST_QUALITY}]")

    def __str__(self) -> str:
        return f"short side {self.short_side} pixels, JPEG quality {self.quality}"

    def to_dict(self) -> dict[str, int]:
        """JSON-able form."""
        return asdict(self)

    def apply(self, encoded: bytes, name: str) -> bytes:
        """The image scaled, as JPEG; unchanged bytes where its short side is no longer than wanted.

        Pillow's bicubic resampling, which averages over all pixels that it shrinks.

        Raises:
            BadImage: under ``name``, when it is broken.
        """
        image = decode(encoded, name)
        short = min(image.size)
        if short <= self.short_side:
            return encoded
        width, height = (max(round(side * self.short_side / short), 1) for side in image.size)
        scaled = image.convert("L" if image.mode == "L" else "RGB").resize((width, height), Image.Resampling.BICUBIC)
        target = io.BytesIO()
        try:
            scaled.save(target, "JPEG", quality=self.quality)
        except OSError:  # JPEG has sides of up to 65,500 pixels
            raise BadImage(name, f"its {width} x {height} pixels, scaled, are no JPEG image") from None
        return target.getvalue()


def scaling_of(contents: dict[str, Any]) -> Scaling | None:
    """How the images of a pack, or of one of its shards, were scaled, as its JSON says; None: not at all."""
    stored = contents.get("scaled")
    return None if stored is None else Scaling(**stored)


def same_image(one: bytes, other: bytes, name: str) -> bool:
    """Whether two encoded images are the same but for what another version of an encoder may change."""
    if one == other:
        return True
    first, second = (np.asarray(decode(data, name).convert("RGB"), np.float32) for data in (one, other))
    return first.shape == second.shape and float(np.abs(first - second).mean()) <= _SAME_PIXELS
