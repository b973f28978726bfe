"""Training and evaluation: the only loops."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mindcv_mnasnet import runtime
from mindcv_mnasnet.data.pipeline import train_batches, train_stream
from mindcv_mnasnet.errors import JobError
from mindcv_mnasnet.evaluation import Evaluator
from mindcv_mnasnet.feed import Feed, Pace
from mindcv_mnasnet.job import Job, prepare
from mindcv_mnasnet.log import RunLog
from mindcv_mnasnet.recipe import Recipe
from mindcv_mnasnet.summary import summarise

STOP_EVERY_STEPS = 10  # how often processes agree on whether to stop


def fit(recipe: Recipe) -> dict[str, Any]:
    """Train as the recipe says and return the run's summary (also in ``summary.json``).

    SIGTERM and Ctrl-C end training after the running step with a checkpoint; the summary then says ``stopped``.

    Raises:
        UserError: something in the recipe, the data or the weights does not fit.
        JobError: training failed: a non-finite loss, a broken picture, a full disk.
    """
    job = prepare(recipe)
    resumed = job.step.steps_done() if recipe.resume else None
    folder = job.folder.path if job.folder else "."
    log = RunLog(folder, job.runtime.rank, resumed, job.recipe.tensorboard, total_steps=job.plan.total_steps)
    with log, _stop_signal() as stop:
        for note in job.notes:
            log.message(note)
        if job.folder:
            job.folder.note_session(runtime.describe())
            log.message(f"run folder {job.folder.path}")
        training = _Training(job, log, stop)
        training.run()
        summary = summarise(job, training.pace, training.compile_seconds, training.metrics, bool(stop))
        if job.folder:
            job.folder.write_summary(summary)
            log.message(_closing_words(job, summary))
            job.folder.unlock()
        return summary


class _Training:
    """The loop, and what it keeps that no resume needs."""

    def __init__(self, job: Job, log: RunLog, stop: list[int]):
        self.job, self.log, self.stop = job, log, stop
        self.feed = Feed(job.step, job.layout, job.plan, job.recipe.seed, job.runtime.rank)
        self.evaluator = Evaluator(job.network, job.recipe, job.runtime) if job.val is not None else None
        self.pace = Pace(job.plan.global_batch)
        self.metrics: dict[str, Any] = {}
        self.compile_seconds = 0.0
        self._losses: list[Any] = []
        self._skipped: list[str] = []

    def run(self) -> None:
        """Train from where the job stands to its last epoch, or to a stop."""
        job = self.job
        for job.batches, loss in self._steps():
            self._after_step(loss)
            if job.batches % job.plan.batches_per_epoch == 0:
                self._end_epoch()
            elif job.plan.saves(job.attempted_steps):
                self._save()
            if self._agreed_to_stop():
                break
        if self.stop and job.batches % job.plan.batches_per_epoch:
            self._save()

    def _steps(self) -> Iterator[tuple[int, Any]]:
        """Run steps; yields (batches done in the whole job, loss) after each."""
        job, plan, feed = self.job, self.job.plan, self.feed
        rank, world = job.runtime.rank, plan.world_size
        per_epoch = plan.batches_per_epoch
        for epoch in range(job.batches // per_epoch, plan.epochs):
            start = job.batches - epoch * per_epoch
            if start == 0 and job.sink_size:
                stream = train_stream(job.train, job.recipe, plan, epoch, plan.epochs, rank, world)
                for done, loss in feed.sink(stream, job.batches, job.sink_size):
                    yield epoch * per_epoch + done, loss
                return
            batches = train_batches(job.train, job.recipe, plan, epoch, rank, world)
            for done, loss in feed.run(batches, epoch, start):
                self._skipped = batches.skipped
                yield epoch * per_epoch + done, loss

    def _after_step(self, loss: Any) -> None:
        job, plan = self.job, self.job.plan
        self._losses.append(loss)
        if not self.compile_seconds:
            loss.asnumpy()
            self.compile_seconds = self.feed.seconds_total - self.feed.seconds_waiting
            self.pace.start(self.feed)
        ends_epoch = job.batches % plan.batches_per_epoch == 0
        if not (plan.logs(job.attempted_steps) or plan.saves(job.attempted_steps) or ends_epoch):
            return
        losses = [float(one.asnumpy()) for one in self._losses]
        self._losses = []
        self._refuse_non_finite(losses)
        rate, waiting = self.pace.lap(self.feed, len(losses))
        epoch = math.ceil(job.batches / plan.batches_per_epoch)
        more = {"data_wait_percent": waiting}
        if job.step.skips_overflow:
            more["loss_scale"] = float(job.step.loss_scale.asnumpy())
        self.log.step(job.attempted_steps, epoch, float(np.mean(losses)), job.learning_rate(), rate, **more)

    def _refuse_non_finite(self, losses: list[float]) -> None:
        finite = np.isfinite(losses)
        if finite.all() or (self.job.step.skips_overflow and finite.any()):
            return
        job = self.job
        step = job.attempted_steps - len(losses) + 1 + int(np.argmin(finite))
        good = job.last_checkpoint
        raise JobError(
            f"the loss is not finite at step {step}; the last good checkpoint is {good or 'none yet'}; "
            "try a lower --lr, a longer --warmup_epochs, --clip_grad True, or --amp_level O0"
        )

    def _end_epoch(self) -> None:
        """Validate, log and save; in this order, so that a checkpoint knows its metrics and the log precedes it."""
        job, plan = self.job, self.job.plan
        epoch = job.batches // plan.batches_per_epoch
        metrics = job.step.epoch_metrics(plan.device_batch)
        if job.val is not None and (plan.validates(epoch) or epoch == plan.epochs):
            metrics |= self._validate()
        if self._skipped:
            metrics["skipped_images"] = len(self._skipped)
            self.log.message(f"skipped {len(self._skipped)} broken pictures, such as {self._skipped[0]}")
        self.metrics = metrics
        self.log.epoch(epoch, job.attempted_steps, **metrics)
        score = metrics.get("val_top1_ema", metrics.get("val_top1"))
        better = score is not None and score > job.best.get("top1", -1.0)
        if better:
            job.best = {"top1": score, "epoch": epoch, "weights": "ema" if "val_top1_ema" in metrics else "raw"}
        job.step.start_epoch()
        if plan.saves(job.attempted_steps) or better or self.stop:
            self._save(better)

    def _validate(self) -> dict[str, Any]:
        assert self.evaluator is not None
        assert self.job.val is not None
        found = {}
        for suffix, weights in self.job.step.weight_sets().items():
            self.evaluator.load(weights)
            counts = self.evaluator.run(self.job.val, self.job.plan)
            found |= {f"val_top1{suffix}": counts.top1, f"val_top5{suffix}": counts.top5}
            found |= {f"val_loss{suffix}": counts.mean_loss, "val_images": counts.seen}
        return found

    def _save(self, best: bool = False) -> None:
        job = self.job
        if job.folder is None:
            return
        tensors = {parameter.name: parameter.asnumpy() for parameter in job.step.state()}
        name = f"step_{job.attempted_steps:08d}"
        keep, policy = job.recipe.keep_checkpoint_max, job.recipe.ckpt_save_policy
        job.last_checkpoint = job.folder.save(name, tensors, job.meta(self.metrics), keep, policy, best)

    def _agreed_to_stop(self) -> bool:
        """Whether all processes stop now: one that was told to has to take the others along."""
        world = self.job.plan.world_size
        if world > 1:
            if self.job.attempted_steps % STOP_EVERY_STEPS:
                return False
            told = runtime.sum_over_ranks(np.array([len(self.stop)], np.int32), world)
            if told[0] and not self.stop:
                self.stop.append(signal.SIGTERM)
        return bool(self.stop)


@contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """A list that fills when SIGTERM or Ctrl-C arrives; a second Ctrl-C interrupts at once."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _closing_words(job: Job, summary: dict[str, Any]) -> str:
    assert job.folder is not None
    if summary["stopped"]:
        return f"stopped after step {job.attempted_steps}; go on with: python train.py --resume {job.folder.path}"
    best = f"best top-1 {job.best['top1']:.2f} % in epoch {job.best['epoch']}; " if job.best else ""
    return f"done: {best}{job.folder.path}"
