"""Which anchor answers for which box, decided on the host: a compiled graph takes fifty times as long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mindcv_mnasnet.detection.boxes import PRIOR_SCALING, encode, overlaps, to_corners

TARGET_COLUMNS = 5  # four codes and a class


def match(corners: np.ndarray, anchors: np.ndarray, threshold: float) -> np.ndarray:
    """int64 (anchors,): the box that each anchor answers for, or -1.

    An anchor takes the box that it overlaps most, if by ``threshold`` or more. Then every box claims the anchor that
    overlaps it most, so that none goes without; where two claim one, the later box has it.

    Args:
        corners: boxes (N, 4); anchors: (A, 4), corners too.
    """
    if not len(corners):
        return np.full(len(anchors), -1)
    shared = overlaps(corners, anchors)
    matched = np.where(shared.max(0) >= threshold, shared.argmax(0), -1)
    matched[shared.argmax(1)] = np.arange(len(corners))
    return matched


class Matcher:
    """Turns the boxes of an image into what the loss compares the network's answer with."""

    def __init__(self, anchors: np.ndarray, threshold: float = 0.5, scaling: Sequence[float] = PRIOR_SCALING):
        self._anchors, self._corners = anchors, to_corners(anchors)
        self._threshold, self._scaling = threshold, scaling

    def targets(self, corners: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """float32 (anchors, 5): four codes, 0 for background, and the class, 0 for background.

        Args:
            corners: float32 (N, 4), shares of the image, each with an area.
            classes: int (N,), from 1.
        """
        targets = np.zeros((len(self._anchors), TARGET_COLUMNS), np.float32)
        matched = match(corners.astype(np.float32), self._corners, self._threshold)
        found = matched >= 0
        own = matched[found]
        targets[found, :4] = encode(corners[own], self._anchors[found], self._scaling)
        targets[found, 4] = classes[own]
        return targets
