"""MindCV 0.3, where it is installed, beside ours: networks, training steps and learning rates."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindcv_facts import MINDCV
from mindspore import nn, ops

from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.train.optimizers import create_optimizer
from mindcv_mnasnet.train.random_inputs import RandomLayout
from mindcv_mnasnet.train.schedule import learning_rates
from mindcv_mnasnet.train.step import TrainStep

mindcv = pytest.importorskip("mindcv")

SIZE = 64
WIDTHS = ("mnasnet_050", "mnasnet_075", "mnasnet_100", "mnasnet_130", "mnasnet_140")


def modules() -> dict[str, str]:
    """Our convolution-and-norm modules and MindCV's (convolution, norm), from its source."""
    pairs = {"stem": ("features.0", "features.1"), "head": ("features.24", "features.25")}
    pairs |= {"blocks.0.depthwise": ("features.3", "features.4"), "blocks.0.project": ("features.6", "features.7")}
    for block in range(1, 17):
        for part, (conv, norm) in {"expand": (0, 1), "depthwise": (3, 4), "project": (6, 7)}.items():
            layers = f"features.{block + 7}.layers"
            pairs[f"blocks.{block}.{part}"] = (f"{layers}.{conv}", f"{layers}.{norm}")
    names = {"classifier": "classifier"}
    for ours, (conv, norm) in pairs.items():
        names |= {f"{ours}.conv": conv, f"{ours}.bn": norm}
    return names


def their_name(ours: str) -> str:
    module, _, leaf = ours.rpartition(".")
    return f"{modules()[module]}.{leaf}"


def pair(name: str, kernels: bool = True) -> tuple[nn.Cell, nn.Cell]:
    """Our network and MindCV's with equal random weights and statistics, without dropout."""
    ours = create_model(name, num_classes=10, dropout=0.0, seed=3, kernels=kernels)
    theirs = mindcv.create_model(name, num_classes=10, drop_rate=0.0)
    rng = np.random.default_rng(0)
    target = {parameter.name: parameter for parameter in theirs.get_parameters()}
    for parameter in ours.get_parameters():
        value = parameter.asnumpy()
        if parameter.name.endswith((".gamma", ".moving_variance")):
            value = rng.uniform(0.5, 1.5, value.shape)
        elif value.ndim == 1:
            value = rng.normal(0, 0.1, value.shape)
        tensor = ms.Tensor(value.astype(np.float32))
        parameter.set_data(tensor)
        target.pop(their_name(parameter.name)).set_data(tensor.copy())
    assert not target
    return ours, theirs


def images(batch: int = 4) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (batch, 3, SIZE, SIZE)).astype(np.float32)


@pytest.mark.parametrize("name", WIDTHS)
def test_every_parameter_has_its_counterpart_of_the_same_shape(name):
    ours = {their_name(p.name): p.shape for p in create_model(name).get_parameters()}
    assert ours == {p.name: p.shape for p in mindcv.create_model(name).get_parameters()}


@pytest.mark.parametrize("name", ["mnasnet_050", "mnasnet_100"])
def test_equal_weights_give_equal_logits(cpu, name):
    ours, theirs = (cell.set_train(False)(ms.Tensor(images())).asnumpy() for cell in pair(name))
    assert np.abs(ours - theirs).max() < 1e-4 * theirs.std()


def test_training_steps_agree(cpu):
    """Loss and movement of every parameter and statistic over three steps by MindCV's loss and optimizer, and by ours.

    The rates are small because a random network in training magnifies rounding: at 0.01 one part in 1e5 becomes 1e-1.
    Both use MindSpore's operators for the same reason, and momentum: its RMSProp is wrong on CPUs (``optim``).
    """
    rates = [0.0, 1e-5, 2e-5]
    keys = {"opt": "momentum", "weight_decay": 1e-2, "label_smoothing": 0.1, "loss_scale": 256}
    recipe = load_recipe(overrides={**keys, "image_resize": SIZE})
    ours, theirs = pair("mnasnet_050", kernels=False)
    step = TrainStep(recipe, ours.set_train(), RandomLayout(SIZE), np.array(rates, np.float32)).set_train()
    loss = mindcv.loss.create_loss("CE", label_smoothing=0.1)
    optimizer = mindcv.optim.create_optimizer(
        theirs, "momentum", lr=rates, weight_decay=1e-2, momentum=0.9, loss_scale=256.0
    )
    their_step = nn.TrainOneStepCell(nn.WithLossCell(theirs, loss), optimizer, sens=256.0).set_train()

    rng = np.random.default_rng(2)
    images, labels = rng.integers(0, 256, (8, SIZE, SIZE, 3), np.uint8), ms.Tensor(rng.integers(0, 10, 8), ms.int32)
    mean, std = (np.array(values, np.float32) for values in recipe.pixel_statistics())
    normalized = ms.Tensor(((images - mean) / std).transpose(0, 3, 1, 2))
    start = {parameter.name: parameter.asnumpy().copy() for parameter in ours.get_parameters()}
    for _ in rates:
        own = float(step(ms.Tensor(images), labels).asnumpy())
        assert own == pytest.approx(float(their_step(normalized, labels).asnumpy()), rel=1e-5)
    target = {parameter.name: parameter.asnumpy() for parameter in theirs.get_parameters()}
    for parameter in ours.get_parameters():
        expected = target[their_name(parameter.name)]
        movement = np.linalg.norm(expected - start[parameter.name])
        assert np.linalg.norm(parameter.asnumpy() - expected) < 0.01 * movement, parameter.name


class Small(nn.Cell):
    """One parameter of every kind that decay treats differently."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4, beta_init="ones")
        self.classifier = nn.Dense(4, 2, bias_init="ones")

    def construct(self, x):
        return self.classifier(ops.mean(self.bn(self.conv(x)), (2, 3)))


@pytest.mark.parametrize(
    ("ours", "theirs"), [("disable", "disable"), ("auto", "auto"), ("norm_and_bias", "norm_and_bias")]
)
def test_what_is_decayed_is_what_mindcv_decays(cpu, ours, theirs):
    """With gradients of zero only weight decay moves a parameter, whatever the loss scale."""
    model, their_model = Small(), Small()
    ms.load_param_into_net(their_model, {p.name: p.clone() for p in model.get_parameters()})
    weights = list(model.trainable_params())
    keys = {"opt": "momentum", "weight_decay": 0.1, "weight_decay_filter": ours}
    optimizer = create_optimizer(load_recipe(overrides=keys), weights, dict.fromkeys((p.name for p in weights), 0))
    shared = {"weight_decay": 0.1, "weight_decay_filter": theirs, "momentum": 0.9}
    their_optimizer = mindcv.optim.create_optimizer(their_model, "momentum", lr=0.5, loss_scale=256.0, **shared)
    zeros = tuple(ops.zeros(p.shape, ms.float32) for p in weights)
    for _ in range(2):
        optimizer(ms.Tensor(0.5), ms.Tensor(0), zeros)
        their_optimizer(zeros)
    for mine, their in zip(weights, their_model.trainable_params(), strict=True):
        np.testing.assert_allclose(mine.asnumpy(), their.asnumpy(), rtol=1e-5, err_msg=mine.name)


OTHER_SCHEDULES = {
    "cycles": {"num_cycles": 3, "decay_epochs": 4, "cycle_decay": 0.6, "warmup_factor": 0.1},
    "cosine by epochs": {"lr_epoch_stair": True, "warmup_factor": 0.01, "decay_epochs": 10},
    "exponential": {"scheduler": "exponential_decay", "decay_rate": 0.9},
    "exponential by epochs": {"scheduler": "exponential_decay", "decay_rate": 0.9, "lr_epoch_stair": True},
    "step": {"scheduler": "step_decay", "decay_rate": 0.3, "decay_epochs": 4},
    "multi-step": {"scheduler": "multi_step_decay", "decay_rate": 0.3, "multi_step_decay_milestones": [3, 7]},
    "constant without warm-up": {"scheduler": "constant", "warmup_epochs": 0},
}
SCHEDULES = {
    **MINDCV,
    **{name: {"epoch_size": 15, "warmup_epochs": 2, **keys} for name, keys in OTHER_SCHEDULES.items()},
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps_per_epoch", [1, 7])
def test_learning_rates_are_mindcvs(name, steps_per_epoch):
    recipe = load_recipe(overrides=SCHEDULES[name])
    plan = Plan.make(recipe, 8 * recipe.batch_size * steps_per_epoch, 0, world_size=8)
    theirs = mindcv.scheduler.create_scheduler(
        steps_per_epoch,
        recipe.scheduler,
        recipe.lr,
        recipe.min_lr,
        int(recipe.warmup_epochs),
        recipe.warmup_factor,
        int(recipe.decay_epochs),
        recipe.decay_rate,
        list(recipe.multi_step_decay_milestones),
        recipe.epoch_size,
        recipe.num_cycles,
        recipe.cycle_decay,
        recipe.lr_epoch_stair,
    )
    np.testing.assert_allclose(learning_rates(recipe, plan), theirs, rtol=1e-6, atol=1e-9 * recipe.lr)
