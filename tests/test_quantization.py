"""Fake quantization: its numbers, its gradients, what it observes and when it begins, and where it is found again."""

from __future__ import annotations

import exported
import mindspore as ms
import numpy as np
import pytest
import tiny
from mindspore import nn, ops

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.export.folded import fold
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.fake_quant import RANGE_DECAY, QuantizeActivation, QuantizeWeight
from mindcv_mnasnet.model.parameters import load_parameters
from mindcv_mnasnet.model.quantization import PREFIXES, Quantization, QuantizedLayerFactory
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.train.step import TrainStep

pytestmark = pytest.mark.usefixtures("cpu")
POINTS = {
    *("input", "stem", "blocks.0.depthwise", "blocks.0.project"),
    *(f"blocks.1.{part}" for part in ("expand", "depthwise", "se", "se.reduce", "se.expand", "project")),
    *("blocks.1", "head", "pool", "logits"),
}


def quantized_step(delay: int = 0, freeze: int = 0, rate: float = 0.1, **keys) -> TrainStep:
    recipe = tiny.recipe(quantize=True, **keys)
    model = create_model(tiny.network(), quantization=Quantization(delay, freeze)).set_train()
    return TrainStep(recipe, model, tiny.layout(recipe, model), np.full(64, rate, np.float32))


class Gradients(nn.Cell):
    """Output and gradient of a point with a given range, for a loss of sum(output * factors)."""

    def __init__(self, low: float, high: float, on: bool = True):
        super().__init__(auto_prefix=False)
        fake_quant = QuantizedLayerFactory(Quantization(delay=0 if on else 2)).fake_quant(
            "x", positive=low == 0, fixed=(low, high)
        )
        assert fake_quant is not None
        self.fake_quant = fake_quant.set_train()
        self.fake_quant.batches.set_data(ms.Tensor(np.ones(1, np.float32)))
        self.gradient = ops.value_and_grad(self.forward, 0, None, has_aux=True)

    def forward(self, x, factors):
        y = self.fake_quant(x)
        return ops.sum(y * factors), y

    def construct(self, x, factors):
        (_, y), gradient = self.gradient(x, factors)
        return y, gradient


# --- numbers ------------------------------------------------------------------------------------------------------

RANGES = [(-1.0, 1.0), (-0.3, 2.7), (0.0, 6.0), (-4.0, 0.001), (-1e-3, 2e-3), (0.0, 255 / 256)]


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_activations_and_their_gradients_are_tensorflows(low, high):
    tf = pytest.importorskip("tensorflow")
    x = np.random.default_rng(0).uniform(2 * low - high, 2 * high, 4000).astype(np.float32)
    x = np.maximum(x, 0) if low == 0 else x
    factors = tiny.normal(4000, seed=1)
    with tf.GradientTape() as tape:
        tape.watch(given := tf.constant(x))
        expected = tf.quantization.fake_quant_with_min_max_vars(given, low, high)
        loss = tf.reduce_sum(expected * factors)
    y, gradient = (found.asnumpy() for found in Gradients(low, high)(ms.Tensor(x), ms.Tensor(factors)))
    step = (high - low) / 255
    close = np.abs(y - expected.numpy()) < 1e-3 * step
    assert close.mean() > 0.998  # the rest lies between two steps, where the last bit decides
    np.testing.assert_allclose(y, expected.numpy(), atol=1.001 * step)
    np.testing.assert_array_equal(gradient, tape.gradient(loss, given).numpy())


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_zero_is_exact_and_the_nearest_of_256_values_is_taken(low, high):
    x = np.linspace(low, high, 5001, dtype=np.float32)
    y, _ = (found.asnumpy() for found in Gradients(low, high)(ms.Tensor(x), ms.Tensor(x)))
    step = (high - low) / 255
    assert len(np.unique(y)) <= 256
    inside = (y.min() <= x) & (x <= y.max())
    assert np.abs(y - x)[inside].max() <= 0.501 * step
    assert inside.mean() > 0.99
    assert np.abs(y).min() == 0


def test_before_the_delay_activations_and_gradients_pass_untouched():
    x, factors = tiny.normal(500) * 5, tiny.normal(500, seed=1)
    y, gradient = (found.asnumpy() for found in Gradients(-1, 1, on=False)(ms.Tensor(x), ms.Tensor(factors)))
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(gradient, factors)


@pytest.mark.parametrize(("bits", "levels"), [(7, 64), (8, 127)])
def test_weights_are_quantized_as_their_folded_form_would_be(bits, levels):
    """int8, or its reduced range, of weight x factor per channel, factors of either sign, against the layer's own."""
    network = tiny.network()
    tensors = exported.tensors(network)
    rng = np.random.default_rng(0)
    gammas = {n: (v * rng.choice([-1, 1], v.shape)).astype(np.float32) for n, v in tensors.items() if "gamma" in n}
    quantize = QuantizeWeight(bits)
    weights = {n: quantize(ms.Tensor(v)).asnumpy() for n, v in tensors.items() if n.endswith(".weight")}
    plain, ours = fold(network, tensors | gammas), fold(network, tensors | gammas | weights)
    for before, after in zip(convolutions(plain), convolutions(ours), strict=True):
        scale = np.abs(before.weight).max((1, 2, 3), keepdims=True) / levels
        expected = np.round(before.weight / scale)
        got = after.weight / scale
        assert np.abs(got - np.round(got)).max() < 1e-3, after.name
        assert (np.round(got) == expected).mean() > 0.999, after.name
        assert np.abs(expected).max((1, 2, 3)).min() == levels


def convolutions(folded):
    yield folded.stem
    for block in folded.blocks:
        yield from (conv for conv in (block.expand, block.spatial, block.reduce, block.project) if conv is not None)
    yield folded.head


def test_a_weight_of_zeros_stays():
    assert not QuantizeWeight()(tiny.tensor(np.zeros((3, 2)))).asnumpy().any()


def test_halves_are_the_only_freedom_of_rounding():
    x = tiny.tensor(np.arange(0, 255, 0.25))
    y = QuantizeActivation(positive=True)(x, ms.Tensor(1.0), ms.Tensor(0.0), ms.Tensor(True)).asnumpy()
    np.testing.assert_array_equal(y, np.floor(x.asnumpy() + 0.5))


# --- the network --------------------------------------------------------------------------------------------------


def test_a_network_that_is_not_quantized_has_none_of_it():
    plain = create_model(tiny.network())
    kinds = {type(cell).__module__ for _, cell in plain.cells_and_names()}
    assert "mindcv_mnasnet.model.fake_quant" not in kinds
    quantized = create_model(tiny.network(), quantization=Quantization())
    names = [p.name for p in quantized.get_parameters()]
    assert [name for name in names if not name.startswith(PREFIXES)] == [p.name for p in plain.get_parameters()]
    assert {name for name in names if name.startswith(PREFIXES)} == {
        *(f"ranges.{point}" for point in POINTS),
        "quantization.batches",
    }
    assert {p.name for p in quantized.trainable_params()} == {p.name for p in plain.trainable_params()}
    assert {p.name: p.asnumpy().tobytes() for p in plain.get_parameters()}.items() <= {
        p.name: p.asnumpy().tobytes() for p in quantized.get_parameters()
    }.items()


def test_a_plain_network_takes_a_quantized_ones_weights_and_not_the_other_way_round():
    plain, quantized = create_model(tiny.network(), seed=1), create_model(tiny.network(), quantization=Quantization())
    load_parameters(plain.get_parameters(), tiny.values(quantized.get_parameters()), "it")
    np.testing.assert_array_equal(plain.stem.conv.weight.asnumpy(), quantized.stem.conv.weight.asnumpy())
    with pytest.raises(UserError, match="missing"):
        load_parameters(quantized.get_parameters(), tiny.values(plain.get_parameters()), "it")


def test_a_point_that_is_observed_sets_its_range_and_then_follows():
    images, labels = zip(*(tiny.batch(seed) for seed in range(3)), strict=True)
    step = quantized_step(delay=9, rate=0.0)
    pixels = [step.backward.preprocess(ms.Tensor(batch)).asnumpy() for batch in images]
    ends = [np.array([min(x.min(), 0), max(x.max(), 0)], np.float32) for x in pixels]
    expected = ends[0]
    for number, end in enumerate(ends):
        tiny.run(step, images[number], labels[number])
        expected = RANGE_DECAY * expected + (1 - RANGE_DECAY) * end
        np.testing.assert_allclose(step.state()["ranges.input"], expected, rtol=1e-5)
    values = step.state()
    assert values["quantization.batches"] == 3
    for point in POINTS:
        low, high = values[f"ranges.{point}"]
        assert low <= 0 < high, point
    np.testing.assert_array_equal(values["ranges.blocks.1.se.expand"], np.float32([0, 255 / 256]))


def test_what_is_put_into_parameters_reaches_the_compiled_step():
    """The trap of graphs that branch: ranges, statistics and counts set from outside have to count."""
    step = quantized_step(delay=3, freeze=3, rate=0.0)
    start = step.state()
    losses = [tiny.run(step, *tiny.batch(0)) for _ in range(2)]
    assert losses[0] == losses[1]
    counted = start | {"quantization.batches": np.full(1, 7, np.float32)}
    step.load(counted, "the test")
    assert tiny.run(step, *tiny.batch(0)) != losses[0]
    after = step.state()
    assert after["quantization.batches"] == 8
    for name in (name for name in after if "moving_" in name):
        np.testing.assert_array_equal(after[name], start[name], err_msg=name)


def test_batch_norms_train_as_plain_ones_until_they_are_frozen():
    plain, ours = tiny.train_step(0.0), quantized_step(delay=99, freeze=2, rate=0.0)
    for step in (plain, ours):  # coarse weights in both, so that only batch norms differ
        for cell in (cell for _, cell in step.model.cells_and_names() if isinstance(cell, nn.Conv2d | nn.Dense)):
            rng = np.random.default_rng(cell.weight.size)
            signs = rng.choice([-1.0, 1.0], cell.weight.shape) / cell.weight[0].size ** 0.5
            cell.weight.set_data(tiny.tensor(signs))
    statistics = [name for name in plain.state() if "moving_" in name]
    for number in range(2):
        expected = tiny.run(plain, *tiny.batch(number))
        assert tiny.run(ours, *tiny.batch(number)) == pytest.approx(expected, rel=1e-4)
    moved, kept = plain.state(), ours.state()
    for name in statistics:
        np.testing.assert_allclose(kept[name], moved[name], rtol=1e-3, atol=1e-5, err_msg=name)
    tiny.run(ours, *tiny.batch(2))
    for name in statistics:
        np.testing.assert_array_equal(ours.state()[name], kept[name], err_msg=name)


def test_training_after_both_delays_is_what_evaluation_computes():
    step = quantized_step(rate=0.0)
    for number in range(3):
        tiny.run(step, *tiny.batch(number))
    frozen = create_model(tiny.network(), quantization=Quantization())
    load_parameters(frozen.get_parameters(), tiny.values(step.model.get_parameters()), "the state")
    frozen.set_train(False)
    images, labels = tiny.batch(0)
    pixels = step.backward.preprocess(ms.Tensor(images))
    logits = frozen(pixels).asnumpy().astype(float)
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[range(len(labels)), labels])
    assert tiny.run(step, images, labels) == pytest.approx(expected, rel=0.02)
    levels = np.diff(np.unique(logits))
    low, high = tiny.values(frozen.get_parameters())["ranges.logits"]
    assert levels.min() > 0.99 * (high - low) / 255


@pytest.mark.slow
def test_averaged_weights_have_the_ranges_as_they_are():
    step = quantized_step(ema=True, ema_decay=0.999)
    for number in range(3):
        tiny.run(step, *tiny.batch(number))
    sets = step.weight_sets()
    ranges = [name for name in sets[""] if name.startswith(PREFIXES)]
    assert len(ranges) == len(POINTS) + 1
    for name in ranges:
        np.testing.assert_array_equal(sets["_ema"][name], sets[""][name])
    assert not np.array_equal(sets["_ema"]["stem.conv.weight"], sets[""]["stem.conv.weight"])


@pytest.mark.slow
def test_a_step_that_overflows_leaves_ranges_and_count():
    step = quantized_step(loss_scale_type="dynamic", loss_scale=1024)
    tiny.run(step, *tiny.batch(0))
    before = tiny.values(step.model.get_parameters())
    step.loss_scale.set_data(ms.Tensor(np.inf, ms.float32))
    tiny.run(step, *tiny.batch(1))
    after = tiny.values(step.model.get_parameters())
    assert [name for name in before if not np.array_equal(before[name], after[name])] == []


def test_a_tiny_set_is_learnt_by_heart_in_8_bits():
    images, labels = tiny.batch(size=8)
    recipe = tiny.recipe(quantize=True, opt="rmsprop", momentum=0.9)
    model = create_model(tiny.network(head=64), quantization=Quantization(10, 30)).set_train()
    step = TrainStep(recipe, model, tiny.layout(recipe, model), np.full(120, 0.005, np.float32))
    losses = [tiny.run(step, images, labels) for _ in range(120)]
    assert losses[0] > 1
    assert max(losses[-3:]) < 0.05


# --- recipes and runs ---------------------------------------------------------------------------------------------


def test_delays_are_epochs_in_a_recipe_and_batches_in_the_network():
    keys = {"quantize": True, "quant_delay_epochs": 0.5, "bn_freeze_epochs": 1.25}
    assert Quantization.of(load_recipe(overrides=keys), 20) == Quantization(delay=10, freeze=25)
    assert Quantization.of(load_recipe(), 20) is None


@pytest.mark.parametrize("other", [{"freeze": "backbone"}, {"amp_level": "O2"}, {"val_amp_level": "O3"}])
def test_a_recipe_refuses_what_goes_with_no_quantization(other):
    with pytest.raises(UserError, match=f"quantize.* and {next(iter(other))}.*contradict each other"):
        load_recipe(overrides={"quantize": True, **other})
