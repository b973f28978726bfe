"""The CPU operators compute what MindSpore's own do, are used where they may be, and are missed by nobody."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mindspore import nn, ops

from mindcv_mnasnet.kernels.cells import Depthwise, Gating, NormAct
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.parameters import load_parameters
from mindcv_mnasnet.model.quantization import PREFIXES, Quantization
from mindcv_mnasnet.train.step import TrainStep

pytestmark = pytest.mark.usefixtures("cpu")
BLOCKS = "r1_k3_s11_e1_o8_noskip r2_k5_s22_e3_o8_se0.25 r2_k7_s22_e3_o16 r1_k9_s11_e3_o16"


def close(ours: np.ndarray, theirs: np.ndarray, what: str) -> None:
    scale = max(float(np.abs(theirs).max()), 1.0)  # sums of numbers about 1 may cancel
    np.testing.assert_allclose(ours / scale, theirs / scale, rtol=0, atol=3e-5, err_msg=what)


def compare(cell: nn.Cell, stock, x: np.ndarray, *more: np.ndarray) -> None:
    """Outputs, all gradients, and what happens to moving averages."""
    parameters = list(cell.get_parameters())
    weights = [parameter for parameter in parameters if parameter.requires_grad]
    inputs = [tiny.tensor(array) for array in (x, *more)]
    before = tiny.values(parameters)
    results = []
    for function in (stock, cell):
        load_parameters(parameters, before, "the test")
        y = function(*inputs)
        load_parameters(parameters, before, "the test")
        factors = tiny.tensor(tiny.normal(*y.shape, seed=3))

        def total(*given, function=function, factors=factors):
            return ops.sum(function(*given) * factors)

        wanted = ms.grad(total, tuple(range(len(inputs))), weights or None)(*inputs)
        of_inputs, of_weights = wanted if weights else (wanted, ())
        of_inputs = of_inputs if isinstance(of_inputs, tuple) else (of_inputs,)
        found = {f"gradient of input {i}": value.asnumpy() for i, value in enumerate(of_inputs)}
        found |= {f"gradient of {p.name}": g.asnumpy() for p, g in zip(weights, of_weights, strict=True)}
        results.append({"output": y.asnumpy()} | found | tiny.values(parameters))
    for name, value in results[0].items():
        close(results[1][name], value, name)


def norm(width: int, seed: int, training: bool, name: str = "") -> nn.BatchNorm2d:
    """A batch norm in the middle of a training."""
    cell = nn.BatchNorm2d(width, eps=1e-3, momentum=0.9)
    for index, parameter in enumerate(cell.get_parameters()):
        value = 1 + 0.3 * tiny.normal(width, seed=seed + index)
        parameter.set_data(tiny.tensor(np.abs(value) if "variance" in parameter.name else value))
        parameter.name = f"{name}.{parameter.name}"
    return cell.set_train(training)


class Kept(nn.Cell):
    """A ``NormAct`` and what it keeps."""

    def __init__(self, cell):
        super().__init__(auto_prefix=False)
        self.cell = cell

    def construct(self, x, keep):
        return self.cell(x, None, keep)


def decided(values: ms.Tensor) -> bool:
    """Whether no value is so near zero that rounding decides what its ReLU does."""
    return bool((np.abs(values.asnumpy()) > 1e-5).all())


sizes = st.integers(1, 19)
property_test = settings(
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the mode is the same for all shapes
)


@property_test
@given(
    kernel=st.sampled_from([3, 5, 7]), stride=st.sampled_from([1, 2]), same=st.booleans(), has_before=st.booleans(),
    training=st.booleans(), batch=st.integers(1, 3), width=st.integers(1, 5), height=sizes, length=sizes,
    seed=st.integers(0, 999),
)  # fmt: skip
def test_depthwise_and_its_norms_equal_the_stock_operators(
    library, pynative, kernel, stride, same, has_before, training, batch, width, height, length, seed
):
    assume(not training or batch * -(-height // stride) * -(-length // stride) > 1)  # MindSpore's variance is NaN
    padding = {"pad_mode": "same"} if same else {"pad_mode": "pad", "padding": kernel // 2}
    conv = nn.Conv2d(width, width, kernel, stride, group=width, weight_init="zeros", **padding)
    conv.weight.set_data(tiny.tensor(tiny.normal(*conv.weight.shape, seed=seed)))
    before = norm(width, seed, training, "before") if has_before else None
    after = norm(width, seed + 10, training, "after")
    x = 2 * tiny.normal(batch, width, height, length, seed=seed + 20) + 1

    def stock(x):
        return ops.relu(after(conv(x if before is None else ops.relu(before(x)))))

    cell = Depthwise(library, conv, before, after)
    kept = tiny.values(cell.get_parameters())
    inner = tiny.tensor(x) if before is None else before(tiny.tensor(x))
    assume(before is None or decided(inner))
    assume(decided(after(conv(inner if before is None else ops.relu(inner)))))
    load_parameters(cell.get_parameters(), kept, "the test")
    compare(cell, stock, x)


@property_test
@given(
    form=st.sampled_from(["plain", "relu", "add", "keep"]), training=st.booleans(), batch=st.integers(1, 3),
    width=st.integers(1, 5), height=sizes, length=sizes, seed=st.integers(0, 999),
)  # fmt: skip
def test_a_norm_with_what_follows_equals_the_stock_operators(
    library, pynative, form, training, batch, width, height, length, seed
):
    assume(not training or batch * height * length > 1)
    cell = norm(width, seed, training)
    x = 2 * tiny.normal(batch, width, height, length, seed=seed + 20) + 1
    ours = NormAct(library, cell, relu=form == "relu", add=form == "add")
    if form == "add":
        compare(ours, lambda x, summand: cell(x) + summand, x, tiny.normal(*x.shape, seed=seed + 30))
        return
    if form == "keep":
        keep = tiny.normal(width, seed=seed + 40).round()
        compare(Kept(ours), lambda x, keep: cell(x) * keep.reshape(1, -1, 1, 1), x, keep)
        return
    kept = tiny.values(cell.get_parameters())
    assume(form == "plain" or decided(cell(tiny.tensor(x))))
    load_parameters(cell.get_parameters(), kept, "the test")
    compare(ours, lambda x: ops.relu(cell(x)) if form == "relu" else cell(x), x)


@property_test
@given(batch=st.integers(1, 3), width=st.integers(1, 5), height=sizes, length=sizes, seed=st.integers(0, 999))
def test_the_ends_of_squeeze_and_excitation_equal_the_stock_operators(
    library, pynative, batch, width, height, length, seed
):
    gating = Gating(library)
    x, gates = tiny.normal(batch, width, height, length, seed=seed), tiny.normal(batch, width, 1, 1, seed=seed + 1)

    class Both(nn.Cell):
        def construct(self, x, gates):
            return gating.scale(x, gates) + gating.mean(x)

    compare(Both(), lambda x, gates: x * gates + ops.mean(x, (2, 3), True), x, gates)


# --- in the network -----------------------------------------------------------------------------------------------


def operators_in(model: nn.Cell) -> int:
    return sum(type(cell).__module__.startswith("mindcv_mnasnet.kernels") for _, cell in model.cells_and_names())


def pair(**overrides) -> list:
    """The same network with and without our operators."""
    network = tiny.network(**{"blocks": BLOCKS, "image_size": 33, **overrides})
    return [create_model(network, kernels=kernels) for kernels in (True, False)]


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_feature_maps_names_and_order_are_those_of_the_stock_network(library, padding):
    network = tiny.network(blocks=BLOCKS, image_size=33, padding=padding)
    ours, stock = (create_model(network, features_only=True, kernels=kernels) for kernels in (True, False))
    assert operators_in(ours) > 0 == operators_in(stock)
    assert [p.name for p in ours.get_parameters()] == [p.name for p in stock.get_parameters()]
    assert [p.name for p in ours.trainable_params()] == [p.name for p in stock.trainable_params()]
    for training in (True, False):
        ours.set_train(training), stock.set_train(training)
        for mine, theirs in zip(
            *(model(tiny.tensor(tiny.normal(2, 3, 33, 30))) for model in (ours, stock)), strict=True
        ):
            close(mine.asnumpy(), theirs.asnumpy(), f"training {training}")


def squares(model: nn.Cell):
    def total(x):
        return ops.sum(ops.square(model(x)))

    return total


@pytest.mark.parametrize("frozen", ["", "depthwise", "expand", "expand depthwise project"])
def test_frozen_batch_norms_in_any_mixture(library, frozen):
    images, results = tiny.tensor(tiny.normal(4, 3, 16, 16)), []
    for model in pair(blocks="r1_k3_s11_e1_o8_noskip r2_k5_s22_e3_o8_se0.25"):
        model.set_train()
        for name in frozen.split():
            getattr(model.blocks[2], name).set_train(False)
        weights = model.trainable_params()
        gradients = ms.grad(squares(model), None, weights)(images)
        found = {f"gradient of {p.name}": g.asnumpy() for p, g in zip(weights, gradients, strict=True)}
        results.append({**found, **tiny.values(model.get_parameters())})
    largest = max(np.abs(value).max() for name, value in results[1].items() if name.startswith("gradient"))
    for name, value in results[1].items():  # some gradients vanish but for rounding, as a batch norm follows
        atol = 1e-5 * largest if name.startswith("gradient") else 1e-5
        np.testing.assert_allclose(results[0][name], value, rtol=1e-3, atol=atol, err_msg=name)


def losses(kernels: bool, monkeypatch) -> tuple[list[float], dict[str, np.ndarray]]:
    with monkeypatch.context() as patch:
        if not kernels:
            patch.setenv("MNASNET_KERNELS", "off")
        net = tiny.network(blocks=BLOCKS, padding="same", drop_connect=0.3, dropout=0.2, image_size=17)
        step = tiny.train_step(0.02, net, ema=True, image_resize=17)
    assert (operators_in(step.model) > 0) == kernels
    curve = [tiny.run(step, *tiny.batch(number % 4, 8, 17), number) for number in range(20)]
    return curve, step.state()


@pytest.mark.slow
def test_the_loss_curve_is_that_of_the_stock_operators_and_the_same_bits_twice(library, monkeypatch):
    (ours, state), (again, repeated), (stock, _) = (losses(kernels, monkeypatch) for kernels in (True, True, False))
    assert ours[0] - ours[-1] > 0.1
    np.testing.assert_allclose(ours, stock, rtol=2e-4)
    assert ours == again
    assert all(np.array_equal(value, repeated[name]) for name, value in state.items())


@pytest.mark.slow
def test_a_quantized_network_trains_as_with_the_stock_operators(library):
    """From observing through quantizing to frozen: losses, ranges and statistics."""
    results = []
    for kernels in (True, False):
        net = tiny.network(blocks=BLOCKS, drop_connect=0.3, image_size=16)
        model = create_model(net, quantization=Quantization(3, 6), kernels=kernels).set_train()
        recipe = tiny.recipe(quantize=True)
        step = TrainStep(recipe, model, tiny.layout(recipe, model), np.full(64, 0.02, np.float32))
        curve = [tiny.run(step, *tiny.batch(number % 4, 8), number) for number in range(9)]
        model.set_train(False)
        logits = model(tiny.tensor(tiny.normal(4, 3, 16, 16))).asnumpy()
        results.append((curve, tiny.values(model.get_parameters()), logits))
    (ours, state, logits), (stock, expected, wanted) = results
    np.testing.assert_allclose(ours, stock, rtol=0.01)  # here and there a value is rounded to the next step
    assert list(state) == list(expected)
    for name in (name for name in expected if name.startswith(PREFIXES) or "moving_" in name):
        value = expected[name]
        np.testing.assert_allclose(state[name], value, rtol=0.02, atol=0.02 * np.abs(value).max(), err_msg=name)
    np.testing.assert_allclose(logits, wanted, atol=0.05 * np.abs(wanted).max())
