"""What a step minimizes and sums up, for each task: the only part of a compiled step that knows labels."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mindcv_mnasnet.detection.losses import DetectionLoss
from mindcv_mnasnet.model.mnasnet import MnasNet
from mindcv_mnasnet.recipe.detection_keys import DetectionKeys
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.recipe.training_keys import OptimizerKeys
from mindcv_mnasnet.train.loss import Loss
from mindcv_mnasnet.train.random_inputs import RandomLayout


class Objective(nn.Cell):
    """``objective(answer, labels, random_inputs)`` -> (loss, details), and ``counts(loss, details, labels)``.

    ``counts`` gives float32 (columns,): ``means`` over the batch, the loss first, then ``hits`` in the batch, then 1
    for the batch itself.
    """

    means: tuple[str, ...] = ("loss",)
    hits: tuple[str, ...] = ()

    @property
    def columns(self) -> int:
        """Length of what ``counts`` gives."""
        return len(self.means) + len(self.hits) + 1

    def epoch_metrics(self, sums: np.ndarray, device_batch: int) -> dict[str, float]:
        """Means of batches and shares of images (percent) by name, from summed counts of batches of that size."""
        numbers = sums.astype(float).tolist()
        batches = max(numbers[-1], 1)
        share = 100 / (batches * device_batch)
        means = zip(self.means, numbers, strict=False)
        hits = zip(self.hits, numbers[len(self.means) :], strict=False)
        return {f"train_{k}": v / batches for k, v in means} | {f"train_{k}": v * share for k, v in hits}

    def factors(self, batches: float, images: float) -> np.ndarray:
        """What sums are multiplied by for ``batches`` times as many batches of ``images`` times as many images."""
        return np.array([batches] * len(self.means) + [batches * images] * len(self.hits) + [batches], np.float32)


class ClassesObjective(Objective):
    """Of logits (batch, classes) and labels int32 (batch,): the mean loss, and hits where ties and NaN miss."""

    hits = ("top1", "top5")

    def __init__(self, keys: OptimizerKeys, layout: RandomLayout, num_classes: int):
        super().__init__()
        self.loss = Loss(keys.loss, keys.label_smoothing, num_classes)
        self.mixes = layout.mixes

    def construct(self, logits, labels, random_inputs):
        losses = self.loss(logits, labels)
        if self.mixes:
            weight = random_inputs[0, 5]
            losses = weight * losses + (1 - weight) * self.loss(logits, ops.flip(labels, (0,)))
        return ops.mean(losses), logits

    def counts(self, loss, logits, labels):
        own = ops.gather_elements(logits, 1, labels.reshape(-1, 1))
        rank = ops.sum(ops.logical_not(logits < own).astype(ms.float32), 1) - 1
        top1, top5 = ops.sum((rank < 1).astype(ms.float32)), ops.sum((rank < 5).astype(ms.float32))
        return ops.stack([loss, top1, top5, ops.ones_like(loss)])


class BoxesObjective(Objective):
    """Of a detector's (logits, codes) and targets float32 (batch, anchors, 5); see ``detection.losses``."""

    means = ("loss", "class_loss", "box_loss")

    def __init__(self, keys: DetectionKeys, slots: int):
        super().__init__()
        self.loss = DetectionLoss(keys, slots)

    def construct(self, answer, targets, random_inputs):
        logits, codes = answer
        loss, of_classes, of_boxes = self.loss(logits, codes, targets)
        return loss, ops.stack([of_classes, of_boxes])

    def counts(self, loss, details, targets):
        return ops.stack([loss, details[0], details[1], ops.ones_like(loss)])


def objective_of(recipe: Recipe, model: MnasNet, layout: RandomLayout) -> Objective:
    """The objective of a recipe's task."""
    if recipe.task == "detect":
        return BoxesObjective(recipe, model.network.num_classes + 1)
    return ClassesObjective(recipe, layout, model.network.num_classes)
