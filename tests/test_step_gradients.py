"""Gradients of the compiled step: what they are, of how many batches, and which parameters follow them."""

import numpy as np
import pytest
import tiny
from mindspore import nn

from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.parameters import freeze
from mindcv_mnasnet.train.random_inputs import RandomLayout
from mindcv_mnasnet.train.step import Accumulate, TrainStep

pytestmark = pytest.mark.usefixtures("cpu")
IMAGES, LABELS = tiny.batch()
SEED = 1  # with it, every ReLU is alive for some image


def fix_norms(step: TrainStep) -> TrainStep:
    """Let batch norms use their averages in training too, so that a batch is the sum of its parts."""
    for _, cell in step.model.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d):
            cell.set_train(False)
    return step


@pytest.fixture(scope="module")
def compiled_with_fixed_norms():
    """Momentum alone, batch norms fixed; compiled once."""
    step = fix_norms(tiny.train_step(momentum=0.9, seed=SEED))
    return step, step.state()


@pytest.fixture
def fixed_norms(compiled_with_fixed_norms) -> TrainStep:
    """That step as it was made."""
    step, start = compiled_with_fixed_norms
    step.load(start, "the test")
    return step


def test_gradients_reach_every_parameter(fixed_norms):
    before = tiny.trained(fixed_norms)
    tiny.run(fixed_norms, IMAGES, LABELS)
    for name, value in tiny.trained(fixed_norms).items():
        assert np.abs(value - before[name]).max() > 1e-5, name


@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_the_slopes_of_the_loss(fixed_norms, seed):
    """Up the gradient of some parameters and down that of others, against differences of the loss."""
    start = fixed_norms.state()
    tiny.run(fixed_norms, IMAGES, LABELS)
    gradients = {name: (start[name] - value) / np.float32(0.1) for name, value in tiny.trained(fixed_norms).items()}
    signs = dict(zip(gradients, np.random.default_rng(seed).choice([-1, 1], len(gradients)), strict=True))
    squares = {name: float((gradient.astype(float) ** 2).sum()) for name, gradient in gradients.items()}
    distance, losses = 0.01 / sum(squares.values()) ** 0.5, []
    for side in (1, -1):
        moved = {name: start[name] + side * distance * signs[name] * gradients[name] for name in gradients}
        fixed_norms.load(start | {name: value.astype(np.float32) for name, value in moved.items()}, "the test")
        losses.append(tiny.run(fixed_norms, IMAGES, LABELS))
    slope = sum(signs[name] * square for name, square in squares.items())
    assert (losses[0] - losses[1]) / (2 * distance) == pytest.approx(slope, abs=0.02 * sum(squares.values()))


def test_accumulated_batches_equal_one_large_batch(fixed_norms):
    parts, whole = fix_norms(tiny.train_step(momentum=0.9, seed=SEED, gradient_accumulation_steps=3)), fixed_norms
    first = Accumulate(parts)
    for seed in (0, 1):
        images, labels = tiny.batch(seed, size=12)
        for rows in (0, 4):
            tiny.run(first, images[rows : rows + 4], labels[rows : rows + 4])
        loss = tiny.run(parts, images[8:], labels[8:])
        assert loss == pytest.approx(tiny.run(whole, images, labels), rel=1e-5)  # of all three, not of the last
        assert parts.steps_done() == whole.steps_done() == seed + 1
        for name, value in tiny.trained(whole).items():
            np.testing.assert_allclose(tiny.trained(parts)[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    assert parts.epoch_metrics(4) == pytest.approx(whole.epoch_metrics(12), rel=1e-5)


def test_frozen_parts_do_not_move_and_have_no_slots():
    model = create_model(tiny.network())
    recipe = tiny.recipe(momentum=0.9, weight_decay=0.1, ema=True)
    model.set_train()
    freeze(model, 1)
    step = TrainStep(recipe, model, RandomLayout(tiny.SIZE), np.full(4, 0.1, np.float32))
    before = step.state()
    tiny.run(step, IMAGES, LABELS)
    for name, value in step.state().items():
        if name.removeprefix("ema.").startswith(("stem", "blocks.0")):
            np.testing.assert_array_equal(value, before[name], err_msg=name)
        elif name.startswith(("head", "blocks.1", "blocks.2")):
            assert not np.array_equal(value, before[name]), name
    assert not [name for name in before if name.startswith(("optimizer.momentum.stem", "optimizer.momentum.blocks.0"))]


def test_a_tiny_set_is_learnt_by_heart():
    images, labels = tiny.batch(size=8)
    keys = {"opt": "rmsprop", "momentum": 0.9}
    step = tiny.train_step(rate=0.01, net=tiny.network(head=64), **keys)
    losses = [tiny.run(step, images, labels) for _ in range(60)]
    assert losses[0] > 1
    assert max(losses[-3:]) < 0.01
