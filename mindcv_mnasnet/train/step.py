"""One compiled training step: preprocessing, loss, scaling, clipping, update, EMA; and the evaluation step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.ops.auto_generate import SplitWithSize

from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.model.mnasnet import MnasNet
from mindcv_mnasnet.model.parameters import check_fit
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.train.backward import Backward, skips_overflow
from mindcv_mnasnet.train.moving_averages import MovingAverages, RowAverages
from mindcv_mnasnet.train.optimizers import create_optimizer
from mindcv_mnasnet.train.preprocess import Preprocess
from mindcv_mnasnet.train.random_inputs import RandomLayout
from mindcv_mnasnet.train.tensor_lists import Kept, all_finite, clip, for_each

SCALE_FACTOR = 2.0
SCALE_WINDOW = 2000  # good steps before a dynamic loss scale grows, MindSpore's and NVIDIA's default
SCALE_LIMIT = 2.0**24  # where it stops growing, NVIDIA's default; far beyond, its inverse would be 0 in float32


class TrainStep(nn.Cell):
    """Batch in, updated state out: ``step(images, labels, random_inputs)`` -> loss, a float32 scalar.

    images uint8 (batch, height, width, channels), labels as the task's objective takes them, random_inputs float32
    (batch, layout.columns) or None when the layout has none. State lives in parameters; ``state()`` has all that a
    resume needs. After every step it is the same on all ranks: gradients, batch-norm statistics and counts are
    averaged over them, in one collective.

    With ``accumulation`` above 1, ``accumulate(...)`` takes the first batches of a step and this cell the last one;
    the loss that it returns is the mean over them.

    Gradients, slots and averages lie ``by_row`` on NPUs and in groups of processes, one tensor after another in a
    single process on the CPU, where rows were a quarter slower. The state's names do not tell.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: MnasNet,
        layout: RandomLayout,
        rates: np.ndarray,
        world: int = 1,
        by_row: bool | None = None,
    ):
        super().__init__(auto_prefix=False)
        self.model, self.world = model, world
        by_row = world > 1 or runtime.current_device() != "CPU" if by_row is None else by_row
        self.by_row = by_row
        self.step = _state("state.step", 0, ms.int32)
        self.loss_scale = _state("state.loss_scale", recipe.loss_scale)
        self.good_steps = _state("state.good_steps", 0, ms.int32)
        self.rates = ms.Parameter(ms.Tensor(rates), "rates", False)
        self.dynamic_scale = recipe.loss_scale_type != "fixed"
        self.skips_overflow = skips_overflow(recipe)
        self.clip = recipe.clip_value if recipe.clip_grad else None
        weights = [p for p in model.get_parameters() if p.requires_grad]
        self.optimizer = create_optimizer(recipe, weights, model.depths(), by_row)
        self.backward = Backward(recipe, model, layout, self.loss_scale, self.optimizer.trained)
        self.objective, statistics = self.backward.objective, self.backward.statistics
        columns = self.objective.columns
        self.sums = _state("state.sums", np.zeros(columns, np.float32))  # counts since the epoch began
        self.accumulation = recipe.gradient_accumulation_steps
        self.summed, self.pending = None, None
        if self.accumulation > 1:
            self.summed = Kept("accumulated", weights, 0.0, by_row).parameters
            self.pending = _state("pending", np.zeros(columns, np.float32))  # as sums, of the step's first batches
        self.averaged = ms.ParameterTuple(model.get_parameters())
        self.ema_decay, self.ema_ramp = recipe.ema_decay, recipe.ema_ramp
        self.averages: Any = None
        if recipe.ema and by_row:
            self.averages = RowAverages(self.averaged, self.optimizer.trained, statistics)
        elif recipe.ema:
            self.averages = MovingAverages(self.averaged)
        self._kept = [*self.optimizer.states, *(self.averages.states if self.averages else ())]
        self.all_reduce: Any = ops.AllReduce() if world > 1 else None
        self.shared_sizes = (self.backward.trained.total, 0 if statistics is None else statistics.total, columns)

    def _plain_state(self) -> list[ms.Parameter]:
        return [*self.averaged, self.step, self.loss_scale, self.good_steps, self.sums]

    def state(self) -> dict[str, np.ndarray]:
        """Copies of the tensors that make up the training state by name, model first; the same in every layout."""
        tensors = {parameter.name: parameter.asnumpy().copy() for parameter in self._plain_state()}
        for kept in self._kept:
            tensors |= kept.tensors()
        return tensors

    def load(self, tensors: Mapping[str, np.ndarray], origin: str) -> None:
        """Set the training state to what ``state`` gave, on whatever devices; all of it, or nothing and an error.

        Raises:
            UserError: listing the first missing, left-over and misshapen tensors.
        """
        plain = self._plain_state()
        shapes = {parameter.name: tuple(parameter.shape) for parameter in plain}
        for kept in self._kept:
            shapes |= kept.shapes()
        check_fit(shapes, tensors, origin)
        for parameter in plain:
            parameter.set_data(ms.Tensor(np.array(tensors[parameter.name], order="C"), parameter.dtype))
        for kept in self._kept:
            kept.load(tensors)
        self.follow()

    def follow(self) -> None:
        """Take over parameters of the model that were set from outside, other than by ``load``."""
        for followed in (self.backward.trained, self.backward.statistics):
            if followed is not None:
                followed.follow()

    def steps_done(self) -> int:
        """Updates of the weights so far."""
        return int(self.step.asnumpy())

    def set_steps(self, steps: int) -> None:
        """Move the schedule to another position."""
        self.step.set_data(ms.Tensor(steps, ms.int32))

    def start_epoch(self) -> None:
        """Forget the sums of the epoch before."""
        self.sums.set_data(ms.Tensor(np.zeros(self.objective.columns, np.float32)))

    def convert_sums(self, batches: float, images: float) -> None:
        """Restate the sums for ``batches`` times as many batches of ``images`` times as many images."""
        self.sums.set_data(ms.Tensor(self.sums.asnumpy() * self.objective.factors(batches, images)))

    def epoch_metrics(self, device_batch: int) -> dict[str, float]:
        """Mean losses, and accuracies in percent, of the training batches since the epoch began."""
        return dict(self.objective.epoch_metrics(self.sums.asnumpy(), device_batch))

    def weight_sets(self) -> dict[str, dict[str, np.ndarray]]:
        """The model's tensors by name: raw ones under "", averaged ones (with EMA) under "_ema"."""
        state = self.state()
        names = [parameter.name for parameter in self.averaged]
        sets = {"": {name: state[name] for name in names}}
        return sets if self.averages is None else sets | {"_ema": {name: state[f"ema.{name}"] for name in names}}

    def construct(self, images, labels, random_inputs=None):
        loss, counts, gradients, statistics = self.backward(images, labels, random_inputs)
        if self.summed is not None:
            gradients = for_each(ops.partial(_take_mean, self.accumulation), self.summed, gradients)
            counts = counts + self.pending
            ops.assign(self.pending, ops.zeros_like(counts))
        if self.all_reduce is not None:
            gradients, statistics, counts = self.share(gradients, statistics, counts)
        if statistics is not None:
            self.backward.set_statistics(statistics)
        finite = all_finite(gradients) if self.skips_overflow else None
        self.update(gradients, finite)
        if self.averages is not None:
            self.average(statistics, finite)
        ops.assign_add(self.step, 1 if finite is None else finite.astype(ms.int32))
        if self.dynamic_scale:
            self.rescale(finite)
        ops.assign_add(self.sums, counts)
        return loss if self.summed is None and self.all_reduce is None else counts[0] / counts[-1]

    def update(self, gradients, applies=None):
        """Clip and optimize; neither where ``applies``, a bool scalar, is False.

        The graph does not branch: where it does, MindSpore 2.10 on the CPU works on copies of parameters that neither
        ``set_data`` nor ``asnumpy`` reaches afterwards.
        """
        if self.clip is not None:
            gradients = clip(gradients, self.clip)
        step = self.step.value()
        self.optimizer(self.rates[step], step, gradients, applies)

    def average(self, statistics, applies=None):
        """Move the averages, unless ``applies`` is False; ``statistics`` is their row if the step has changed it."""
        decay = self.ema_decay
        if self.ema_ramp:
            count = self.step.value().astype(ms.float32)
            decay = ops.minimum((1 + count) / (10 + count), ms.Tensor(self.ema_decay, ms.float32))
        share = 1 - decay if applies is None else (1 - decay) * applies.astype(ms.float32)
        weights = None
        if self.by_row:
            weights = self.backward.trained.row.value()
            if statistics is None and self.backward.statistics is not None:
                statistics = self.backward.statistics.values()[0]
        self.averages(share, weights, statistics)

    def rescale(self, finite):
        """Halve the loss scale on overflow, double it after ``SCALE_WINDOW`` good steps in a row."""
        good = ops.select(finite, self.good_steps + 1, ops.zeros_like(self.good_steps))
        grown = good >= SCALE_WINDOW
        scale = ops.select(finite, self.loss_scale.value(), self.loss_scale / SCALE_FACTOR)
        scale = ops.select(ops.logical_and(grown, scale < SCALE_LIMIT), scale * SCALE_FACTOR, scale)
        ops.assign(self.loss_scale, ops.maximum(scale, ms.Tensor(1.0, ms.float32)))
        ops.assign(self.good_steps, ops.select(grown, ops.zeros_like(good), good))

    def share(self, gradients, statistics, counts):
        """Average gradients, batch-norm statistics and counts over the ranks in one collective."""
        if self.backward.statistics is None:
            mean = self.all_reduce(ops.Concat()((gradients[0], counts))) / self.world
            gradients, counts = SplitWithSize()(mean, self.shared_sizes[::2], 0)
            return (gradients,), None, counts
        if statistics is None:
            statistics = self.backward.statistics.values()[0]
        mean = self.all_reduce(ops.Concat()((gradients[0], statistics, counts))) / self.world
        gradients, statistics, counts = SplitWithSize()(mean, self.shared_sizes, 0)
        return (gradients,), statistics, counts


class Accumulate(nn.Cell):
    """The first batches of a step: adds their gradients and counts to what a ``TrainStep`` holds of them."""

    def __init__(self, step: TrainStep):
        super().__init__(auto_prefix=False)
        self.backward, self.summed, self.pending = step.backward, step.summed, step.pending

    def construct(self, images, labels, random_inputs=None):
        loss, counts, gradients, statistics = self.backward(images, labels, random_inputs)
        for_each(ops.AssignAdd(), self.summed, gradients)
        ops.assign_add(self.pending, counts)
        if statistics is not None:
            self.backward.set_statistics(statistics)
        return loss


class EvalStep(nn.Cell):
    """uint8 images (batch, height, width, channels) -> float32 logits (batch, classes)."""

    def __init__(self, model: MnasNet, mean: Sequence[float], std: Sequence[float]):
        super().__init__(auto_prefix=False)
        self.preprocess, self.model = Preprocess(mean, std), model
        self.set_train(False)

    def construct(self, images):
        return self.model(self.preprocess(images)).astype(ms.float32)


def _state(name: str, value, dtype=ms.float32) -> ms.Parameter:
    return ms.Parameter(ms.Tensor(value, dtype), name, False)


def _take_mean(count, total, last):
    mean = ops.Div()(ops.Add()(total, last), count)
    ops.Assign()(total, ops.ZerosLike()(total))
    return mean
