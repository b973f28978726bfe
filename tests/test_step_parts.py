"""The pieces of a step against NumPy: normalization, erasing, mixing, losses."""

import mindspore as ms
import numpy as np
import pytest
import tiny
from tiny import normal, tensor

from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.train.loss import Loss
from mindcv_mnasnet.train.preprocess import EraseAndMix, Preprocess
from mindcv_mnasnet.train.random_inputs import RandomLayout, draw_inputs
from mindcv_mnasnet.train.step import EvalStep

pytestmark = pytest.mark.usefixtures("cpu")
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def normalized(images: np.ndarray, mean=MEAN, std=STD) -> np.ndarray:
    return ((images.astype(float) - mean) / std).transpose(0, 3, 1, 2)


def mixed(x: np.ndarray, random_inputs: np.ndarray, layout: RandomLayout, erase_value: float = 0.0) -> np.ndarray:
    """What the random_inputs say, image by image and box by box."""
    x = x.copy()
    if layout.erases:
        for image, row in zip(x, random_inputs[:, layout.mix_end : layout.erase_end].astype(int), strict=True):
            image[:, row[0] : row[1], row[2] : row[3]] = erase_value
    if not layout.mixes:
        return x
    weight, y0, y1, x0, x1, _ = random_inputs[0, :6]
    y0, y1, x0, x1 = (int(v) for v in (y0, y1, x0, x1))
    out = weight * x + (1 - weight) * x[::-1]
    out[:, :, y0:y1, x0:x1] = x[::-1][:, :, y0:y1, x0:x1]
    return out


def cross_entropy(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> np.ndarray:
    logits = logits.astype(float)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = np.eye(logits.shape[1])[labels] * (1 - smoothing) + smoothing / logits.shape[1]
    return -(target * log_p).sum(1)


def binary_cross_entropy(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> np.ndarray:
    p = 1 / (1 + np.exp(-logits.astype(float)))
    target = np.eye(logits.shape[1])[labels] * (1 - smoothing) + smoothing / logits.shape[1]
    return -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean(1)


def test_preprocessing_normalizes_and_puts_channels_first():
    images = tiny.batch()[0]
    got = Preprocess(MEAN, STD)(ms.Tensor(images))
    assert got.dtype == ms.float32
    np.testing.assert_allclose(got.asnumpy(), normalized(images), atol=1e-5)


def test_gray_images_have_one_mean():
    images = tiny.batch(channels=1)[0]
    mean, std = tiny.recipe(in_channels=1).pixel_statistics()
    got = Preprocess(mean, std)(ms.Tensor(images)).asnumpy()
    np.testing.assert_allclose(got, normalized(images, sum(MEAN) / 3, sum(STD) / 3), atol=1e-5)


@pytest.mark.parametrize(
    "layout",
    [
        RandomLayout(16, mixup=1.0),
        RandomLayout(16, cutmix=1.0),
        RandomLayout(16, erase_prob=0.6),
        RandomLayout(16, mixup=0.4, cutmix=1.0, erase_prob=0.6, drop_columns=3),
    ],
    ids=["mixup", "cutmix", "erasing", "all"],
)
def test_mixing_and_erasing_do_what_the_draws_say(layout):
    cell, x = EraseAndMix(layout, 0.5), normal(6, 3, 16, 16)
    changed = 0
    for step in range(12):
        random_inputs = draw_inputs(layout, 6, 1, step, 0)
        got = cell(tensor(x), tensor(random_inputs)).asnumpy()
        np.testing.assert_allclose(got, mixed(x, random_inputs, layout, 0.5), atol=1e-5)
        changed += not np.array_equal(got, x)
    assert changed >= 10


def test_images_are_erased_before_they_are_mixed():
    """timm erases in its loader and mixes in its loop: 0.75 and 0.25 of 1 and 3, where the first is 0, give 0.75."""
    layout, images = RandomLayout(2, mixup=1.0, erase_prob=1.0), np.ones((2, 1, 2, 2)) * [[[[1.0]]], [[[3.0]]]]
    mixing = [0.75, 0, 0, 0, 0, 0.75]
    draws = np.array([[*mixing, 0, 1, 0, 1], [*mixing, 0, 0, 0, 0]])
    got = EraseAndMix(layout, 0.0)(tensor(images), tensor(draws)).asnumpy()
    np.testing.assert_allclose(got[:, 0], [[[0.75, 1.5], [1.5, 1.5]], [[2.25, 2.5], [2.5, 2.5]]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("kind", "rule"), [("CE", cross_entropy), ("BCE", binary_cross_entropy)])
def test_losses_are_those_of_numpy(kind, rule, smoothing):
    logits, labels = 3 * normal(9, 6), np.arange(9, dtype=np.int32) % 6
    got = Loss(kind, smoothing, 6)(tensor(logits), ms.Tensor(labels)).asnumpy()
    np.testing.assert_allclose(got, rule(logits, labels, smoothing), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["CE", "BCE"])
def test_losses_of_extreme_logits_are_finite_and_linear(kind):
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]])
    got = Loss(kind, 0.0, 2)(tensor(logits), ms.Tensor(np.array([0, 0], np.int32))).asnumpy()
    np.testing.assert_allclose(got, [0, 2e4 if kind == "CE" else 1e4], atol=1e-3)


def test_the_evaluation_step_is_the_model_on_normalized_images():
    images = tiny.batch()[0]
    model = create_model(tiny.network(dropout=0.5)).set_train()
    got = EvalStep(model, MEAN, STD)(ms.Tensor(images)).asnumpy()
    expected = create_model(tiny.network()).set_train(False)(tensor(normalized(images))).asnumpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_array_equal(got, EvalStep(model, MEAN, STD)(ms.Tensor(images)).asnumpy())


def test_a_mixed_batch_pays_for_both_labels_by_their_weights():
    step = tiny.train_step(rate=0.0, label_smoothing=0.1, mixup=0.8, cutmix=1.0, re_prob=0.5)
    forward = create_model(tiny.network()).set_train()
    images, labels = tiny.batch()
    for number in range(6):
        random_inputs = draw_inputs(step.backward.layout, len(images), 7, number, 0)
        got = tiny.run(step, images, labels, number)
        logits = forward(tensor(mixed(normalized(images), random_inputs, step.backward.layout))).asnumpy()
        own = random_inputs[0, 5]
        expected = own * cross_entropy(logits, labels, 0.1) + (1 - own) * cross_entropy(logits, labels[::-1], 0.1)
        assert got == pytest.approx(expected.mean(), rel=1e-4)
