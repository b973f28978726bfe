"""The loss of a detector against torchvision's numbers, and against its definition."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from golden_numbers import golden
from mindspore import ops

from mindcv_mnasnet.detection.losses import DetectionLoss
from mindcv_mnasnet.recipe.detection_keys import DetectionKeys

SLOTS = 5


def targets() -> np.ndarray:
    """The golden batch as the loss takes it, (2, 3234, 5)."""
    matched = golden()["matched"]
    labels = np.stack([np.where(matched[i] >= 0, golden()[f"labels{i}"][matched[i]], 0) for i in (0, 1)])
    codes = np.where(matched[..., None] >= 0, golden()["encoded"], 0)
    return np.concatenate([codes, labels[..., None]], -1).astype(np.float32)


def run(keys: DetectionKeys, logits: np.ndarray, codes: np.ndarray, wanted: np.ndarray) -> tuple[list, list]:
    """((total, class loss, box loss), gradients by logits and codes of the total)."""
    loss = DetectionLoss(keys, logits.shape[-1])

    def forward(logits, codes, wanted):
        total, of_classes, of_boxes = loss(logits, codes, wanted)
        return total, ops.stack([total, of_classes, of_boxes])

    graph = ms.jit(ops.value_and_grad(forward, (0, 1), None, has_aux=True))
    (_, values), gradients = graph(*(ms.Tensor(one.astype(np.float32)) for one in (logits, codes, wanted)))
    return values.asnumpy().tolist(), [one.asnumpy() for one in gradients]


def test_mined_softmax_is_torchvisions(cpu):
    values, gradients = run(DetectionKeys(), golden()["cls_logits"], golden()["bbox_regression"], targets())
    of_classes, of_boxes = golden()["loss_cls"].item(), golden()["loss_box"].item()
    assert values == pytest.approx([of_classes + of_boxes, of_classes, of_boxes], rel=1e-5)
    assert np.abs(gradients[0]).sum() == pytest.approx(golden()["grad_cls_sum"].item(), rel=1e-4)
    assert np.abs(gradients[1]).sum() == pytest.approx(golden()["grad_reg_sum"].item(), rel=1e-4)


def test_focal_is_its_definition(cpu):
    rng = np.random.default_rng(0)
    logits, codes = rng.normal(size=(1, 6, 3)), rng.normal(size=(1, 6, 4))
    wanted = np.zeros((1, 6, 5))
    wanted[0, 1, 4], wanted[0, 4, 4] = 1, 2
    values, _ = run(DetectionKeys(class_loss="focal", box_loss_weight=0.25), logits, codes, wanted)
    target = np.eye(3)[wanted[0, :, 4].astype(int)]
    p = 1 / (1 + np.exp(-logits[0]))
    right = np.where(target > 0, p, 1 - p)
    of_classes = (np.where(target > 0, 0.75, 0.25) * (1 - right) ** 2 * -np.log(right)).sum() / 2
    far = np.abs(codes[0, [1, 4]])
    of_boxes = np.where(far < 1, far**2 / 2, far - 0.5).sum() / 2
    assert values == pytest.approx([of_classes + of_boxes / 4, of_classes, of_boxes], rel=1e-5)


def test_a_batch_without_boxes_has_no_loss_to_mine(cpu):
    logits, codes = np.ones((2, 7, SLOTS)), np.ones((2, 7, 4))
    values, gradients = run(DetectionKeys(), logits, codes, np.zeros((2, 7, 5)))
    assert values == [0, 0, 0]
    assert not any(one.any() for one in gradients)


def test_equal_negatives_are_mined_as_many_as_asked(cpu):
    """torchvision's SSD.compute_loss takes 3 of 99 equal ones; a flat background has them by the hundred."""
    wanted = np.zeros((2, 100, 5))
    wanted[0, 7, 4], wanted[1, 3:5, 4] = 1, 2
    values, gradients = run(DetectionKeys(neg_ratio=3), np.zeros((2, 100, 4)), np.zeros((2, 100, 4)), wanted)
    assert values[1] == pytest.approx((4 + 8) * np.log(4) / 3, rel=1e-5)
    assert gradients[0].any(2).sum(1).tolist() == [4, 8]


def test_no_more_negatives_are_mined_than_there_are(cpu):
    logits = np.zeros((1, 4, 2))
    wanted = np.zeros((1, 4, 5))
    wanted[0, :2, 4] = 1
    values, _ = run(DetectionKeys(neg_ratio=3), logits, np.zeros((1, 4, 4)), wanted)
    assert values[1] == pytest.approx(4 * np.log(2) / 2, rel=1e-5)
