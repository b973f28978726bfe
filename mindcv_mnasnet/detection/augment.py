"""SSD's random crop and the flips, drawn on the host: boxes and pixels change together.

W. Liu et al. 2016, https://arxiv.org/abs/1512.02325, with the numbers of TensorFlow's ``ssd_random_crop``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mindcv_mnasnet.detection.boxes import areas

OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
AREA, RATIO = (0.1, 1.0), (0.5, 2.0)
_TRIES = 50  # boxes drawn before the whole image is taken
_LEAST_LEFT = 1e-3  # side of a box, as a share of the crop, below which it is left out: nothing of it can be seen


@dataclass(frozen=True)
class Cut:
    """What is taken of an image: top, left, height, width in pixels, which way it is flipped, and the boxes in it.

    ``corners`` (N, 4) are shares of the cut, ``kept`` (N,) the indices of the boxes that they were.
    """

    box: tuple[int, int, int, int]
    mirrored: bool
    upside_down: bool
    corners: np.ndarray
    kept: np.ndarray

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """The cut's pixels (height, width, channels), flipped as its boxes are."""
        flipped = pixels[:: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1]
        return np.ascontiguousarray(flipped)


@dataclass(frozen=True)
class RandomCut:
    """Crops with a least overlap with a box, drawn anew for each image; 1 in ``overlaps`` means the whole image."""

    overlaps: tuple[float, ...] = OVERLAPS
    flip: float = 0.5
    vertical_flip: float = 0.0

    @staticmethod
    def draw(generator: np.random.Generator) -> np.ndarray:
        """The random numbers of one image, always as many: (3 + 4 tries,) in [0, 1)."""
        return generator.random(3 + 4 * _TRIES)

    def __call__(self, height: int, width: int, corners: np.ndarray, draws: np.ndarray) -> Cut:
        """What is cut out of an image of so many pixels with boxes (N, 4), shares of it.

        A box stays if its center is in the cut, and is clipped to it.
        """
        mirrored, upside_down = bool(draws[0] < self.flip), bool(draws[-1] < self.vertical_flip)
        least = self.overlaps[int(draws[1] * len(self.overlaps))] if self.overlaps else 1.0
        box = (0, 0, height, width)
        if least < 1 and len(corners):
            for tried in draws[2:-1].reshape(-1, 4).tolist():
                candidate = _candidate(height, width, tried)
                if candidate is not None and _fits(candidate, height, width, corners, least):
                    box = candidate
                    break
        inside, kept = _inside(box, height, width, corners)
        if mirrored:
            inside = np.stack([1 - inside[:, 2], inside[:, 1], 1 - inside[:, 0], inside[:, 3]], 1)
        if upside_down:
            inside = np.stack([inside[:, 0], 1 - inside[:, 3], inside[:, 2], 1 - inside[:, 1]], 1)
        return Cut(box, mirrored, upside_down, inside, kept)


def _candidate(height: int, width: int, draws: list[float]) -> tuple[int, int, int, int] | None:
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * draws[0])
    ratio = RATIO[0] + (RATIO[1] - RATIO[0]) * draws[1]
    wide, tall = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
    if not (0 < wide <= width and 0 < tall <= height):
        return None
    return int(draws[2] * (height - tall + 1)), int(draws[3] * (width - wide + 1)), tall, wide


def _shares(box: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    top, left, tall, wide = box
    return np.array([left / width, top / height, (left + wide) / width, (top + tall) / height], np.float32)


def _fits(box: tuple[int, int, int, int], height: int, width: int, corners: np.ndarray, least: float) -> bool:
    """Whether some box has its center in the cut and no less than ``least`` of its area, as TensorFlow counts."""
    window = _shares(box, height, width)
    cut = np.concatenate([np.maximum(corners[:, :2], window[:2]), np.minimum(corners[:, 2:], window[2:])], 1)
    shared = areas(cut) / np.maximum(areas(corners), 1e-12)
    return bool((_centered(window, corners) & (shared >= least)).any())


def _centered(window: np.ndarray, corners: np.ndarray) -> np.ndarray:
    centers = (corners[:, :2] + corners[:, 2:]) / 2
    return np.asarray(((centers >= window[:2]) & (centers < window[2:])).all(1))


def _inside(
    box: tuple[int, int, int, int], height: int, width: int, corners: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of a cut as shares of it, and which they were."""
    window = _shares(box, height, width)
    origin, scale = np.tile(window[:2], 2), np.tile(window[2:] - window[:2], 2)
    moved = np.clip((corners - origin) / scale, 0, 1)
    kept = np.flatnonzero(_centered(window, corners) & (moved[:, 2:] - moved[:, :2] > _LEAST_LEFT).all(1))
    return moved[kept].astype(np.float32), kept
