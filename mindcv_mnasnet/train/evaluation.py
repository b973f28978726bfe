"""Evaluation of one network on one data set: every image counted once, over any number of devices."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from tqdm import tqdm

from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.pipeline import Batches, eval_batches
from mindcv_mnasnet.devices import runtime, simulation
from mindcv_mnasnet.devices.runtime import Runtime
from mindcv_mnasnet.errors import JobError
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.parameters import load_parameters
from mindcv_mnasnet.model.quantization import Quantization
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.train.metrics import Counts, count
from mindcv_mnasnet.train.step import EvalStep


class Evaluator:
    """A network compiled once for evaluation, whose weights can be changed."""

    def __init__(self, network: Network, recipe: Recipe, machine: Runtime):
        self._recipe, self._machine = recipe, machine
        self._model = create_model(network, quantization=Quantization.of(recipe), kernels=recipe.kernels)
        if machine.device != "CPU" and recipe.val_amp_level != "O0":
            runtime.mixed_precision(self._model, recipe.val_amp_level, recipe.amp_dtype)
        self._step = EvalStep(self._model, *recipe.pixel_statistics())
        self.images_per_second = float("nan")
        self.skipped = 0

    def load(self, weights: Mapping[str, np.ndarray], origin: str = "the training state") -> None:
        """Take over weights by name.

        Raises:
            UserError: they do not fit the network.
        """
        load_parameters(self._model.get_parameters(), weights, origin)

    def answer(self, images: np.ndarray) -> np.ndarray:
        """Float32 logits (N, classes) of uint8 images (N, H, W, C), all at once."""
        return np.asarray(self._step(ms.Tensor(images)).asnumpy())

    def run(self, image_index: ImageIndex, plan: Plan) -> Counts:
        """Evaluate on all ranks together; every rank returns the counts of the whole data set.

        Raises:
            JobError: not every image was counted.
        """

        def classify(images: ms.Tensor) -> np.ndarray:
            return self._step(images).asnumpy()

        counted = count_images(classify, image_index, self._recipe, plan, self._machine)
        self.skipped, self.images_per_second = counted.skipped, counted.images_per_second
        return counted.counts


def with_progress(batches: Batches, rank: int) -> Iterator[tuple[ms.Tensor, ms.Tensor]]:
    """The batches one by one, with a bar if rank 0 has a terminal and it takes long."""
    shown = rank == 0 and sys.stderr.isatty()
    yield from tqdm(batches, "validating", len(batches), leave=False, disable=not shown, delay=2)


@dataclass(frozen=True)
class Counted:
    """What was counted, and how many broken images were skipped, over all ranks."""

    counts: Counts
    skipped: int
    images_per_second: float


def count_images(
    classify: Callable[[ms.Tensor], np.ndarray], image_index: ImageIndex, recipe: Recipe, plan: Plan, machine: Runtime
) -> Counted:
    """Count the right answers of ``classify`` (uint8 (N, H, W, C) to logits) on every image once, over all ranks.

    Raises:
        JobError: not every image was counted.
    """
    rank, world = machine.rank, machine.world
    batches = eval_batches(image_index, recipe, plan, rank, world)
    own = Counts()
    began = time.perf_counter()
    for images, labels in with_progress(batches, rank):
        own += count(classify(images), labels.asnumpy())
    sums = np.array([own.seen, own.top1_hits, own.top5_hits, len(batches.skipped)], np.int32)
    whole = runtime.sum_over_ranks(sums, world)
    loss = runtime.sum_over_ranks(np.array([own.loss], np.float32), world)
    speed = float(whole[0]) / (time.perf_counter() - began)
    labeled = int((image_index.labels.reshape(len(image_index), -1) >= 0).any(1).sum())
    if whole[0] + whole[3] != labeled and not simulation.simulated():
        raise JobError(f"{whole[0]} of {labeled} validation images were counted and {whole[3]} skipped")
    counts = Counts(int(whole[0]), int(whole[1]), int(whole[2]), float(loss[0]) if world > 1 else own.loss)
    return Counted(counts, int(whole[3]), speed)
