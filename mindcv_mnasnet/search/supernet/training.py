"""Training of shared weights: every step trains one candidate drawn evenly, or a sandwich of three."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mindcv_mnasnet.errors import DivergedError, UserError
from mindcv_mnasnet.model.parameters import load_parameters
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.run.checkpoint import read_checkpoint, write_checkpoint
from mindcv_mnasnet.search.supernet.choices import Choices
from mindcv_mnasnet.search.supernet.network import SuperNetwork
from mindcv_mnasnet.train.loss import Loss
from mindcv_mnasnet.train.preprocess import Preprocess
from mindcv_mnasnet.train.tensor_lists import for_each, zeros_like

_UNDECAYED = (".gamma", ".beta", ".bias")
_KIND = "supernet"


class Batches(Protocol):
    """An epoch's batches: images uint8 (batch, height, width, channels), labels int32 (batch,); all of one size."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Any, Any]]: ...


@dataclass(frozen=True)
class SuperTraining:
    """How to train: SGD with Nesterov's momentum and L2 decay of weights, cosine rate from ``lr`` to 0.

    ``sandwich``: every step sums the gradients of the largest network, the smallest and a random one (Yu and Huang
    2019, https://arxiv.org/abs/1903.05134), at three times the cost.
    """

    epochs: int
    lr: float = 0.1
    warmup_epochs: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1
    sandwich: bool = False
    seed: int = 0

    def rate(self, epochs: float) -> float:
        """The learning rate after so many epochs."""
        if epochs < self.warmup_epochs:
            return self.lr * epochs / self.warmup_epochs
        left = self.epochs - self.warmup_epochs
        return self.lr * 0.5 * (1 + math.cos(math.pi * (epochs - self.warmup_epochs) / left))

    def candidates(self, choices: Choices, step: int) -> list[Network]:
        """The networks that step ``step``, from 0, trains: always the same ones."""
        drawn = choices.draw(np.random.default_rng([self.seed, step]))
        return [choices.largest, choices.smallest, drawn] if self.sandwich else [drawn]


class SuperStep(nn.Cell):
    """Gradients of one candidate, added to those of the others of the same step; ``Update`` then applies them."""

    def __init__(self, supernet: SuperNetwork, smoothing: float, mean: Sequence[float], std: Sequence[float]):
        super().__init__(auto_prefix=False)
        self.supernet = supernet
        self.preprocess = Preprocess(mean, std)
        self.loss = Loss("CE", smoothing, supernet.choices.base.num_classes)
        self.weights = ms.ParameterTuple(supernet.trainable_params())
        self.summed = zeros_like("summed", self.weights)
        self.gradient = ops.value_and_grad(self.forward, None, self.weights)

    def forward(self, images, labels, *masks):
        return ops.mean(self.loss(self.supernet(self.preprocess(images), *masks), labels))

    def construct(self, images, labels, *masks):
        loss, gradients = self.gradient(images, labels, *masks)
        for_each(ops.AssignAdd(), self.summed, gradients)
        return loss


class Update(nn.Cell):
    """``update(rate)``: moves what the step's candidates used; momentum and decay do not move the rest.

    What is unused has a gradient of exactly 0, as masks multiply it by 0, and is known by that. So have units that
    no image of the batch reaches; they rest for a step.
    """

    def __init__(self, step: SuperStep, momentum: float, weight_decay: float):
        super().__init__(auto_prefix=False)
        self.weights, self.summed, self.momentum = step.weights, step.summed, momentum
        self.moments = zeros_like("momentum", self.weights)
        self.decays = tuple(0.0 if p.name.endswith(_UNDECAYED) else weight_decay for p in self.weights)

    def construct(self, rate):
        for_each(ops.partial(self.one_update, rate), self.decays, self.weights, self.summed, self.moments)
        return rate

    def one_update(self, rate, decay, weight, summed, moment):
        """Move one weight, and forget its gradient."""
        gradient = summed.value()
        used = (gradient != 0).astype(ms.float32)
        gradient = (gradient + decay * weight) * used
        ops.assign(moment, (self.momentum * used + (1 - used)) * moment + gradient)
        ops.assign_sub(weight, rate * (gradient + self.momentum * used * moment))
        return ops.assign(summed, ops.zeros_like(gradient))


class SuperTrainer:
    """Trains a supernet, epoch by epoch, with a checkpoint after each.

    Args:
        batches: the batches of an epoch, counted from 0; for a resume to give the same bits they have to be the same.
        mean, std: of pixels in [0, 255], per channel (``Recipe.pixel_statistics``).
        checkpoint: a file to write after every epoch.
        resume: go on from that file; without a resume it may not be there.
    Raises:
        UserError: the file is there, or not, or of another supernet, training or way of counting pixels.
    """

    def __init__(
        self,
        supernet: SuperNetwork,
        batches: Callable[[int], Batches],
        training: SuperTraining,
        mean: Sequence[float],
        std: Sequence[float],
        checkpoint: Path | None = None,
        resume: bool = False,
    ):
        if training.epochs <= training.warmup_epochs:
            raise UserError(f"epochs is {training.epochs}, but must be above warmup_epochs {training.warmup_epochs:g}")
        self.supernet, self.batches, self.training, self.checkpoint = supernet, batches, training, checkpoint
        self.step = SuperStep(supernet, training.label_smoothing, mean, std)
        self.update = Update(self.step, training.momentum, training.weight_decay)
        self.losses: list[float] = []  # means over the epochs done
        pixels = {"mean": [float(one) for one in mean], "std": [float(one) for one in std]}
        self._meta = {"choices": supernet.choices.to_dict(), "training": asdict(training), "pixels": pixels}
        if resume:
            self._resume()
        elif checkpoint is not None and checkpoint.exists():
            raise UserError(f"{checkpoint} is there already; resume it or name another file")

    def run(
        self,
        note: Callable[[int, float], None] = lambda epoch, loss: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> list[float]:
        """Train to the last epoch; ``note`` hears of each: its number from 1 and its mean loss, which are returned.

        ``stopped`` is asked before every epoch; a resume goes on from there.

        Raises:
            DivergedError: the loss is not finite.
            JobError: the checkpoint cannot be written.
        """
        for epoch in range(len(self.losses), self.training.epochs):
            if stopped():
                break
            loss = self._epoch(epoch)
            if not math.isfinite(loss):
                raise DivergedError(f"the supernet's loss is not finite in epoch {epoch + 1}; try a lower lr")
            self.losses.append(loss)
            if self.checkpoint is not None:
                tensors = {parameter.name: parameter.asnumpy() for parameter in self._state()}
                write_checkpoint(self.checkpoint, tensors, {"kind": _KIND, "losses": self.losses, **self._meta})
            note(epoch + 1, loss)
        return self.losses

    def _epoch(self, epoch: int) -> float:
        self.supernet.set_train()
        losses: list[Any] = []
        batches = self.batches(epoch)
        count = len(batches)
        for index, (images, labels) in enumerate(batches):
            networks = self.training.candidates(self.supernet.choices, epoch * count + index)
            for network in networks:
                losses.append(self.step(_tensor(images), _tensor(labels), *self.supernet.masks(network)))
            rate = self.training.rate(epoch + (index + 1) / (count + 1))
            self.update(ms.Tensor(rate, ms.float32))
        if not losses:
            raise UserError(f"epoch {epoch + 1} of the supernet's training has no batches")
        return float(np.mean([loss.asnumpy() for loss in losses]))

    def _state(self) -> list[ms.Parameter]:
        """All that a resume needs: batch-norm statistics are not among it, as training does not read them."""
        return [*self.step.weights, *self.update.moments]

    def _resume(self) -> None:
        if self.checkpoint is None:
            raise UserError("a resume needs the checkpoint to go on from")
        stored = read_checkpoint(self.checkpoint)
        if stored.meta.get("kind") != _KIND:
            raise UserError(f"{self.checkpoint} is not a supernet's checkpoint")
        for name, own in self._meta.items():
            if stored.meta[name] != own:
                raise UserError(f"{self.checkpoint} was trained with other {name}: {stored.meta[name]}, not {own}")
        load_parameters(self._state(), stored.tensors, str(self.checkpoint))
        self.losses = list(stored.meta["losses"])


def _tensor(values: Any) -> ms.Tensor:
    return values if isinstance(values, ms.Tensor) else ms.Tensor(values)
