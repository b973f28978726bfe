"""Boxes in NumPy: two ways to write them, overlaps, and the codes that a detector learns.

Corners are (left, top, right, bottom), centers (center x, center y, width, height); both in pixels or as shares of the
image. COCO's own boxes are (left, top, width, height) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PRIOR_SCALING = (0.1, 0.2)  # of centers and of sides; TensorFlow says 10, 10, 5, 5
MOST_GROWTH = np.log(1000 / 16)  # of a side against its anchor, as in torchvision: exp of more would overflow


def to_corners(centers: np.ndarray) -> np.ndarray:
    """(..., 4) centers as corners."""
    half = centers[..., 2:] / 2
    return np.concatenate([centers[..., :2] - half, centers[..., :2] + half], -1)


def to_centers(corners: np.ndarray) -> np.ndarray:
    """(..., 4) corners as centers."""
    sides = corners[..., 2:] - corners[..., :2]
    return np.concatenate([corners[..., :2] + sides / 2, sides], -1)


def areas(corners: np.ndarray) -> np.ndarray:
    """(...,) areas; 0 where a box is inside out."""
    sides = np.maximum(corners[..., 2:] - corners[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of corners (N, 4) with corners (M, 4): (N, M), 0 where both are empty."""
    left_top = np.maximum(one[:, None, :2], other[None, :, :2])
    right_bottom = np.minimum(one[:, None, 2:], other[None, :, 2:])
    sides = np.maximum(right_bottom - left_top, 0)
    shared = sides[..., 0] * sides[..., 1]
    union = areas(one)[:, None] + areas(other)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def encode(corners: np.ndarray, anchors: np.ndarray, scaling: Sequence[float] = PRIOR_SCALING) -> np.ndarray:
    """Codes (N, 4) of boxes (N, 4) against anchors (N, 4), the latter as centers: shifts, then logarithms of sides."""
    boxes = to_centers(corners)
    shifts = (boxes[:, :2] - anchors[:, :2]) / anchors[:, 2:] / scaling[0]
    growth = np.log(boxes[:, 2:] / anchors[:, 2:]) / scaling[1]
    return np.concatenate([shifts, growth], -1)


def decode(codes: np.ndarray, anchors: np.ndarray, scaling: Sequence[float] = PRIOR_SCALING) -> np.ndarray:
    """Corners (..., 4) of codes (..., 4): the inverse of :func:`encode`."""
    centers = codes[..., :2] * scaling[0] * anchors[:, 2:] + anchors[:, :2]
    sides = np.exp(np.minimum(codes[..., 2:] * scaling[1], MOST_GROWTH)) * anchors[:, 2:]
    return to_corners(np.concatenate([centers, sides], -1))
