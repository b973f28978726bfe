"""Anchors as TensorFlow's Object Detection API places them (``create_ssd_anchors``): not clipped to the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mindcv_mnasnet.networks.detector import Detector

_FIRST_SHARE = 0.5  # of the scale: the square anchor on a reduced first map, 0.1 with TensorFlow's scale of 0.2
_FIRST_RATIOS = (2.0, 0.5)  # of the two beside it


def anchors_of(detector: Detector, image_size: int | None = None) -> np.ndarray:
    """All anchors of a detector for square images (None: of its own size); see :func:`place`."""
    return place(
        detector.map_sizes(image_size),
        detector.aspect_ratios,
        detector.min_scale,
        detector.max_scale,
        detector.reduced_first_map,
    )


def place(
    map_sizes: Sequence[int],
    aspect_ratios: Sequence[float] = (2.0, 3.0),
    min_scale: float = 0.2,
    max_scale: float = 0.95,
    reduced_first_map: bool = True,
) -> np.ndarray:
    """float32 (anchors, 4): center x, center y, width, height, as shares of the image.

    Map by map, row by row, cell by cell; in a cell the square anchor, then each aspect ratio (width / height) and its
    inverse, then a square between this map's scale and the next one's. With ``reduced_first_map`` the first map has a
    small square and two longish anchors instead.
    """
    count = len(map_sizes)
    scales = [min_scale + (max_scale - min_scale) * i / max(count - 1, 1) for i in range(count)] + [1.0]
    parts = []
    for number, size in enumerate(map_sizes):
        scale = scales[number]
        if number == 0 and reduced_first_map:
            shapes = [(_FIRST_SHARE * scale, 1.0), *((scale, ratio) for ratio in _FIRST_RATIOS)]
        else:
            ratios = [1.0, *(value for ratio in aspect_ratios for value in (ratio, 1 / ratio))]
            shapes = [*((scale, ratio) for ratio in ratios), ((scale * scales[number + 1]) ** 0.5, 1.0)]
        parts.append(_on_map(size, shapes))
    return np.concatenate(parts).astype(np.float32)


def _on_map(size: int, shapes: Sequence[tuple[float, float]]) -> np.ndarray:
    centers = (np.arange(size) + 0.5) / size
    cells = np.stack(np.meshgrid(centers, centers), -1).reshape(-1, 1, 2)  # (x, y), row by row
    sides = np.array([(scale * ratio**0.5, scale / ratio**0.5) for scale, ratio in shapes])
    pairs = np.broadcast_arrays(cells, sides[None])
    return np.concatenate(pairs, -1).reshape(-1, 4)
