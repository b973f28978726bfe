"""The compiled step: gradients, clipping, loss scale, averages, accumulation, and what a restart needs."""

import mindspore as ms
import numpy as np
import pytest
import tiny
from mindspore import nn

from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.parameters import freeze
from mindcv_mnasnet.train.metrics import count
from mindcv_mnasnet.train.random_inputs import RandomLayout
from mindcv_mnasnet.train.step import SCALE_WINDOW, Accumulate, TrainStep

pytestmark = pytest.mark.usefixtures("cpu")
IMAGES, LABELS = tiny.batch()
SEED = 1  # with it, every ReLU is alive for some image
HUGE = 3e38  # nearly float32's largest: a weight that makes its layer overflow
RICH = {
    "momentum": 0.9,
    "ema": True,
    "ema_decay": 0.15,
    "ema_ramp": True,
    "loss_scale_type": "dynamic",
    "loss_scale": 1024,
}


@pytest.fixture(scope="module")
def compiled():
    """Momentum, averages with a ramp and a dynamic loss scale, at rate 0.1; compiled once."""
    step = tiny.train_step(**RICH)
    return step, step.state()


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
    load(step, start)
    return step


@pytest.fixture
def step(compiled) -> TrainStep:
    """The compiled step as it was made."""
    step, start = compiled
    load(step, start)
    set_rates(step, 0.1)
    return step


def load(step: TrainStep, state: dict[str, np.ndarray]) -> None:
    step.load(state, "the test")


def set_rates(step: TrainStep, *rates: float) -> None:
    values = np.full(64, rates[-1], np.float32)
    values[: len(rates)] = rates
    step.rates.set_data(ms.Tensor(values))


def trained(step: TrainStep) -> dict[str, np.ndarray]:
    return tiny.values(step.backward.weights)


def state_but(step: TrainStep, *left_out: str) -> dict[str, np.ndarray]:
    return {name: value for name, value in step.state().items() if name not in left_out}


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def norm(arrays) -> float:
    return float(np.sqrt(sum((array.astype(float) ** 2).sum() for array in arrays)))


# --- gradients ----------------------------------------------------------------------------------------------------


def test_gradients_reach_every_parameter(fixed_norms):
    before = trained(fixed_norms)
    tiny.run(fixed_norms, IMAGES, LABELS)
    for name, value in trained(fixed_norms).items():
        assert np.abs(value - before[name]).max() > 1e-5, name


@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_the_slopes_of_the_loss(fixed_norms, seed):
    """Up the gradient of some parameters and down that of others, against differences of the loss."""
    start = fixed_norms.state()
    tiny.run(fixed_norms, IMAGES, LABELS)
    gradients = {name: (start[name] - value) / np.float32(0.1) for name, value in trained(fixed_norms).items()}
    signs = dict(zip(gradients, np.random.default_rng(seed).choice([-1, 1], len(gradients)), strict=True))
    squares = {name: norm([gradient]) ** 2 for name, gradient in gradients.items()}
    distance, losses = 0.01 / sum(squares.values()) ** 0.5, []
    for side in (1, -1):
        moved = {name: start[name] + side * distance * signs[name] * gradients[name] for name in gradients}
        load(fixed_norms, start | {name: value.astype(np.float32) for name, value in moved.items()})
        losses.append(tiny.run(fixed_norms, IMAGES, LABELS))
    slope = sum(signs[name] * square for name, square in squares.items())
    assert (losses[0] - losses[1]) / (2 * distance) == pytest.approx(slope, abs=0.02 * sum(squares.values()))


def test_each_step_takes_its_own_rate(step):
    set_rates(step, 0.0, 0.0, 0.1, 0.0)
    for number in range(3):
        before = trained(step)
        tiny.run(step, IMAGES, LABELS)
        assert step.steps_done() == number + 1
        moved = any(not np.array_equal(value, before[name]) for name, value in trained(step).items())
        assert moved == (number == 2)


def test_a_tiny_set_is_learnt_by_heart():
    images, labels = tiny.batch(size=8)
    keys = {"opt": "rmsprop", "momentum": 0.9}
    step = tiny.train_step(rate=0.01, net=tiny.network(head=64), **keys)
    losses = [tiny.run(step, images, labels) for _ in range(60)]
    assert losses[0] > 1
    assert max(losses[-3:]) < 0.01


# --- counting -----------------------------------------------------------------------------------------------------


def test_an_epochs_metrics_are_means_over_its_batches(step):
    forward = create_model(tiny.network()).set_train()
    set_rates(step, 0.0)
    expected, losses = count(np.zeros((0, tiny.CLASSES)), np.zeros(0, np.int32)), []
    for seed in range(3):
        images, labels = tiny.batch(seed)
        losses.append(tiny.run(step, images, labels))
        expected += count(forward(step.backward.preprocess(ms.Tensor(images))).asnumpy(), labels)
    assert step.epoch_metrics(tiny.BATCH) == pytest.approx(
        {"train_loss": np.mean(losses), "train_top1": expected.top1, "train_top5": expected.top5}
    )
    assert 0 < expected.top5 < 100
    step.start_epoch()
    assert step.epoch_metrics(tiny.BATCH) == {"train_loss": 0, "train_top1": 0, "train_top5": 0}


def test_a_network_that_says_nothing_or_nan_hits_nothing(step):
    for value in (0.0, np.nan):
        step.model.classifier.weight.set_data(tiny.tensor(np.full((tiny.CLASSES, 16), value)))
        step.start_epoch()
        tiny.run(step, IMAGES, np.full(4, 5, np.int32))
        assert step.epoch_metrics(tiny.BATCH)["train_top5"] == 0


# --- clipping -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clipping() -> TrainStep:
    """Norms clipped to 0.5, and overflows dropped at a fixed scale."""
    return tiny.train_step(1.0, clip_grad=True, clip_value=0.5, loss_scale=256.0, drop_overflow_update=True, ema=True)


def test_clipping_limits_the_joint_norm_and_keeps_the_direction(clipping):
    """With a silent head only the classifier's bias has a gradient, mean(1/6 - label): 0.913 long for equal labels,
    0.289 for four different ones."""
    classifier = clipping.model.classifier
    clipping.model.head.bn.gamma.set_data(tiny.tensor(np.zeros(16)))
    classifier.weight.set_data(tiny.tensor(np.zeros((6, 16))))
    for labels, length in (([2] * 4, 0.5), ([0, 1, 2, 3], 12**-0.5)):
        classifier.bias.set_data(tiny.tensor(np.zeros(6)))
        tiny.run(clipping, IMAGES, np.array(labels, np.int32))
        gradient = 1 / 6 - np.bincount(labels, minlength=6) / 4
        np.testing.assert_allclose(-classifier.bias.asnumpy(), gradient * length / np.linalg.norm(gradient), rtol=1e-4)


# --- loss scale ---------------------------------------------------------------------------------------------------


def test_the_loss_scale_changes_nothing(step):
    losses, weights = [], []
    start = step.state()
    for scale in (1.0, 2.0**16):
        load(step, start | {"state.loss_scale": np.array(scale, np.float32)})
        losses.append(tiny.run(step, IMAGES, LABELS))
        weights.append(trained(step))
    assert losses[0] == losses[1]
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("where", ["stem.conv.weight", "classifier.weight"])
def test_an_overflow_changes_nothing_but_halves_the_scale(step, where):
    tiny.run(step, IMAGES, LABELS)
    weight = next(p for p in step.backward.weights if p.name == where)
    sound = weight.asnumpy().copy()
    weight.set_data(tiny.tensor(np.full(weight.shape, HUGE)))
    before = state_but(step, "state.loss_scale", "state.good_steps", "state.sums")
    tiny.run(step, IMAGES, LABELS)
    assert_same(state_but(step, "state.loss_scale", "state.good_steps", "state.sums"), before)
    assert step.steps_done() == 1
    assert float(step.loss_scale.asnumpy()) == 512
    assert int(step.good_steps.asnumpy()) == 0
    weight.set_data(tiny.tensor(sound))
    assert np.isfinite(tiny.run(step, IMAGES, LABELS))
    assert step.steps_done() == 2
    assert int(step.good_steps.asnumpy()) == 1


def test_the_scale_grows_after_many_good_steps_and_never_below_one(step):
    step.good_steps.set_data(ms.Tensor(SCALE_WINDOW - 2, ms.int32))
    scales = []
    for _ in range(3):
        tiny.run(step, IMAGES, LABELS)
        scales.append((float(step.loss_scale.asnumpy()), int(step.good_steps.asnumpy())))
    assert scales == [(1024, SCALE_WINDOW - 1), (2048, 0), (2048, 1)]
    step.model.classifier.weight.set_data(tiny.tensor(np.full((6, 16), HUGE)))
    for _ in range(13):
        tiny.run(step, IMAGES, LABELS)
    assert float(step.loss_scale.asnumpy()) == 1


def test_the_scale_stops_growing_before_its_inverse_vanishes(step):
    set_rates(step, 0.0)
    step.loss_scale.set_data(tiny.tensor(np.array(1.0)))
    for _ in range(130):
        step.good_steps.set_data(ms.Tensor(SCALE_WINDOW - 1, ms.int32))
        step.set_steps(0)
        tiny.run(step, IMAGES, LABELS)
    assert 2**20 <= float(step.loss_scale.asnumpy()) < 2**100
    set_rates(step, 0.1)
    before = trained(step)
    tiny.run(step, IMAGES, LABELS)
    assert any(not np.array_equal(value, before[name]) for name, value in trained(step).items())


def test_a_fixed_scale_stays_and_drops_the_step_on_request(clipping):
    clipping.model.classifier.weight.set_data(tiny.tensor(np.full((6, 16), HUGE)))
    clipping.model.head.bn.gamma.set_data(tiny.tensor(np.ones(16)))
    before = state_but(clipping, "state.sums")
    assert not np.isfinite(tiny.run(clipping, IMAGES, LABELS))
    assert_same(state_but(clipping, "state.sums"), before)


# --- averages -----------------------------------------------------------------------------------------------------


def test_averages_follow_weights_and_batch_norm_statistics_with_the_ramp(step):
    """Decay min(0.15, (1 + n) / (10 + n)) for n = 0, 1, 2, ...: 1/10, 2/11 and so on, here cut off at 0.15."""
    expected = tiny.values(step.averaged)
    for decay in (0.1, 0.15, 0.15):
        tiny.run(step, IMAGES, LABELS)
        new = tiny.values(step.averaged)
        expected = {name: decay * old + (1 - decay) * new[name] for name, old in expected.items()}
    sets = step.weight_sets()
    assert sets[""].keys() == sets["_ema"].keys() == expected.keys()
    assert any(name.endswith("moving_variance") for name in expected)
    for name, value in expected.items():
        np.testing.assert_allclose(sets["_ema"][name], value, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(sets[""][name], new[name])
    assert not np.allclose(sets["_ema"]["stem.conv.weight"], sets[""]["stem.conv.weight"], rtol=1e-5, atol=1e-6)


# --- accumulation -------------------------------------------------------------------------------------------------


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
        for name, value in trained(whole).items():
            np.testing.assert_allclose(trained(parts)[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    assert parts.epoch_metrics(4) == pytest.approx(whole.epoch_metrics(12), rel=1e-5)


# --- freezing, repeating, restarting ------------------------------------------------------------------------------


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


ALL = {**RICH, "opt": "adamw", "mixup": 0.2, "cutmix": 1.0, "re_prob": 0.5, "clip_grad": True, "loss": "BCE"}


def test_a_restart_from_the_state_repeats_every_bit():
    """With all that random_inputs random numbers, momentum, averages and a moving loss scale: 3 + 3 steps equal 6."""
    step = tiny.train_step(0.01, tiny.network(dropout=0.3, drop_connect=0.3), **ALL)
    first = [tiny.run(step, *tiny.batch(number), number) for number in range(3)]
    saved = step.state()
    runs = []
    for _ in range(2):
        later = [tiny.run(step, *tiny.batch(number), number) for number in range(3, 6)]
        runs.append((later, step.state()))
        assert len({*first, *later}) == 6
        load(step, saved)
    assert runs[0][0] == runs[1][0]
    assert_same(runs[1][1], runs[0][1])


def test_the_state_names_are_unique_and_cover_all_that_changes(step):
    everything = [p.name for p in step.get_parameters() if p.name != "rates"]
    assert len(set(everything)) == len(everything)
    assert set(everything) == step.state().keys()
