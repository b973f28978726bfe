"""Optimizers against the published rules written out in NumPy, and which parameters each rule is spared."""

import mindspore as ms
import numpy as np
import pytest
import tiny
from mindspore import nn

from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.train.optimizers import create_optimizer
from mindcv_mnasnet.train.tensor_lists import clip

pytestmark = pytest.mark.usefixtures("cpu")

# A matrix and a bias: the second is the one that filters spare.
SHAPES = {"layer.weight": (3, 4), "layer.bn.gamma": (4,), "layer.bias": (4,)}
STEPS = 6
RATES = np.array([0.1, 0.2, 0.3, 0.05, 0.02, 0.1], np.float32)
DECAY = 0.03
BY_ROW = pytest.mark.parametrize("by_row", [False, True], ids=["tensors", "row"])


def gradients_of(step: int) -> dict[str, np.ndarray]:
    return {name: tiny.normal(*shape, seed=100 + 10 * step + len(name)) for name, shape in SHAPES.items()}


def start() -> dict[str, np.ndarray]:
    return {name: tiny.normal(*shape, seed=len(name)) for name, shape in SHAPES.items()}


class Once(nn.Cell):
    """One update, compiled."""

    def __init__(self, optimizer: nn.Cell):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer

    def construct(self, lr, step, *gradients):
        return self.optimizer(lr, step, self.optimizer.trained.join(gradients))


def optimized(by_row: bool = False, **keys) -> dict[str, np.ndarray]:
    """The parameters after ``STEPS`` updates."""
    recipe = load_recipe(overrides={"weight_decay": DECAY, "weight_decay_filter": "norm", **keys})
    parameters = [ms.Parameter(tiny.tensor(value), name) for name, value in start().items()]
    update = Once(create_optimizer(recipe, parameters, dict.fromkeys(SHAPES, 0), by_row))
    for step in range(STEPS):
        gradients = [tiny.tensor(gradient) for gradient in gradients_of(step).values()]
        update(ms.Tensor(RATES[step]), ms.Tensor(step, ms.int32), *gradients)
    return tiny.values(parameters)


def check(got: dict[str, np.ndarray], rule, decayed=("layer.weight", "layer.bias")) -> None:
    """Hold results against ``rule(w, gradients, rates, decay)``, which returns the last weights in float64."""
    for name, first in start().items():
        gradients = [gradients_of(step)[name].astype(float) for step in range(STEPS)]
        expected = rule(first.astype(float), gradients, RATES.astype(float), DECAY if name in decayed else 0.0)
        np.testing.assert_allclose(got[name], expected, rtol=2e-5, atol=2e-6, err_msg=name)


@BY_ROW
@pytest.mark.parametrize(("rho", "momentum", "eps"), [(0.9, 0.9, 1e-3), (0.5, 0.0, 0.03)])
def test_rmsprop_is_tensorflows(rho, momentum, eps, by_row):
    """Epsilon inside the root, mean square from 1, learning rate inside the momentum (training_ops.cc)."""

    def rule(w, gradients, rates, decay):
        mean_square, moment = np.ones_like(w), np.zeros_like(w)
        for gradient, rate in zip(gradients, rates, strict=True):
            gradient = gradient + decay * w
            mean_square = mean_square + (gradient**2 - mean_square) * (1 - rho)
            moment = momentum * moment + rate * gradient / np.sqrt(mean_square + eps)
            w = w - moment
        return w

    given = {} if eps == 1e-3 else {"eps": eps}  # the authors' 1e-3 is what comes without asking
    check(optimized(by_row, opt="rmsprop", rmsprop_decay=rho, momentum=momentum, **given), rule)


@BY_ROW
@pytest.mark.parametrize(
    ("opt", "momentum", "nesterov"), [("sgd", 0.9, True), ("momentum", 0.8, False), ("sgd", 0, False)]
)
def test_sgd_is_momentum_or_nesterovs(opt, momentum, nesterov, by_row):
    """Learning rate outside the momentum, as in PyTorch."""

    def rule(w, gradients, rates, decay):
        moment = np.zeros_like(w)
        for gradient, rate in zip(gradients, rates, strict=True):
            gradient = gradient + decay * w
            moment = momentum * moment + gradient
            w = w - rate * (gradient + momentum * moment if nesterov else moment)
        return w

    check(optimized(by_row, opt=opt, momentum=momentum, use_nesterov=nesterov), rule)


def adam_direction(gradients, betas, eps):
    """Yields the bias-corrected direction of every step (Kingma and Ba 2015)."""
    m = v = 0.0
    for count, gradient in enumerate(gradients, 1):
        m = betas[0] * m + (1 - betas[0]) * gradient
        v = betas[1] * v + (1 - betas[1]) * gradient**2
        yield m / (1 - betas[0] ** count) / (np.sqrt(v / (1 - betas[1] ** count)) + eps)


@BY_ROW
def test_adamw_decays_the_weights_and_not_the_gradients(by_row):
    def rule(w, gradients, rates, decay):
        for direction, rate in zip(adam_direction(gradients, (0.8, 0.95), 1e-8), rates, strict=True):
            w = w * (1 - rate * decay) - rate * direction
        return w

    check(optimized(by_row, opt="adamw", betas=(0.8, 0.95)), rule)


@BY_ROW
def test_lamb_scales_each_decayed_tensor_by_its_trust_ratio(by_row):
    def rule(w, gradients, rates, decay):
        for direction, rate in zip(adam_direction(gradients, (0.9, 0.999), 1e-6), rates, strict=True):
            change = direction + decay * w
            ratio = np.linalg.norm(w) / np.linalg.norm(change) if decay else 1.0
            w = w - rate * ratio * change
        return w

    check(optimized(by_row, opt="lamb"), rule)


@BY_ROW
@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (1.0, [[0.451906, -1.887004, 0.342755], [-0.039156, 0.604341]]),
        (1e9, [[0.588493, -1.644314, 0.151484], [0.001839, 0.53147]]),
    ],
)
def test_clipped_lamb_is_timms(limit, expected, by_row):
    """timm 1.0.31's Lamb clips the joint norm at 1 unless it is told max_grad_norm=None: golden numbers of both."""
    keys = {"opt": "lamb", "weight_decay": DECAY, "weight_decay_filter": "norm_and_bias"}
    parameters = [
        ms.Parameter(tiny.tensor(np.array([1.0, -2.0, 0.5])), "a.weight"),
        ms.Parameter(tiny.tensor(np.array([0.25, 0.75])), "a.bias"),
    ]
    optimizer = create_optimizer(load_recipe(overrides=keys), parameters, {"a.weight": 0, "a.bias": 0}, by_row)
    steps = [(0.1, [3.0, -1.0, 2.0], [0.5, 4.0]), (0.2, [0.1, 0.2, -0.3], [0.05, -0.4])]
    for step, (rate, *gradients) in enumerate(steps):
        joined = optimizer.trained.join(tuple(tiny.tensor(np.array(gradient)) for gradient in gradients))
        optimizer(ms.Tensor(rate, ms.float32), ms.Tensor(step, ms.int32), clip(joined, limit))
    for parameter, values in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.asnumpy(), values, atol=5e-6)


@pytest.mark.parametrize("opt", ["rmsprop", "adamw", "lamb"])
def test_no_gradient_and_no_decay_move_nothing(opt):
    recipe = load_recipe(overrides={"opt": opt, "weight_decay": 0.0})
    parameter = ms.Parameter(tiny.tensor(np.zeros(3)), "w")
    Once(create_optimizer(recipe, [parameter], {"w": 0}))(
        ms.Tensor(0.1), ms.Tensor(0, ms.int32), tiny.tensor(np.zeros(3))
    )
    np.testing.assert_array_equal(parameter.asnumpy(), np.zeros(3))


# --- what is decayed, and at which rate ---------------------------------------------------------------------------


def shares(**keys):
    """Decay and share of the learning rate of every parameter of a network."""
    model = create_model("semnasnet_050", num_classes=3)
    parameters = model.trainable_params()
    optimizer = create_optimizer(load_recipe(overrides={"weight_decay": DECAY, **keys}), parameters, model.depths())
    names = [parameter.name for parameter in parameters]
    return dict(zip(names, optimizer.decays, strict=True)), dict(zip(names, optimizer.lr_shares, strict=True))


@pytest.mark.parametrize(
    ("named", "spares_norms", "spares_biases"),
    [("disable", False, False), ("norm", True, False), ("norm_and_bias", True, True), ("auto", True, False)],
)
def test_decay_groups(named, spares_norms, spares_biases):
    decays, rates = shares(weight_decay_filter=named)
    assert set(rates.values()) == {1.0}
    kinds = {"norm": ("gamma", "beta"), "bias": ("bias",), "weight": ("weight",)}
    found = {kind: {decays[n] for n in decays if n.endswith(endings)} for kind, endings in kinds.items()}
    assert found == {
        "norm": {0.0 if spares_norms else DECAY},
        "bias": {0.0 if spares_biases else DECAY},
        "weight": {DECAY},
    }


def test_layer_decay_lowers_the_rate_by_one_factor_per_stage():
    _, rates = shares(layer_decay=0.5)
    assert rates["classifier.weight"] == rates["head.conv.weight"] == 1
    assert rates["blocks.15.project.conv.weight"] == 0.5
    assert rates["blocks.0.depthwise.bn.gamma"] == 0.5**7
    assert rates["stem.conv.weight"] == 0.5**8


def test_layer_decay_scales_the_updates():
    recipe = tiny.recipe(layer_decay=0.5, weight_decay_filter="norm")
    parameters = [ms.Parameter(tiny.tensor(np.ones(2)), name) for name in ("near", "far")]
    update = Once(create_optimizer(recipe, parameters, {"near": 0, "far": 2}))
    update(ms.Tensor(0.4), ms.Tensor(0, ms.int32), *[tiny.tensor(np.ones(2))] * 2)
    assert parameters[0].asnumpy() == pytest.approx(0.6)
    assert parameters[1].asnumpy() == pytest.approx(0.9)


@pytest.mark.parametrize("opt", ["rmsprop", "sgd", "adamw", "lamb"])
def test_every_slot_is_named_after_its_parameter(opt):
    parameters = [ms.Parameter(tiny.tensor(value), name) for name, value in start().items()]
    optimizer = create_optimizer(load_recipe(overrides={"opt": opt}), parameters, dict.fromkeys(SHAPES, 0))
    slots = {p.name: p.shape for p in optimizer.get_parameters() if p.name.startswith("optimizer.")}
    assert len(slots) == len(SHAPES) * (1 if opt == "sgd" else 2)
    assert all(shape == SHAPES[name.split(".", 2)[2]] for name, shape in slots.items())
    assert not any(p.requires_grad for p in optimizer.get_parameters() if p.name in slots)
