"""Evaluation by counting: every image once, integers summed over batches and devices, divided at the end."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Counts:
    """Sums over images. ``loss`` is the summed cross entropy without smoothing, in nats."""

    seen: int = 0
    top1_hits: int = 0
    top5_hits: int = 0
    loss: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent; NaN when nothing was seen."""
        return 100 * self.top1_hits / self.seen if self.seen else float("nan")

    @property
    def top5(self) -> float:
        """Top-5 accuracy in percent; NaN when nothing was seen."""
        return 100 * self.top5_hits / self.seen if self.seen else float("nan")

    @property
    def mean_loss(self) -> float:
        """Mean cross entropy per image; NaN when nothing was seen."""
        return self.loss / self.seen if self.seen else float("nan")

    def metrics(self) -> dict[str, Any]:
        """What an epoch's line in the log says: percentages and the mean loss."""
        return {"top1": self.top1, "top5": self.top5, "loss": self.mean_loss}

    def to_dict(self) -> dict[str, Any]:
        """Percentages and the number of images."""
        return {"top1": self.top1, "top5": self.top5, "loss": self.mean_loss, "images": self.seen}


def count(logits: np.ndarray, labels: np.ndarray) -> Counts:
    """Count a batch.

    Args:
        logits: (batch, classes). A row with a NaN counts as wrong.
        labels: int (batch,), or (batch, k) where any of k labels is right (ReaL); -1 pads, only -1 is no image.
    Equal logits rank by class index, so that no image gains by a tie.
    """
    labels = labels[:, None] if labels.ndim == 1 else labels
    real = (labels >= 0).any(1)
    logits, labels = logits[real].astype(np.float64), labels[real]
    allowed = labels >= 0
    safe = np.where(allowed, labels, 0)
    own = np.take_along_axis(logits, safe, 1)[:, :, None]
    earlier = np.arange(logits.shape[1])[None, None, :] < safe[:, :, None]
    ahead = (logits[:, None, :] > own) | ((logits[:, None, :] == own) & earlier)
    rankable = allowed & ~np.isnan(logits).any(1, keepdims=True)
    rank = np.where(rankable, ahead.sum(2), np.inf).min(1)
    with np.errstate(invalid="ignore", over="ignore"):
        top = logits.max(1, keepdims=True)
        log_sum = top[:, 0] + np.log(np.exp(logits - top).sum(1))
        losses = np.where(allowed, log_sum[:, None] - own[:, :, 0], np.inf).min(1)
    return Counts(int(real.sum()), int((rank < 1).sum()), int((rank < 5).sum()), float(losses.sum()))
