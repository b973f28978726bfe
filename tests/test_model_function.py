"""What networks compute: padding, batch norm, the residual rule, dropping."""

import numpy as np
import pytest
import tiny
from mindspore import nn
from tiny import normal, tensor

from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.layers import ConvBN
from mindcv_mnasnet.networks.network import resolve

pytestmark = pytest.mark.usefixtures("cpu")
EPS = 1e-3

# --- padding ------------------------------------------------------------------------------------------------------

# (kernel, stride) -> zeros before and after, by TensorFlow's rule: as little as the output ceil(size / stride) needs,
# the odd one after. Worked out by hand.
SAME = {
    (3, 1): {"even": (1, 1), "odd": (1, 1)},
    (5, 1): {"even": (2, 2), "odd": (2, 2)},
    (7, 1): {"even": (3, 3), "odd": (3, 3)},
    (3, 2): {"even": (0, 1), "odd": (1, 1)},
    (5, 2): {"even": (1, 2), "odd": (2, 2)},
    (7, 2): {"even": (2, 3), "odd": (3, 3)},
}


class Convolutions(nn.Cell):
    """One ConvBN per (kernel, stride) of ``SAME``, without ReLU, with random weights."""

    def __init__(self, padding: str):
        super().__init__()
        network = tiny.network(padding=padding, bn_eps=EPS)
        self.convs = nn.CellList([ConvBN(network, 2, 2, kernel, stride, relu=False) for kernel, stride in SAME])
        for seed, unit in enumerate(self.convs):
            unit.conv.weight.set_data(tensor(normal(*unit.conv.weight.shape, seed=seed)))
        self.set_train(False)

    def construct(self, x):
        return tuple([unit(x) for unit in self.convs])


def convolve(x: np.ndarray, weight: np.ndarray, stride: int, before: int, after: int) -> np.ndarray:
    kernel = weight.shape[-1]
    x = np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, weight)


@pytest.fixture(scope="module")
def convolutions():
    return {padding: Convolutions(padding) for padding in ("same", "symmetric")}


@pytest.mark.parametrize("size", [8, 9, 10, 13])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_padding_is_tensorflows_or_symmetric(convolutions, padding, size):
    x = normal(1, 2, size, size)
    outputs = convolutions[padding](tensor(x))
    for unit, got, ((kernel, stride), pads) in zip(convolutions[padding].convs, outputs, SAME.items(), strict=True):
        before, after = pads["odd" if size % 2 else "even"] if padding == "same" else (kernel // 2, kernel // 2)
        expected = convolve(x, unit.conv.weight.asnumpy(), stride, before, after) / (1 + EPS) ** 0.5
        assert got.shape == (1, 2, -(-size // stride), -(-size // stride))
        np.testing.assert_allclose(got.asnumpy(), expected, atol=1e-4, err_msg=f"kernel {kernel} stride {stride}")


# --- the function -------------------------------------------------------------------------------------------------


def test_batch_norm_keeps_the_share_of_the_old_that_the_network_says():
    """In training it normalizes by the batch (biased variance) and moves its averages by 1 - momentum."""
    unit = ConvBN(tiny.network(bn_momentum=0.75, bn_eps=0.01), 2, 2, relu=False)
    unit.conv.weight.set_data(tensor(np.eye(2).reshape(2, 2, 1, 1)))
    unit.set_train()
    x = 3 + 2 * normal(4, 2, 5, 5)
    got = unit(tensor(x)).asnumpy()
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    expected = (x - mean.reshape(1, 2, 1, 1)) / np.sqrt(variance.reshape(1, 2, 1, 1) + 0.01)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    np.testing.assert_allclose(unit.bn.moving_mean.asnumpy(), 0.25 * mean, rtol=1e-4)
    np.testing.assert_allclose(unit.bn.moving_variance.asnumpy(), 0.75 + 0.25 * x.var((0, 2, 3), ddof=1), rtol=1e-4)


@pytest.mark.parametrize(("width", "differs"), [(0.5, False), (1.0, True)])
def test_the_residual_rule_of_small_changes_the_function_where_widths_differ(width, differs):
    network = {rule: resolve("small", width_mult=width, residual_rule=rule) for rule in ("actual", "declared")}
    assert network["actual"].layers()[0].residual
    first_blocks = {
        rule: tiny.network(blocks="r1_k3_s11_e1_o8", declared_stem=16, width_mult=width, residual_rule=rule)
        for rule in network
    }
    x = tensor(normal(1, 3, 16, 16))
    logits = {}
    for rule, described in first_blocks.items():
        assert described.layers()[0].residual == network[rule].layers()[0].residual
        logits[rule] = create_model(described, seed=1).set_train(False)(x).asnumpy()
    assert np.allclose(logits["actual"], logits["declared"]) != differs


def test_gray_images_and_any_number_of_classes():
    model = create_model(tiny.network(in_channels=1, num_classes=3)).set_train(False)
    assert model.stem.conv.weight.shape == (8, 1, 3, 3)
    logits = model(tensor(normal(2, 1, 20, 20))).asnumpy()
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()
    assert not np.array_equal(logits[0], logits[1])


# --- dropping -----------------------------------------------------------------------------------------------------

COPIES = 512


@pytest.fixture(scope="module")
def dropping():
    """A model with dropout 0.5, in training, and one image many times over."""
    model = create_model(tiny.network(dropout=0.5)).set_train()
    return model, tensor(np.repeat(normal(1, 3, 16, 16), COPIES, 0))


def test_dropout_keeps_the_expectation(dropping):
    """The classifier is linear in what dropout scales, so the mean over many draws is what no dropping gives."""
    model, images = dropping
    kept = model(images, tensor(np.full((COPIES, model.random_columns), 0.999))).asnumpy()  # all kept, so doubled
    drawn = model(images, tensor(np.random.default_rng(0).random((COPIES, model.random_columns)))).asnumpy()
    error = drawn.std(0) / COPIES**0.5
    assert (error > 0).all()
    assert (np.abs(drawn.mean(0) - kept[0] / 2) < 4.5 * error).all()


def test_dropping_is_a_function_of_its_draws(dropping):
    model, images = dropping
    random_inputs = tensor(np.random.default_rng(0).random((COPIES, model.random_columns)))
    first, again = model(images, random_inputs).asnumpy(), model(images, random_inputs).asnumpy()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1]), "each image has its own random_inputs"


def test_validation_drops_nothing(dropping):
    model = create_model(tiny.network(dropout=0.5, drop_connect=0.5)).set_train(False)
    plain = create_model(tiny.network()).set_train(False)
    np.testing.assert_array_equal(model(dropping[1][:2]).asnumpy(), plain(dropping[1][:2]).asnumpy())


def test_training_without_draws_lets_the_device_draw():
    model = create_model(tiny.network(dropout=0.5)).set_train()
    images = tensor(normal(4, 3, 16, 16))
    assert not np.array_equal(model(images).asnumpy(), model(images).asnumpy())


def test_drop_connect_drops_whole_branches_of_blocks_with_a_shortcut_and_keeps_the_expectation():
    network = tiny.network(drop_connect=0.6)  # block 0 has no shortcut; block 1 of 2 drops 0.6 / 2
    model = create_model(network, features_only=True).set_train()
    assert model.drop_connect_rates == pytest.approx((0, 0.3))
    assert model.random_columns == 1
    random_inputs = np.linspace(0, 0.999, COPIES).reshape(-1, 1)
    images = tensor(np.repeat(normal(1, 3, 16, 16), COPIES, 0))
    last = model(images, tensor(random_inputs))[-1].asnumpy()
    dropped = random_inputs[:, 0] < 0.3
    assert np.ptp(last[dropped], 0).max() < 1e-5, "what is left of a dropped block is its input"
    assert np.ptp(last[~dropped], 0).max() < 1e-5
    undropped = create_model(tiny.network(), features_only=True).set_train()
    np.testing.assert_allclose(last.mean(0), undropped(images)[-1].asnumpy()[0], atol=0.02)
