"""What a detector is trained by: a loss of classes and one of boxes, in float32."""

from __future__ import annotations

import mindspore as ms
from mindspore import nn, ops

from mindcv_mnasnet.recipe.detection_keys import DetectionKeys

_NEVER = -1.0  # below every cross entropy: an anchor that is not up for choice


class DetectionLoss(nn.Cell):
    """(total, class loss, box loss), float32 scalars, each a sum divided by the batch's positives (at least 1).

    Call with logits (N, anchors, slots), codes (N, anchors, 4) and targets (N, anchors, 5) of ``matching.Matcher``.
    The total is class loss + ``box_loss_weight`` * box loss, the latter a smooth L1 over positives alone.
    """

    def __init__(self, keys: DetectionKeys, slots: int):
        super().__init__()
        self.box_loss_weight = keys.box_loss_weight
        self.classes: nn.Cell = Focal(keys, slots) if keys.class_loss == "focal" else Mined(keys.neg_ratio)

    def construct(self, logits, codes, targets):
        labels = targets[:, :, 4].astype(ms.int32)
        positive = (labels > 0).astype(ms.float32)
        count = ops.maximum(ops.sum(positive), ms.Tensor(1.0, ms.float32))
        class_loss = self.classes(logits.astype(ms.float32), labels, positive) / count
        difference = ops.abs(codes.astype(ms.float32) - targets[:, :, :4])
        within = (difference < 1).astype(ms.float32)
        smooth = within * 0.5 * difference * difference + (1 - within) * (difference - 0.5)
        box_loss = ops.sum(ops.sum(smooth, 2) * positive) / count
        return class_loss + self.box_loss_weight * box_loss, class_loss, box_loss


class Mined(nn.Cell):
    """Softmax cross entropy, summed over positives and, per image, the hardest ``neg_ratio`` negatives for each.

    No more than so many where losses are equal, as they are all over a flat background.
    """

    def __init__(self, neg_ratio: int):
        super().__init__()
        self.neg_ratio = neg_ratio

    def construct(self, logits, labels, positive):
        anchors = labels.shape[1]
        log_p = ops.log_softmax(logits, -1)
        losses = -ops.gather_elements(log_p, 2, labels.expand_dims(2)).reshape(labels.shape)
        hardest = ops.topk(losses * (1 - positive) + _NEVER * positive, anchors, -1)[0]
        wanted = self.neg_ratio * ops.sum(positive, 1, keepdim=True)
        chosen = ops.logical_and(ops.arange(anchors).astype(ms.float32) < wanted, hardest >= 0).astype(ms.float32)
        return ops.sum(losses * positive) + ops.sum(hardest * chosen)


class Focal(nn.Cell):
    """Sigmoid cross entropy of every slot, background's too, less for what is right already, summed.

    Lin et al. 2017, https://arxiv.org/abs/1708.02002, with TensorFlow's and MindCV's background slot.
    """

    def __init__(self, keys: DetectionKeys, slots: int):
        super().__init__()
        self.alpha, self.gamma, self.slots = keys.alpha, keys.gamma, slots

    def construct(self, logits, labels, positive):
        target = ops.one_hot(labels, self.slots, ms.Tensor(1.0, ms.float32), ms.Tensor(0.0, ms.float32))
        entropy = ops.relu(logits) - logits * target + ops.log1p(ops.exp(-ops.abs(logits)))
        p = ops.sigmoid(logits)
        wrong = target * (1 - p) + (1 - target) * p
        weight = target * self.alpha + (1 - target) * (1 - self.alpha)
        return ops.sum(weight * ops.pow(wrong, self.gamma) * entropy)
