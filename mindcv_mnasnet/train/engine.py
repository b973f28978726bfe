"""Training and evaluation: the only loops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from mindcv_mnasnet import console
from mindcv_mnasnet.data.pipeline import train_batches, train_stream
from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.errors import DivergedError
from mindcv_mnasnet.kernels.build import kernels
from mindcv_mnasnet.recipe.plan import passed
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.run.log import RunLog
from mindcv_mnasnet.run.scores import TITLES, better_weights, score_of
from mindcv_mnasnet.train.compile_cache import CompileCache
from mindcv_mnasnet.train.feed import Feed, Sunk, Throughput
from mindcv_mnasnet.train.job import Job, prepare
from mindcv_mnasnet.train.stop import stop_signal
from mindcv_mnasnet.train.summary import summarize

STOP_EVERY_STEPS = 10  # how often processes agree on whether to stop


@console.lenient()
def fit(recipe: Recipe, averaged_only: bool = False) -> dict[str, Any]:
    """Train as the recipe says and return the run's summary (also in ``summary.json``).

    ``averaged_only``: validate the averaged weights alone where the recipe has some, not the raw ones too.

    SIGTERM, SIGHUP and Ctrl-C end training after the running step with a checkpoint; the summary then says ``stopped``.

    Raises:
        UserError: something in the recipe, the data or the weights does not fit.
        JobError: training failed: a non-finite loss, a broken image, a full disk.
    """
    job = prepare(recipe)
    resumed = job.attempted_steps if recipe.resume else None
    folder = job.folder.path if job.folder else "."
    with job, stop_signal() as stop:
        log = RunLog(
            folder,
            job.runtime.rank,
            resumed,
            job.recipe.tensorboard,
            total_steps=job.plan.total_steps,
            images_per_step=job.plan.global_batch,
            checkpoint=job.resumed_at,
        )
        with log:
            for note in job.notes:
                log.message(note)
            if job.folder:
                job.folder.note_session(runtime.describe())
                log.message(f"run folder {job.folder.path}")
            if job.finished and job.folder and (summary := job.folder.finished_summary()):
                log.message(f"nothing to do: all {job.plan.epochs} epochs were trained before")
                return summary
            training = _Training(job, log, stop, averaged_only)
            training.run()
            summary = summarize(job, training.throughput, training.compile_seconds)
            if job.folder:
                job.folder.write_summary(summary)
                log.message(_closing_words(job, summary))
            return summary


class _Training:
    """The loop, and what it keeps that no resume needs."""

    def __init__(self, job: Job, log: RunLog, stop: list[int], averaged_only: bool = False):
        self.job, self.log, self.stop, self.averaged_only = job, log, stop, averaged_only
        machine = job.runtime
        self.feed = Feed(job.step, job.layout, job.plan, job.recipe.seed, machine.rank, machine.jit_level, _graphs(job))
        self.preparation = job.task.preparation(job.recipe, job.network)
        self.evaluator = job.task.evaluator(job.recipe, job.network, job.runtime) if job.val is not None else None
        self.throughput = Throughput(job.plan.global_batch)
        self.compile_seconds = 0.0
        self._losses: list[Any] = []  # of each call since the last line of the log
        self._unlogged = 0  # steps since then; a sunk call makes many
        self._skipped: list[str] = []

    def run(self) -> None:
        """Train from where the job stands to its last epoch, or to a stop."""
        job, plan = self.job, self.job.plan
        done = job.attempted_steps
        for job.batches, loss in self._steps():
            taken, done = job.attempted_steps - done, job.attempted_steps
            self._note_loss(loss, taken)
            ends_epoch = job.batches % plan.batches_per_epoch == 0
            saves, stops = plan.saves(done, taken), self._agreed_to_stop(taken)
            if plan.logs(done, taken) or saves or stops or ends_epoch:
                self._log_steps()
            better = self._end_epoch() if ends_epoch else False
            if saves or stops or better:
                self._save(better)
            if stops:
                break

    def _steps(self) -> Iterator[tuple[int, Any]]:
        """Run steps; yields (batches done in the whole job, loss) after each."""
        job, plan, feed = self.job, self.job.plan, self.feed
        rank, world, per_epoch = job.runtime.rank, plan.world_size, plan.batches_per_epoch
        for epoch in range(job.batches // per_epoch, plan.epochs):
            start = job.batches - epoch * per_epoch
            if start == 0 and job.sunk_steps[0]:
                for done, loss in feed.sink(self._sunk_parts(epoch), range(epoch, plan.epochs)):
                    yield epoch * per_epoch + done, loss
                return
            batches = train_batches(job.train, job.recipe, plan, epoch, rank, world, self.preparation)
            for done, loss in feed.run(batches, epoch, start):
                self._skipped = batches.skipped
                yield epoch * per_epoch + done, loss

    def _sunk_parts(self, first_epoch: int) -> list[Sunk]:
        """What the device takes of the epochs from ``first_epoch`` on: calls of one length, and a shorter last one."""
        job, plan = self.job, self.job.plan
        steps, last = job.sunk_steps
        border = plan.batches_per_epoch - last
        parts = [(range(border), steps)] + ([(range(border, plan.batches_per_epoch), last)] if last else [])
        taken = first_epoch, plan.epochs, job.runtime.rank, plan.world_size
        return [
            Sunk(train_stream(job.train, job.recipe, plan, *taken, numbers, self.preparation), numbers, size)
            for numbers, size in parts
        ]

    def _note_loss(self, loss: Any, steps: int) -> None:
        self._losses.append(loss)
        self._unlogged += steps
        if not self.compile_seconds:
            loss.asnumpy()
            self.compile_seconds = self.feed.seconds_total - self.feed.seconds_waiting
            self.log.message(f"compiled the training graph in {self.compile_seconds:.0f} s")
            self.throughput.start(self.feed, steps)

    def _log_steps(self) -> None:
        """One line for the steps since the last one, whose losses have to be finite."""
        job, plan = self.job, self.job.plan
        losses = [float(one.asnumpy()) for one in self._losses]
        self._refuse_non_finite(losses)
        rate, waiting = self.throughput.lap(self.feed, self._unlogged)
        self._losses, self._unlogged = [], 0
        epoch = math.ceil(job.batches / plan.batches_per_epoch)
        more = {"data_wait_percent": waiting}
        if job.step.skips_overflow:
            more["loss_scale"] = float(job.step.loss_scale.asnumpy())
        self.log.step(job.attempted_steps, epoch, float(np.mean(losses)), job.learning_rate(), rate, **more)

    def _refuse_non_finite(self, losses: list[float]) -> None:
        finite = np.isfinite(losses)
        if finite.all() or (self.job.step.skips_overflow and finite.any()):
            return
        first = self.job.attempted_steps - self._unlogged + 1
        where = f"at step {first + int(np.argmin(finite))}"
        if len(losses) != self._unlogged:
            where = f"by step {self.job.attempted_steps}"
        raise self._diverged(f"the loss is not finite {where}")

    def _diverged(self, what: str) -> DivergedError:
        job = self.job
        good = f"the last good checkpoint is {job.last_checkpoint or 'none yet'}; " if job.folder else ""
        return DivergedError(
            f"{what}; {good}try a lower --lr, a longer --warmup_epochs, --clip_grad True, or --amp_level O0"
        )

    def _end_epoch(self) -> bool:
        """Validate and log; returns whether this is the best epoch. A checkpoint comes after, and knows its metrics."""
        job, plan = self.job, self.job.plan
        epoch = job.batches // plan.batches_per_epoch
        metrics = job.step.epoch_metrics(plan.device_batch)
        if job.val is not None and (plan.validates(epoch) or epoch == plan.epochs):
            metrics |= self._validate()
        metrics |= self._count_skipped()
        job.metrics = metrics
        self.log.epoch(epoch, job.attempted_steps, **metrics)
        name = job.task.headline[0]
        score = score_of(metrics)
        better = score is not None and score > job.best.get(name, -1.0)
        if better:
            averaged = f"val_{name}_ema" in metrics
            job.best = {name: score, "epoch": epoch, "weights": better_weights(metrics) if averaged else "raw"}
        job.step.start_epoch()
        return better

    def _count_skipped(self) -> dict[str, int]:
        """How many broken images all ranks met in this epoch, where they are skipped."""
        if self.job.recipe.on_bad_image != "skip":
            return {}
        count = int(runtime.sum_over_ranks(np.array([len(self._skipped)], np.int32), self.job.plan.world_size)[0])
        if count:
            example = f", such as {self._skipped[0]}" if self._skipped else ""
            self.log.message(f"skipped {count} broken images{example}")
        return {"skipped_images": count}

    def _validate(self) -> dict[str, Any]:
        assert self.evaluator is not None
        assert self.job.val is not None
        found: dict[str, Any] = {}
        sets = self.job.step.weight_sets()
        if self.averaged_only:
            sets = {suffix: weights for suffix, weights in sets.items() if suffix} or sets
        for suffix, weights in sets.items():
            self.evaluator.load(weights)
            measured = self.evaluator.run(self.job.val, self.job.plan)
            found |= {f"val_{name}{suffix}": value for name, value in measured.metrics().items()}
            found["val_images"] = measured.seen
            if self.job.recipe.on_bad_image == "skip":
                found["val_skipped_images"] = self.evaluator.skipped
        return found

    def _save(self, best: bool = False) -> None:
        job = self.job
        if job.folder is None:
            return
        tensors = job.step.state()
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise self._diverged(f"the weights are not finite after step {job.attempted_steps}")
        name = f"step_{job.attempted_steps:08d}"
        keep, policy = job.recipe.keep_checkpoint_max, job.recipe.ckpt_save_policy
        job.last_checkpoint = job.folder.save(name, tensors, job.meta(), keep, policy, best)

    def _agreed_to_stop(self, taken: int) -> bool:
        """Whether all processes stop after these ``taken`` steps: one that was asked to stop takes the others along."""
        world = self.job.plan.world_size
        if world == 1:
            return bool(self.stop)
        if not passed(STOP_EVERY_STEPS, self.job.attempted_steps, taken):
            return False
        return bool(runtime.sum_over_ranks(np.array([len(self.stop)], np.int32), world)[0])


def _graphs(job: Job) -> CompileCache | None:
    if job.runtime.device != "CPU" or job.plan.world_size > 1 or not job.recipe.compile_cache:
        return None
    operators = kernels().path if job.recipe.kernels else None
    return CompileCache(job.recipe.identity(), job.network, job.layout, replace(job.plan, notes=()), operators)


def _closing_words(job: Job, summary: dict[str, Any]) -> str:
    assert job.folder is not None
    if summary["stopped"]:
        return f"stopped after step {job.attempted_steps}; go on with: python train.py --resume {job.folder.quoted}"
    name = job.task.headline[0]
    best = f"best {TITLES[name]} {job.best[name]:.2f} % in epoch {job.best['epoch']}; " if job.best else ""
    return f"done: {best}{job.folder.path}"
