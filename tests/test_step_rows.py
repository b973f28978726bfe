"""A step whose state lies in rows computes what one does that goes from tensor to tensor, and saves the same state."""

import mindspore as ms
import numpy as np
import pytest
import tiny
from mindspore import nn

from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.parameters import freeze
from mindcv_mnasnet.model.quantization import Quantization
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.train.backward import moving_statistics
from mindcv_mnasnet.train.random_inputs import RandomLayout
from mindcv_mnasnet.train.step import Accumulate, TrainStep
from mindcv_mnasnet.train.tensor_lists import TensorList

pytestmark = pytest.mark.usefixtures("cpu")
HUGE = 3e38  # nearly float32's largest: a weight that makes its layer overflow
GUARDED = {"ema": True, "ema_ramp": True, "loss_scale_type": "dynamic", "loss_scale": 1024}


def make(by_row: bool, frozen: int = 0, **keys) -> TrainStep:
    """A step of a network of one block."""
    recipe = tiny.recipe(weight_decay=0.01, weight_decay_filter="norm", momentum=0.9, **keys)
    network = tiny.network(blocks="r1_k3_s22_e3_o8_se0.25")
    model = create_model(network, quantization=Quantization.of(recipe, 4), kernels=False)
    model.set_train()
    if frozen:
        freeze(model, frozen)
    rates = np.full(64, 0.02, np.float32)
    return TrainStep(recipe, model, RandomLayout(tiny.SIZE), rates, by_row=by_row)


def both(**keys) -> tuple[TrainStep, TrainStep]:
    return make(False, **keys), make(True, **keys)


def take(step: TrainStep, *numbers: int) -> list[float]:
    """The losses of steps on the batches of those numbers."""
    first, losses = Accumulate(step) if step.accumulation > 1 else None, []
    for number in numbers:
        if first is not None:
            tiny.run(first, *tiny.batch(100 + number))
        losses.append(tiny.run(step, *tiny.batch(number)))
    return losses


def assert_close(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-3, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    "keys",
    [
        {"opt": "rmsprop", **GUARDED},
        {"opt": "sgd", "use_nesterov": True, "clip_grad": True, "clip_value": 0.5, "layer_decay": 0.8},
        {"opt": "adamw", "gradient_accumulation_steps": 2, "layer_decay": 0.8, **GUARDED},
        {"opt": "lamb", "ema": True, "frozen": 1},
        {"opt": "sgd", "quantize": True, "ema": True},
    ],
    ids=["rmsprop", "sgd", "adamw", "lamb frozen", "quantized"],
)
def test_rows_change_nothing_and_their_state_goes_both_ways(keys):
    tensors, rows = both(**keys)
    assert take(rows, 0, 1) == pytest.approx(take(tensors, 0, 1), rel=1e-4)
    assert_close(rows.state(), tensors.state())
    tensors.load(rows.state(), "rows")
    rows.load(tensors.state(), "tensors")
    assert take(rows, 2) == pytest.approx(take(tensors, 2), rel=1e-4)
    assert_close(rows.state(), tensors.state())


def test_an_overflow_leaves_a_row_as_it_is_and_a_restart_repeats_every_bit():
    step = make(True, opt="rmsprop", **GUARDED)
    take(step, 0)
    sound = step.state()
    step.load(sound | {"classifier.weight": np.full_like(sound["classifier.weight"], HUGE)}, "the test")
    before = step.state()
    take(step, 1)
    moved = ("state.loss_scale", "state.good_steps", "state.sums")
    for name, value in step.state().items():
        if name not in moved:
            np.testing.assert_array_equal(value, before[name], err_msg=name)
    ends = []
    for _ in range(2):
        step.load(sound, "the test")
        take(step, 1, 2)
        ends.append(step.state())
    for name, value in ends[0].items():
        np.testing.assert_array_equal(ends[1][name], value, err_msg=name)


def test_weights_that_were_set_from_outside_are_followed():
    step = make(True)
    step.model.classifier.bias.set_data(tiny.tensor(np.full(tiny.CLASSES, 9.0)))
    step.follow()
    take(step, 0)
    assert step.state()["classifier.bias"].min() > 8


def test_as_many_tensors_as_no_network_has_are_split():
    """MindSpore's compiler gives up on a split into some 200."""

    class Double(nn.Cell):
        def __init__(self, tensors: TensorList):
            super().__init__(auto_prefix=False)
            self.tensors = tensors

        def construct(self, factor):
            return self.tensors(self.tensors.values()[0] * factor)

    parameters = [ms.Parameter(tiny.tensor(np.full((1 + i % 3, 2), i)), f"p{i}") for i in range(500)]
    Double(TensorList(parameters, by_row=True))(ms.Tensor(2.0, ms.float32))
    assert all((parameter.asnumpy() == 2 * i).all() for i, parameter in enumerate(parameters))


def test_statistics_of_frozen_parts_are_not_averaged():
    """A mean over three ranks rounds what all of them hold."""
    model = create_model(tiny.network(), quantization=Quantization())
    everything = {p.name for p in moving_statistics(model)}
    freeze(model, 1)
    left_out = everything - {p.name for p in moving_statistics(model)}
    assert {"stem.bn.moving_mean", "blocks.0.project.bn.moving_variance", "ranges.stem"} <= left_out
    assert all(name.removeprefix("ranges.").startswith(("stem", "blocks.0")) for name in left_out)
    assert {"ranges.input", "ranges.logits", "blocks.1.depthwise.bn.moving_mean"} <= everything - left_out


@pytest.mark.parametrize("level", ["O2", "O3"])
def test_mixed_precision_wraps_cells_and_names_stay(level):
    """Depths, decays and states go by the parameters' names, which no wrapped cell changes."""
    plain, mixed = (create_model(tiny.network(), kernels=False) for _ in range(2))
    runtime.mixed_precision(mixed, level, "float16")
    assert mixed.depths() == plain.depths()
    recipe = load_recipe(overrides={"opt": "adamw", "layer_decay": 0.5, "weight_decay": 0.1, "ema": True})
    steps = [TrainStep(recipe, model, RandomLayout(tiny.SIZE), np.ones(4, np.float32)) for model in (plain, mixed)]
    assert steps[0].state().keys() == steps[1].state().keys()
    assert steps[0].optimizer.decays == steps[1].optimizer.decays
    assert steps[0].optimizer.lr_shares == steps[1].optimizer.lr_shares


def test_what_a_step_keeps_by_row_is_one_parameter_for_all_tensors():
    """A mirror of the weights, two slots and the averages."""
    names = {p.name for p in make(True, opt="rmsprop", ema=True).get_parameters()}
    assert len([name for name in names if name.startswith(("optimizer.", "ema.", "row_of."))]) == 4
