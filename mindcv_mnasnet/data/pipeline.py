"""Images of an index to batches: threads read and decode in our order, MindSpore's resize and augment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice, repeat
from typing import Any

import mindspore.dataset as ds
import numpy as np

from mindcv_mnasnet.data.augment import Operations, eval_operations, train_operations
from mindcv_mnasnet.data.decoder import Decoder, RandomCrop, whole_image
from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.reader import Pass, Reader
from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.errors import JobError
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import Recipe


@dataclass(frozen=True)
class Preparation:
    """How encoded images become what a network takes.

    ``decoders`` turns a random stream into one decoder after the other, for training; ``train`` and ``evaluate`` are
    the operations on decoded pixels; ``whole`` decodes in evaluation.
    """

    decoders: Callable[[np.random.Generator], Iterator[Decoder]]
    train: Operations
    evaluate: Operations
    whole: Decoder = whole_image

    @classmethod
    def for_classes(cls, recipe: Recipe) -> Preparation:
        """Random crops in training and central ones in evaluation, as a classifier's recipe says."""
        channels = recipe.in_channels
        return cls(RandomCrop(recipe).decoders, train_operations(recipe, channels), eval_operations(recipe, channels))


def train_batches(
    image_index: ImageIndex,
    recipe: Recipe,
    plan: Plan,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    preparation: Preparation | None = None,
) -> Batches:
    """Epoch ``epoch`` (from 0) on rank ``rank`` of ``world``: ``plan.batches_per_epoch`` batches.

    The order depends on the recipe's seed and the epoch alone; device batch b of rank r is the r-th part of the b-th
    group of device_batch * world images. Crops depend on seed, epoch and rank; iterating twice gives the same bits as
    long as ``plan.workers`` is the same. ``preparation`` None is a classifier's.
    """
    return train_stream(image_index, recipe, plan, epoch, epoch + 1, rank, world, None, preparation)


def train_stream(
    image_index: ImageIndex,
    recipe: Recipe,
    plan: Plan,
    first_epoch: int,
    last_epoch: int,
    rank: int = 0,
    world: int = 1,
    part: range | None = None,
    preparation: Preparation | None = None,
) -> Batches:
    """Epochs ``first_epoch`` up to, without, ``last_epoch`` as one pipeline, for devices that sink their data.

    Order and crops are those of :func:`train_batches`; flips and colors are so for the first epoch only.

    Args:
        part: numbers of the batches that are taken of each epoch; None takes all.
        preparation: None is a classifier's.
    """
    batches, batch = plan.batches_per_epoch, plan.device_batch
    prepared = preparation or Preparation.for_classes(recipe)
    part = range(batches) if part is None else part
    places = slice(part.start * batch, part.stop * batch)

    def pass_of(epoch: int) -> tuple[np.ndarray, Iterator[Decoder]]:
        order = epoch_order(len(image_index), recipe.seed, epoch, recipe.shuffle)
        decoders = prepared.decoders(np.random.Generator(np.random.Philox(_seed(recipe.seed, epoch, rank))))
        return _share(order, batches, batch, rank, world)[places], islice(decoders, places.start, None)

    passes: list[Pass] = [partial(pass_of, epoch) for epoch in range(first_epoch, last_epoch)]
    skip = recipe.on_bad_image == "skip"
    source = Reader(image_index, passes, len(part) * batch, skip, plan.workers, refill=True)
    seed = _seed(recipe.seed, first_epoch, rank)
    return Batches(source, prepared.train, batch, plan.workers, recipe.in_channels, seed)


def eval_batches(
    image_index: ImageIndex,
    recipe: Recipe,
    plan: Plan,
    rank: int = 0,
    world: int = 1,
    preparation: Preparation | None = None,
) -> Batches:
    """This rank's share of an evaluation: over all ranks every image once, and as many batches on each.

    Labels are -1 for padding and, with ``on_bad_image`` skip, for broken images.
    """
    count = -(-len(image_index) // (plan.val_batch * world))
    padded = np.full(count * plan.val_batch * world, -1)
    padded[: len(image_index)] = np.arange(len(image_index))
    own = _share(padded, count, plan.val_batch, rank, world)
    skip = recipe.on_bad_image == "skip"
    prepared = preparation or Preparation.for_classes(recipe)
    source = Reader(image_index, [lambda: (own, repeat(prepared.whole))], len(own), skip, plan.workers, refill=False)
    return Batches(source, prepared.evaluate, plan.val_batch, plan.workers, recipe.in_channels, seed=0)


def sound_batches(
    image_index: ImageIndex, recipe: Recipe, preparation: Preparation | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """An evaluation on this device alone without padding and broken images: uint8 (N, H, W, C), first labels (N,)."""
    plan = Plan.make(recipe, None, len(image_index), 1, runtime.usable_cores())
    for images, labels in eval_batches(image_index, recipe, plan, preparation=preparation):
        first = labels.asnumpy().reshape(len(labels), -1)[:, 0]
        yield images.asnumpy()[first >= 0], first[first >= 0]


def epoch_order(images: int, seed: int, epoch: int, shuffle: bool = True) -> np.ndarray:
    """The order of an epoch: a permutation of ``images`` indices that any machine repeats."""
    if not shuffle:
        return np.arange(images)
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(images)


def _share(order: np.ndarray, batches: int, batch: int, rank: int, world: int) -> np.ndarray:
    """One rank's indices; an order too short for all batches starts again."""
    whole = np.resize(order, batches * batch * world)
    return whole.reshape(batches, world, batch)[:, rank].ravel()


def _seed(seed: int, epoch: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])


class Batches:
    """Batches of images, uint8 (B, H, W, C), and labels, int32 (B,) or (B, M), as MindSpore tensors.

    Attributes:
        dataset: the MindSpore dataset, for sinking; start it inside :meth:`seeded`.
    """

    def __init__(self, source: Reader, operations: Operations, batch: int, workers: int, channels: int, seed: int):
        self._source = source
        self._batch = batch
        self._seed = seed
        dataset: Any = ds.GeneratorDataset(
            source, ["image", "label"], shuffle=False, num_parallel_workers=1, python_multiprocessing=False
        )
        dataset = dataset.map(operations, "image", num_parallel_workers=workers, python_multiprocessing=False)
        dataset = dataset.batch(batch, drop_remainder=True, num_parallel_workers=1)
        if channels == 1:
            dataset = dataset.map(lambda images: images[..., None], "image", num_parallel_workers=1)
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self._source) // self._batch

    def close(self) -> None:
        """Read no further: whoever still asks, such as a device's queue, gets no more images."""
        self._source.closed = True

    @property
    def skipped(self) -> list[str]:
        """What was wrong with each broken image met so far, one sentence per file."""
        return sorted(self._source.broken.values())

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Iterate from the start.

        Raises:
            JobError: a broken image; the message names the file.
        """
        with self.seeded():
            iterator = self.dataset.create_tuple_iterator(num_epochs=1, output_numpy=False, do_copy=False)
        try:
            yield from iterator
        except RuntimeError as error:
            raise self.explain(error) from error
        finally:
            iterator.stop()

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Within it, a pipeline that starts draws the random numbers of this epoch and rank."""
        before = ds.config.get_seed()
        ds.config.set_seed(self._seed)
        try:
            yield
        finally:
            ds.config.set_seed(before)

    def explain(self, error: RuntimeError) -> JobError:
        """The sentence for an error that MindSpore raised while it read this data."""
        if self._source.failure is not None:
            return self._source.failure
        lines = [line for line in str(error).splitlines() if line.startswith("[ERROR]")] or [str(error)]
        return JobError(f"the input pipeline failed: {lines[0]}")
