"""From a network's raw answer to detections, in NumPy on the host.

MindSpore's own suppression takes few boxes and on Ascend ignores scores, so all platforms take this one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mindcv_mnasnet.detection.boxes import PRIOR_SCALING, areas, decode


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
        class_loss: the loss that the scores were trained by: "softmax" over all slots, or "focal", a sigmoid each.
    """

    def __init__(
        self,
        anchors: np.ndarray,
        class_loss: str = "softmax",
        nms_threshold: float = 0.6,
        min_score: float = 0.01,
        max_boxes: int = 100,
        scaling: tuple[float, ...] = PRIOR_SCALING,
    ):
        self._anchors, self._scaling, self._softmax = anchors, scaling, class_loss == "softmax"
        self._threshold, self._min_score, self._most = nms_threshold, min_score, max_boxes

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Scores (A, classes), without background, of logits (A, slots)."""
        logits = logits.astype(np.float32)
        if not self._softmax:
            return 1 / (1 + np.exp(-logits[:, 1:]))
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers[:, 1:] / powers.sum(1, keepdims=True)

    def __call__(self, logits: np.ndarray, codes: np.ndarray) -> Detections:
        """Detections of one image from logits (A, slots) and codes (A, 4); corners are shares, cut at the image."""
        scores = self.scores(logits)
        anchor, found = np.nonzero(scores > self._min_score)
        corners = np.clip(decode(codes[anchor].astype(np.float32), self._anchors[anchor], self._scaling), 0, 1)
        scores = scores[anchor, found]
        kept = suppress(corners, scores, found, self._threshold, self._most)
        return Detections(corners[kept], scores[kept], found[kept])
