"""Every random number that a training step consumes, drawn on the host.

The numbers are a pure function of (seed, step, rank), so nothing about them has to be saved: a resumed run draws what
the uninterrupted one would have drawn, on any device. One float32 array of shape (batch, columns) carries them into
the compiled step; ``RandomLayout`` says which columns mean what. Random crops, flips and colors belong to the data
pipeline and are not drawn here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MIX_COLUMNS = 6
ERASE_COLUMNS = 4


@dataclass(frozen=True)
class RandomLayout:
    """What is drawn for a step.

    Columns, in order: mixing (pixel weight, y0, y1, x0, x1, label weight; the same in every row) when ``mixup`` or
    ``cutmix`` is above 0; random erasing (y0, y1, x0, x1 per image) when ``erase_prob`` is above 0; then
    ``drop_columns`` uniform numbers for drop-connect and dropout. ``mixup`` and ``cutmix`` are the alphas of their
    beta distributions; with both set, each mixed batch takes either with equal chance, as timm and MindCV do.
    """

    image_size: int
    drop_columns: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_prob: float = 1.0
    erase_prob: float = 0.0
    erase_scale: tuple[float, float] = (0.02, 0.33)
    erase_ratio: tuple[float, float] = (0.3, 3.3)
    erase_attempts: int = 10

    @property
    def mixes(self) -> bool:
        """Whether images and labels are mixed in pairs."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def erases(self) -> bool:
        """Whether rectangles are erased."""
        return self.erase_prob > 0

    @property
    def mix_end(self) -> int:
        """First column after the mixing columns."""
        return MIX_COLUMNS if self.mixes else 0

    @property
    def erase_end(self) -> int:
        """First column after the erasing columns."""
        return self.mix_end + (ERASE_COLUMNS if self.erases else 0)

    @property
    def columns(self) -> int:
        """Width of the array; 0 means that a step needs no random numbers."""
        return self.erase_end + self.drop_columns


def draw_inputs(layout: RandomLayout, batch: int, seed: int, step: int, rank: int) -> np.ndarray:
    """Random numbers of one training batch, float32, shape (batch, layout.columns).

    Mixing is the same on every rank, all else is the rank's own.
    """
    drawn = np.empty((batch, layout.columns), np.float32)
    if layout.mixes:
        drawn[:, : layout.mix_end] = _mix_row(layout, _generator(seed, step, 0))
    rng = _generator(seed, step, rank + 1)
    if layout.erases:
        drawn[:, layout.mix_end : layout.erase_end] = _erase_boxes(layout, batch, rng)
    drawn[:, layout.erase_end :] = rng.random((batch, layout.drop_columns), np.float32)
    return drawn


def _generator(seed: int, step: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, 0, 0, step]))


def _mix_row(layout: RandomLayout, rng: np.random.Generator) -> tuple[float, ...]:
    if rng.random() >= layout.mix_prob:
        return (1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    cut = layout.cutmix > 0 and (layout.mixup == 0 or rng.random() < 0.5)
    alpha = layout.cutmix if cut else layout.mixup
    weight = float(rng.beta(alpha, alpha))
    if not cut:
        return (weight, 0.0, 0.0, 0.0, 0.0, weight)
    size = layout.image_size
    half = size * (1 - weight) ** 0.5 / 2
    center_y, center_x = rng.integers(size, size=2)
    y0, y1 = np.clip([round(center_y - half), round(center_y + half)], 0, size)
    x0, x1 = np.clip([round(center_x - half), round(center_x + half)], 0, size)
    return (1.0, y0, y1, x0, x1, 1 - (y1 - y0) * (x1 - x0) / size**2)


def _erase_boxes(layout: RandomLayout, batch: int, rng: np.random.Generator) -> np.ndarray:
    """One box per image; an image that is spared, or that no tried box fits, gets the empty box."""
    size, tries = layout.image_size, layout.erase_attempts
    area = rng.uniform(*layout.erase_scale, (batch, tries)) * size**2
    ratio = np.exp(rng.uniform(math.log(layout.erase_ratio[0]), math.log(layout.erase_ratio[1]), (batch, tries)))
    height, width = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    top, left = rng.random((2, batch, tries))
    chosen = rng.random(batch) < layout.erase_prob
    fits = (height < size) & (width < size)
    first = fits.argmax(1)
    rows = np.arange(batch)
    height, width, top, left = (a[rows, first] for a in (height, width, top, left))
    top, left = np.floor(top * (size - height + 1)), np.floor(left * (size - width + 1))
    boxes = np.stack([top, top + height, left, left + width], 1)
    return np.where((chosen & fits.any(1))[:, None], boxes, 0.0)
