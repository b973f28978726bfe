"""How batches reach the compiled step: one call per batch, or a queue on the device (data sinking)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import mindspore as ms
import mindspore.dataset as ds
import numpy as np

from mindcv_mnasnet.data.pipeline import Batches
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.train.compile_cache import CompileCache
from mindcv_mnasnet.train.random_inputs import RandomLayout, draw_inputs
from mindcv_mnasnet.train.step import Accumulate, TrainStep


class Feed:
    """Runs batches through the step and says how long it waited for them.

    ``seconds_waiting`` and ``seconds_total`` grow as batches are run; the engine takes differences.
    """

    def __init__(
        self,
        step: TrainStep,
        layout: RandomLayout,
        plan: Plan,
        seed: int,
        rank: int,
        jit_level: str | None = None,
        graphs: CompileCache | None = None,
    ):
        self._jit = ms.JitConfig() if jit_level is None else ms.JitConfig(jit_level=jit_level)
        self._step, self._layout, self._plan = step, layout, plan
        self._seed, self._rank = seed, rank
        self._accumulate = Accumulate(step) if plan.accumulation > 1 else None
        self._graphs = graphs
        self._compiled: list[Any] = []
        self.seconds_waiting = 0.0
        self.seconds_total = 0.0

    def _call(self, cell: Any, *inputs: Any) -> Any:
        if cell in self._compiled or self._graphs is None:
            return cell(*inputs)
        self._compiled.append(cell)
        with self._graphs.first_call(cell, *inputs):
            return cell(*inputs)

    def _random_inputs(self, batch: int) -> np.ndarray | None:
        if not self._layout.columns:
            return None
        return draw_inputs(self._layout, self._plan.device_batch, self._seed, batch, self._rank)

    def run(self, batches: Batches, epoch: int, start: int) -> Iterator[tuple[int, Any]]:
        """Run an epoch's batches from number ``start`` on; yields (batches done in this epoch, loss tensor).

        The batches before ``start`` are read and thrown away, so that the random crops and flips of those after it
        are what they would have been without the interruption.
        """
        plan, offset = self._plan, epoch * self._plan.batches_per_epoch
        source = iter(batches)
        for _ in range(start):
            next(source)
        for done in range(start + 1, plan.batches_per_epoch + 1):
            began = time.perf_counter()
            images, labels = next(source)
            waited = time.perf_counter()
            random_inputs = self._random_inputs(offset + done - 1)
            ends_step = done % plan.accumulation == 0
            cell = self._step if ends_step or self._accumulate is None else self._accumulate
            loss = self._call(cell, images, labels, None if random_inputs is None else ms.Tensor(random_inputs))
            self.seconds_waiting += waited - began
            self.seconds_total += time.perf_counter() - began
            if ends_step:
                yield done, loss
        for _ in source:  # lets the pipeline say what it skipped
            pass

    def sink(self, batches: Batches, first_batch: int, sink_size: int) -> Iterator[tuple[int, Any]]:
        """Run all of ``batches`` with the data on the device, ``sink_size`` steps a call; yields (steps done, loss).

        Written from the documentation of ``mindspore.data_sink`` and not run here: it needs an NPU.
        """
        dataset = batches.dataset
        if self._layout.columns:
            numbers = range(first_batch, first_batch + len(batches))
            source = ds.GeneratorDataset(
                _RandomSource(self, numbers), ["random_inputs"], shuffle=False, num_parallel_workers=1
            )
            dataset = ds.zip((dataset, source))
        with batches.seeded():
            sunk = ms.data_sink(self._step, dataset, sink_size=sink_size, jit_config=self._jit)
            for done in range(sink_size, len(batches) + 1, sink_size):
                began = time.perf_counter()
                loss = sunk()
                self.seconds_total += time.perf_counter() - began
                yield done, loss


class _RandomSource:
    """Random access to the random_inputs of a range of batches, for a data set."""

    def __init__(self, feed: Feed, numbers: range):
        self._feed, self._numbers = feed, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> np.ndarray:
        drawn = self._feed._random_inputs(self._numbers[index])
        assert drawn is not None
        return drawn


class Throughput:
    """Images per second, and the share of time spent waiting for input, between log lines and over the job."""

    def __init__(self, global_batch: int):
        self._global_batch = global_batch
        self._begin = self._mark = (0.0, 0.0)
        self._fresh = True
        self.steps = 0  # since ``start``, which leaves compilation out
        self.seconds = 0.0
        self.waiting = 0.0

    def start(self, feed: Feed) -> None:
        """The first step is over; measuring begins."""
        self._begin = self._mark = (feed.seconds_total, feed.seconds_waiting)

    def lap(self, feed: Feed, steps: int) -> tuple[float, float]:
        """(images per second, percent of time waiting) over the last ``steps`` steps; NaN right after compilation."""
        steps -= self._fresh
        self._fresh = False
        seconds, waiting = feed.seconds_total - self._mark[0], feed.seconds_waiting - self._mark[1]
        self._mark = (feed.seconds_total, feed.seconds_waiting)
        self.steps += steps
        self.seconds, self.waiting = self._mark[0] - self._begin[0], self._mark[1] - self._begin[1]
        return _rates(steps * self._global_batch, seconds, waiting)

    def overall(self) -> tuple[float, float]:
        """The same over all laps."""
        return _rates(self.steps * self._global_batch, self.seconds, self.waiting)


def _rates(images: int, seconds: float, waiting: float) -> tuple[float, float]:
    if seconds <= 0 or images <= 0:
        return float("nan"), float("nan")
    return images / seconds, 100 * waiting / seconds
