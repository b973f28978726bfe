"""The compiled step: rates, metrics, clipping, loss scale, averages, and what a restart needs."""

import mindspore as ms
import numpy as np
import pytest
import tiny

from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.train.metrics import count
from mindcv_mnasnet.train.step import SCALE_WINDOW, TrainStep

pytestmark = pytest.mark.usefixtures("cpu")
IMAGES, LABELS = tiny.batch()
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


def state_but(step: TrainStep, *left_out: str) -> dict[str, np.ndarray]:
    return {name: value for name, value in step.state().items() if name not in left_out}


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


# --- rates ------------------------------------------------------------------------------------------------------


def test_each_step_takes_its_own_rate(step):
    set_rates(step, 0.0, 0.0, 0.1, 0.0)
    for number in range(3):
        before = tiny.trained(step)
        tiny.run(step, IMAGES, LABELS)
        assert step.steps_done() == number + 1
        moved = any(not np.array_equal(value, before[name]) for name, value in tiny.trained(step).items())
        assert moved == (number == 2)


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
        weights.append(tiny.trained(step))
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
    before = tiny.trained(step)
    tiny.run(step, IMAGES, LABELS)
    assert any(not np.array_equal(value, before[name]) for name, value in tiny.trained(step).items())


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


# --- repeating, restarting ------------------------------------------------------------------------------------------


ALL = {**RICH, "opt": "adamw", "mixup": 0.2, "cutmix": 1.0, "re_prob": 0.5, "clip_grad": True, "loss": "BCE"}


def test_a_restart_from_the_state_repeats_every_bit():
    """With all that takes random numbers, momentum, averages and a moving loss scale: 3 + 3 steps equal 6."""
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
