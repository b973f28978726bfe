"""How batches reach the compiled step: one call per batch, or a queue on the device (data sinking)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import mindspore.dataset as ds
import numpy as np

from mindcv_mnasnet.data.pipeline import Batches
from mindcv_mnasnet.devices import simulation
from mindcv_mnasnet.errors import JobError
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
        self._sunk: list[Any] = []  # data sets that the device pulls from
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

    def sink(self, parts: Sequence[Sunk], epochs: range) -> Iterator[tuple[int, Any]]:
        """Run whole epochs with the data on the device, in each the calls of one part after the other.

        Yields (steps done since the first epoch began, loss of the call's last step). What is documented of
        ``mindspore.data_sink`` and what its source says is all that is known: no NPU was at hand.

        Raises:
            JobError: a call did not make the steps that it should make.
        """
        queues = [self._queue(part, epochs) for part in parts]
        done = 0
        try:
            for epoch in epochs:
                for call, part in zip(queues, parts, strict=True):
                    for number in range(part.calls):
                        first = epoch == epochs[0] and number == 0
                        before = self._step.steps_done() if first else 0
                        began = time.perf_counter()
                        loss = call()
                        self.seconds_total += time.perf_counter() - began
                        if first:
                            self._require_steps(before, part.steps)
                        done += part.steps
                        yield done, loss
        finally:
            for part in parts:
                part.batches.close()
            for dataset in self._sunk:  # else their threads ask on while the interpreter ends, and fail at length
                if queue := getattr(dataset, "__transfer_dataset__", None):
                    queue.release()
            self._sunk = []

    def _queue(self, part: Sunk, epochs: range) -> Any:
        dataset = part.batches.dataset
        if self._layout.columns:
            numbers = [epoch * self._plan.batches_per_epoch + batch for epoch in epochs for batch in part.numbers]
            columns = _RandomSource(self, numbers)
            source = ds.GeneratorDataset(columns, ["random_inputs"], shuffle=False, num_parallel_workers=1)
            dataset = ds.zip((dataset, source))
        self._sunk.append(dataset)
        with part.batches.seeded():
            return ms.data_sink(self._step, dataset, sink_size=part.steps, jit_config=self._jit)

    def _require_steps(self, before: int, steps: int) -> None:
        """The first call of each kind tells whether MindSpore loops as it should at this jit level."""
        if simulation.simulated():
            return
        made = self._step.steps_done() - before
        if made == steps or (self._step.skips_overflow and 0 <= made < steps):
            return
        raise JobError(
            f"a sunk call of {steps} steps made {made}: with this MindSpore, device and jit_level the loop is not left "
            "to the device as it should be; say --dataset_sink_mode False, or another --jit_level"
        )


@dataclass(frozen=True)
class Sunk:
    """The part of every epoch that the device takes in calls of ``steps`` steps.

    Attributes:
        batches: those of all epochs, one after the other.
        numbers: which batches of an epoch they are.
    """

    batches: Batches
    numbers: range
    steps: int

    @property
    def calls(self) -> int:
        """Calls per epoch."""
        return len(self.numbers) // self.steps


class _RandomSource:
    """Random access to the random_inputs of batches, for a data set."""

    def __init__(self, feed: Feed, numbers: Sequence[int]):
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
        self._compiling = 0
        self.steps = 0  # since ``start``, which leaves compilation out
        self.seconds = 0.0
        self.waiting = 0.0

    def start(self, feed: Feed, steps: int = 1) -> None:
        """The first call is over, of ``steps`` steps that are not counted; measuring begins."""
        self._begin = self._mark = (feed.seconds_total, feed.seconds_waiting)
        self._compiling = steps

    def lap(self, feed: Feed, steps: int) -> tuple[float, float]:
        """(images per second, percent of time waiting) over the last ``steps`` steps; NaN right after compilation."""
        steps -= self._compiling
        self._compiling = 0
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
