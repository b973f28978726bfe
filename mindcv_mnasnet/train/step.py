"""One compiled training step: preprocessing, loss, scaling, clipping, update, EMA; and the evaluation step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mindcv_mnasnet.model.mnasnet import MnasNet
from mindcv_mnasnet.model.quantization import PREFIXES
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.train.loss import Loss
from mindcv_mnasnet.train.optimizers import create_optimizer
from mindcv_mnasnet.train.preprocess import MixAndErase, Preprocess
from mindcv_mnasnet.train.random_inputs import RandomLayout
from mindcv_mnasnet.train.tensor_lists import all_finite, clip, flat, for_each, set_flat, zeros_like

SCALE_FACTOR = 2.0
SCALE_WINDOW = 2000  # good steps before a dynamic loss scale grows, MindSpore's and NVIDIA's default
SCALE_LIMIT = 2.0**24  # where it stops growing, NVIDIA's default; far beyond, its inverse would be 0 in float32


def skips_overflow(recipe: Recipe) -> bool:
    """Whether a step whose gradients are not finite is left out."""
    return recipe.loss_scale_type != "fixed" or recipe.drop_overflow_update


class Backward(nn.Cell):
    """Loss and gradients of one batch; the loss is scaled inside and the gradients are unscaled again."""

    def __init__(self, recipe: Recipe, model: MnasNet, layout: RandomLayout, loss_scale: ms.Parameter):
        super().__init__(auto_prefix=False)
        self.model, self.layout, self.loss_scale = model, layout, loss_scale
        self.preprocess = Preprocess(*recipe.pixel_statistics())
        self.mix_and_erase = MixAndErase(layout, float(recipe.re_value)) if layout.mixes or layout.erases else None
        self.loss = Loss(recipe.loss, recipe.label_smoothing, model.network.num_classes)
        self.weights = ms.ParameterTuple(p for p in model.get_parameters() if p.requires_grad)
        self.guarded = _statistics(model) if skips_overflow(recipe) else None
        # Without half precision a fixed scale is nothing but two roundings, and compiling it takes seconds.
        self.scales = recipe.amp_level != "O0" or skips_overflow(recipe)
        self.gradient = ops.value_and_grad(self.forward, None, self.weights, has_aux=True)

    def forward(self, images, labels, random_inputs):
        images = self.preprocess(images)
        if self.mix_and_erase is not None:
            images = self.mix_and_erase(images, random_inputs)
        logits = self.model(images, None if random_inputs is None else random_inputs[:, self.layout.erase_end :])
        losses = self.loss(logits, labels)
        if self.layout.mixes:
            weight = random_inputs[0, 5]
            losses = weight * losses + (1 - weight) * self.loss(logits, ops.flip(labels, (0,)))
        loss = ops.mean(losses)
        return loss * self.loss_scale if self.scales else loss, (loss, logits)

    def construct(self, images, labels, random_inputs):
        """(loss, hits, gradients); hits is float32 (3,): mean loss, top-1 and top-5 hits, where ties and NaN miss.

        Where overflows are skipped, the statistics (see ``_statistics``) of a batch that overflows are forgotten.
        """
        before = None if self.guarded is None else flat(self.guarded)
        (_, (loss, logits)), gradients = self.gradient(images, labels, random_inputs)
        if self.guarded is not None:
            set_flat(self.guarded, ops.where(all_finite(gradients), flat(self.guarded), before))
        if self.scales:
            gradients = for_each(ops.partial(ops.Mul(), 1 / self.loss_scale.value()), gradients)
        own = ops.gather_elements(logits, 1, labels.reshape(-1, 1))
        rank = ops.sum(ops.logical_not(logits < own).astype(ms.float32), 1) - 1
        hits = ops.stack([loss, ops.sum((rank < 1).astype(ms.float32)), ops.sum((rank < 5).astype(ms.float32))])
        return loss, hits, gradients


class TrainStep(nn.Cell):
    """Batch in, updated state out: ``step(images, labels, random_inputs)`` -> loss, a float32 scalar.

    images uint8 (batch, height, width, channels), labels int32 (batch,), random_inputs float32 (batch, layout.columns)
    or None when the layout has none. State lives in parameters; ``state()`` lists all that a resume needs. After
    every step it is the same on all ranks: gradients, batch-norm statistics and counts are averaged over them.

    With ``accumulation`` above 1, ``accumulate(...)`` takes the first batches of a step and this cell the last one.
    """

    def __init__(self, recipe: Recipe, model: MnasNet, layout: RandomLayout, rates: np.ndarray, world: int = 1):
        super().__init__(auto_prefix=False)
        self.model, self.world = model, world
        self.step = _state("state.step", 0, ms.int32)
        self.loss_scale = _state("state.loss_scale", recipe.loss_scale)
        self.good_steps = _state("state.good_steps", 0, ms.int32)
        self.sums = _state("state.sums", np.zeros(4, np.float32))  # loss, top-1, top-5, batches since the epoch began
        self.rates = ms.Parameter(ms.Tensor(rates), "rates", False)
        self.dynamic_scale = recipe.loss_scale_type != "fixed"
        self.skips_overflow = skips_overflow(recipe)
        self.clip = recipe.clip_value if recipe.clip_grad else None
        self.backward = Backward(recipe, model, layout, self.loss_scale)
        weights = self.backward.weights
        self.optimizer = create_optimizer(recipe, weights, model.depths())
        self.accumulation = recipe.gradient_accumulation_steps
        self.summed: Any = zeros_like("accumulated", weights) if self.accumulation > 1 else None
        self.statistics = _statistics(model)
        self.averaged = ms.ParameterTuple(model.get_parameters())
        self.ema = ms.ParameterTuple(_copy("ema", p) for p in self.averaged) if recipe.ema else None
        self.ema_decay, self.ema_ramp = recipe.ema_decay, recipe.ema_ramp
        self.smoothed, self.copied = (_averages(self.ema or (), self.averaged, ranges) for ranges in (False, True))
        self.reduce_gradients = nn.DistributedGradReducer(weights) if world > 1 else None
        self.all_reduce: Any = ops.AllReduce() if world > 1 else None

    def state(self) -> list[ms.Parameter]:
        """Parameters that make up the training state, model first."""
        own = [self.step, self.loss_scale, self.good_steps, self.sums]
        slots = [p for p in self.optimizer.get_parameters() if p.name.startswith("optimizer.")]
        return [*self.averaged, *own, *slots, *(self.ema or ())]

    def steps_done(self) -> int:
        """Updates of the weights so far."""
        return int(self.step.asnumpy())

    def set_steps(self, steps: int) -> None:
        """Move the schedule to another position."""
        self.step.set_data(ms.Tensor(steps, ms.int32))

    def start_epoch(self) -> None:
        """Forget the sums of the epoch before."""
        self.sums.set_data(ms.Tensor(np.zeros(4, np.float32)))

    def convert_sums(self, batches: float, images: float) -> None:
        """Restate the sums for ``batches`` times as many batches of ``images`` times as many images."""
        factors = np.array([batches, batches * images, batches * images, batches], np.float32)
        self.sums.set_data(ms.Tensor(self.sums.asnumpy() * factors))

    def epoch_metrics(self, device_batch: int) -> dict[str, float]:
        """Mean loss and accuracies (percent) of the training batches since the epoch began."""
        loss, top1, top5, batches = self.sums.asnumpy().astype(float)
        share = 100 / (max(batches, 1) * device_batch)
        return {"train_loss": loss / max(batches, 1), "train_top1": top1 * share, "train_top5": top5 * share}

    def weight_sets(self) -> dict[str, dict[str, np.ndarray]]:
        """The model's tensors by name: raw ones under "", averaged ones (with EMA) under "_ema"."""
        names = [parameter.name for parameter in self.averaged]
        sets = {"": self.averaged} | ({"_ema": self.ema} if self.ema is not None else {})
        return {key: {n: p.asnumpy() for n, p in zip(names, values, strict=True)} for key, values in sets.items()}

    def construct(self, images, labels, random_inputs=None):
        loss, hits, gradients = self.backward(images, labels, random_inputs)
        if self.summed is not None:
            gradients = self.take_summed(gradients)
        if self.reduce_gradients is not None:
            gradients = self.reduce_gradients(gradients)
            loss, hits = self.share(loss, hits)
        finite = all_finite(gradients) if self.skips_overflow else None
        self.update(gradients, finite)
        if self.dynamic_scale:
            self.rescale(finite)
        self.count(hits)
        return loss

    def update(self, gradients, applies=None):
        """Clip, optimize, average, advance; none of it where ``applies``, a bool scalar, is False.

        The graph does not branch: where it does, MindSpore 2.10 on the CPU works on copies of parameters that neither
        ``set_data`` nor ``asnumpy`` reaches afterwards.
        """
        if self.clip is not None:
            gradients = clip(gradients, self.clip)
        step = self.step.value()
        self.optimizer(self.rates[step], step, gradients, applies)
        if self.ema is not None:
            decay = self.ema_decay
            if self.ema_ramp:
                count = step.astype(ms.float32)
                decay = ops.minimum((1 + count) / (10 + count), ms.Tensor(self.ema_decay, ms.float32))
            share = 1 - decay if applies is None else (1 - decay) * applies.astype(ms.float32)
            for_each(ops.partial(_approach, share), *self.smoothed)
            if len(self.copied) > 0:
                for_each(ops.Assign(), *self.copied)
        ops.assign_add(self.step, 1 if applies is None else applies.astype(ms.int32))

    def rescale(self, finite):
        """Halve the loss scale on overflow, double it after ``SCALE_WINDOW`` good steps in a row."""
        good = ops.select(finite, self.good_steps + 1, ops.zeros_like(self.good_steps))
        grown = good >= SCALE_WINDOW
        scale = ops.select(finite, self.loss_scale.value(), self.loss_scale / SCALE_FACTOR)
        scale = ops.select(ops.logical_and(grown, scale < SCALE_LIMIT), scale * SCALE_FACTOR, scale)
        ops.assign(self.loss_scale, ops.maximum(scale, ms.Tensor(1.0, ms.float32)))
        ops.assign(self.good_steps, ops.select(grown, ops.zeros_like(good), good))

    def count(self, hits):
        ops.assign_add(self.sums, ops.cat([hits, ops.ones_like(hits[:1])]))

    def take_summed(self, gradients):
        """Mean over the accumulated batches and this one; the accumulators start again from zero."""
        return for_each(ops.partial(_take_mean, self.accumulation), self.summed, gradients)

    def share(self, loss, hits):
        """Average batch-norm statistics, loss and counts over the ranks in one collective."""
        mean = self.all_reduce(ops.cat([hits, loss.reshape(1), flat(self.statistics)])) / self.world
        set_flat(self.statistics, mean[4:])
        return mean[3], mean[:3]


class Accumulate(nn.Cell):
    """The first batches of a step: adds their gradients to the accumulators of a ``TrainStep``."""

    def __init__(self, step: TrainStep):
        super().__init__(auto_prefix=False)
        self.train_step, self.backward, self.summed = step, step.backward, step.summed

    def construct(self, images, labels, random_inputs=None):
        loss, hits, gradients = self.backward(images, labels, random_inputs)
        for_each(ops.AssignAdd(), self.summed, gradients)
        if self.train_step.all_reduce is not None:
            hits = self.train_step.all_reduce(hits) / self.train_step.world
        self.train_step.count(hits)
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


def _copy(prefix: str, parameter: ms.Parameter) -> ms.Parameter:
    return ms.Parameter(ms.Tensor(parameter.asnumpy().copy()), f"{prefix}.{parameter.name}", False)


def _statistics(model: MnasNet) -> ms.ParameterTuple:
    """What a forward pass in training changes: statistics of batch norms, observed ranges of activations."""
    endings = (".moving_mean", ".moving_variance")
    return ms.ParameterTuple(
        p for p in model.get_parameters() if p.name.endswith(endings) or p.name.startswith(PREFIXES)
    )


def _averages(ema: Sequence[ms.Parameter], averaged: Sequence[ms.Parameter], ranges: bool) -> tuple[Any, ...]:
    """Averages and what they are of: of ``ranges``, which average over batches already, or of all else."""
    pairs = [pair for pair in zip(ema, averaged, strict=False) if pair[1].name.startswith(PREFIXES) == ranges]
    return tuple(ms.ParameterTuple(column) for column in zip(*pairs, strict=True))


def _approach(share, average, value):
    """Move ``average`` towards ``value`` by a share of the way."""
    return ops.AssignAdd()(average, ops.Mul()(share, ops.Sub()(value, average)))


def _take_mean(count, total, last):
    mean = ops.Div()(ops.Add()(total, last), count)
    ops.Assign()(total, ops.ZerosLike()(total))
    return mean
