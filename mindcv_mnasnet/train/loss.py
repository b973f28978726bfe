"""Training losses, one number per image."""

from __future__ import annotations

import mindspore as ms
from mindspore import nn, ops


class Loss(nn.Cell):
    """Per-image loss, float32 (batch,): softmax or per-class binary cross entropy, with label smoothing."""

    def __init__(self, kind: str, smoothing: float, num_classes: int):
        super().__init__()
        self.kind, self.smoothing, self.num_classes = kind, smoothing, num_classes

    def construct(self, logits, labels):
        logits = logits.astype(ms.float32)
        if self.kind == "CE":
            log_p = ops.log_softmax(logits, -1)
            hit = ops.gather_elements(log_p, 1, labels.reshape(-1, 1)).reshape(-1)
            return -(1 - self.smoothing) * hit - self.smoothing * ops.mean(log_p, 1)
        target = ops.one_hot(labels, self.num_classes, ms.Tensor(1.0, ms.float32), ms.Tensor(0.0, ms.float32))
        target = target * (1 - self.smoothing) + self.smoothing / self.num_classes
        return ops.mean(ops.relu(logits) - logits * target + ops.log1p(ops.exp(-ops.abs(logits))), 1)
