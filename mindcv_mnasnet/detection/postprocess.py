"""From a network's raw answer to detections, in NumPy on the host.

MindSpore's own suppression takes few boxes and on Ascend ignores scores, so all platforms take this one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mindcv_mnasnet.detection.boxes import areas, decode
from mindcv_mnasnet.recipe.detection_keys import DetectionKeys


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first: corners (N, 4), scores (N,) and classes (N,), which count from 0."""

    corners: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> Detections:
        """Those with at least this score."""
        kept = self.scores >= score
        return Detections(self.corners[kept], self.scores[kept], self.classes[kept])


def suppress(corners: np.ndarray, scores: np.ndarray, classes: np.ndarray, threshold: float, most: int) -> np.ndarray:
    """Indices of the boxes that stay, best first: those that overlap no better one of their class by more.

    One pass over all classes that stops at ``most`` boxes: the same as one per class, then the best of all.
    """
    order = np.argsort(-scores, kind="stable")
    corners, classes = corners[order], classes[order]
    sizes, kept = areas(corners), []
    alive = np.ones(len(order), bool)
    for index in range(len(order)):
        if not alive[index]:
            continue
        kept.append(order[index])
        if len(kept) == most:
            break
        rest = index + 1 + np.flatnonzero(alive[index + 1 :] & (classes[index + 1 :] == classes[index]))
        sides = np.minimum(corners[index, 2:], corners[rest, 2:]) - np.maximum(corners[index, :2], corners[rest, :2])
        shared = np.prod(np.maximum(sides, 0), 1)
        union = sizes[index] + sizes[rest] - shared
        alive[rest[shared > threshold * union]] = False
    return np.array(kept, np.int64)


class PostProcess:
    """Scores, boxes and suppression for one detector.

    Args:
        anchors: (A, 4) as centers, shares of the image.
        keys: the thresholds, and the loss that the scores were trained by: a softmax over all slots, or a sigmoid each.
    """

    def __init__(self, anchors: np.ndarray, keys: DetectionKeys):
        self._anchors, self._keys = anchors, keys

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Scores (A, classes), without background, of logits (A, slots)."""
        logits = logits.astype(np.float32)
        if self._keys.class_loss == "focal":
            return 1 / (1 + np.exp(-logits[:, 1:]))
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers[:, 1:] / powers.sum(1, keepdims=True)

    def __call__(self, logits: np.ndarray, codes: np.ndarray) -> Detections:
        """Detections of one image from logits (A, slots) and codes (A, 4); corners are shares, cut at the image."""
        scores = self.scores(logits)
        anchor, found = np.nonzero(scores > self._keys.min_score)
        boxes = decode(codes[anchor].astype(np.float32), self._anchors[anchor], self._keys.prior_scaling)
        corners, scores = np.clip(boxes, 0, 1), scores[anchor, found]
        kept = suppress(corners, scores, found, self._keys.nms_threshold, self._keys.max_boxes)
        return Detections(corners[kept], scores[kept], found[kept])
