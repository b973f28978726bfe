"""A training job before its first step: recipe, data, plan, network, weights and run folder brought together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.known import described, require_same
from mindcv_mnasnet.devices import runtime, simulation
from mindcv_mnasnet.devices.runtime import Runtime
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.model.mnasnet import MnasNet
from mindcv_mnasnet.model.parameters import freeze
from mindcv_mnasnet.model.quantization import Quantization
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.recipe.plan import Plan, sunk_steps
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.run import resume
from mindcv_mnasnet.run.checkpoint import Checkpoint
from mindcv_mnasnet.run.folder import RunFolder, storable
from mindcv_mnasnet.run.log import require_tensorboard
from mindcv_mnasnet.run.scores import better_weights
from mindcv_mnasnet.run.sections import Position
from mindcv_mnasnet.train.random_inputs import RandomLayout
from mindcv_mnasnet.train.schedule import learning_rates
from mindcv_mnasnet.train.start import adopting, kept_classifier, start_checkpoint, with_network_of
from mindcv_mnasnet.train.step import TrainStep
from mindcv_mnasnet.train.task import Task, task_of
from mindcv_mnasnet.train.warnings import warnings


@dataclass
class Job:
    """Everything that ``engine.fit`` drives. ``batches`` (done on this device), ``best`` and ``metrics`` change."""

    recipe: Recipe
    task: Task
    runtime: Runtime
    folder: RunFolder | None  # None on ranks other than 0
    train: ImageIndex
    val: ImageIndex | None
    plan: Plan
    network: Network
    layout: RandomLayout
    rates: np.ndarray  # learning rate of every step
    step: TrainStep
    notes: list[str]
    known: Mapping[str, Any]  # identities of the images
    batches: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)  # of the last epoch
    last_checkpoint: Path | None = None
    resumed_at: Position | None = None  # by the count of the checkpoint

    @property
    def attempted_steps(self) -> int:
        """Steps taken, those skipped for overflow included."""
        return self.batches // self.plan.accumulation

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.attempted_steps >= self.plan.total_steps

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder is not None:
            self.folder.unlock()

    @property
    def sunk_steps(self) -> tuple[int, int]:
        """Steps of a sunk call, and of an epoch's shorter last one or 0; zeros where the host hands over batches."""
        if not (self.runtime.sinks and self.recipe.dataset_sink_mode) or self.plan.accumulation > 1:
            return 0, 0
        return sunk_steps(self.plan.batches_per_epoch, self.recipe.sink_size or self.plan.log_interval)

    def learning_rate(self) -> float:
        """The rate of the last step that changed the weights."""
        return float(self.rates[max(self.step.steps_done() - 1, 0)])

    def meta(self) -> dict[str, Any]:
        """What a checkpoint says about itself."""
        return {
            "recipe": storable(self.recipe).to_dict(),
            "network": self.network.to_dict(),
            "class_names": list(self.train.class_names),
            "train_images": len(self.train),
            "data": self.known,
            "batches": self.batches,
            "batches_per_epoch": self.plan.batches_per_epoch,
            "global_batch": self.plan.global_batch,
            "workers": self.plan.workers,
            "world": self.plan.world_size,
            "best": self.best,
            "metrics": self.metrics,
            "better_weights": better_weights(self.metrics),
            "versions": runtime.describe(),
            **self.task.meta(self.recipe, self.network, self.train),
        }


def prepare(recipe: Recipe) -> Job:
    """Bring a job together, new or resumed.

    Raises:
        UserError: for anything in recipe, data, weights or run folder that does not fit, before training starts.
    """
    folder, stored, notes = resume.stored_state(recipe)
    if folder is not None:
        recipe = resume.merged(recipe, stored.recipe if stored else folder.recipe())
    start = start_checkpoint(recipe) if stored is None else None
    if start is not None:
        recipe = with_network_of(start, recipe)
    elif recipe.new_head and stored is None:
        raise UserError("new_head: it replaces a checkpoint's classifier; name the checkpoint with --init_from")
    task = task_of(recipe)
    task.check(recipe)
    if recipe.tensorboard:
        require_tensorboard()
    class_names = stored.class_names if stored else None
    # On one machine every process sees a mistake at once; on several, where one may lack the data, those that are
    # connected notice its end sooner than those that still wait for it.
    opened = task.open_train_val(recipe, class_names) if runtime.alone_or_here() else None
    machine = runtime.start(recipe.device_target, recipe.distribute, recipe.jit_level, recipe.deterministic)
    train, val = opened or task.open_train_val(recipe, class_names)
    plan = Plan.make(recipe, len(train), len(val) if val else 0, machine.world, runtime.usable_cores())
    network = recipe.network(len(train.class_names))
    if stored is not None:
        network = adopting(network, stored.network, recipe.allow_changes)
    notes += [*machine.notes, *train.notes, *plan.notes, *warnings(recipe, plan, machine)]
    notes += val.notes if val else [f"{recipe.data_dir} has no images for validation: no accuracy will be measured"]
    if start is not None:
        network = adopting(network, start.network, recipe.given)
        notes += kept_classifier(start, train.class_names, recipe)
    rates = learning_rates(recipe, plan)
    step, layout = build_step(recipe, machine, network, plan, rates, start, notes)
    known = described(train, val)
    job = Job(recipe, task, machine, None, train, val, plan, network, layout, rates, step, notes, known)
    if stored is not None:
        _restore(job, stored)
    before = stored.meta.get("data") if stored is not None else folder.data() if folder is not None else None
    if before is not None:
        job.notes += require_same(before, train, val, "data_dir" in recipe.allow_changes)
    _require_agreement(job)
    if machine.rank == 0:
        job.folder = folder or RunFolder.create(storable(recipe))
        job.folder.lock()
        resume.require_newest(job.folder, stored)
        job.folder.write_data(job.known)
    return job


def build_step(
    recipe: Recipe,
    machine: Runtime,
    network: Network,
    plan: Plan,
    rates: np.ndarray,
    start: Checkpoint | None = None,
    notes: list[str] | None = None,
) -> tuple[TrainStep, RandomLayout]:
    """The training step of a job, and the layout of its random inputs.

    Args:
        rates: learning rate of every step.
        start: a checkpoint whose weights it begins with; a sentence about them goes to ``notes``.
    """
    quantization = Quantization.of(recipe, plan.batches_per_epoch)
    task = task_of(recipe)
    model = task.create(recipe, network, quantization)
    if start is not None:
        note = task.start_from(model, start, recipe.new_head)
        if notes is not None:
            notes.append(note)
    layout = _random_layout(recipe, model)
    if machine.device != "CPU" and recipe.amp_level != "O0":
        runtime.mixed_precision(model, recipe.amp_level, recipe.amp_dtype)
    if recipe.freeze is not None:
        freeze(model, recipe.freeze)
    step = TrainStep(recipe, model, layout, rates, machine.world)
    step.set_train(True)
    if recipe.freeze is not None:
        freeze(model, recipe.freeze)
    return step, layout


def _restore(job: Job, stored: Checkpoint) -> None:
    """Set parameters, position and best result from a checkpoint of the same job."""
    recipe, plan, meta = job.recipe, job.plan, stored.meta
    if len(job.train) != meta["train_images"]:
        raise UserError(f"the run trained on {meta['train_images']} images, {job.train.root} has {len(job.train)} now")
    with resume.misfits_explained(recipe, stored.path):
        job.step.load(stored.tensors, str(stored.path))
    before = stored.recipe
    job.best, job.metrics = dict(meta["best"]), dict(meta["metrics"])
    job.last_checkpoint = stored.path
    job.resumed_at = Position(meta["batches"] // before.gradient_accumulation_steps, meta["global_batch"])
    if plan.global_batch == meta["global_batch"]:
        job.batches = meta["batches"] * plan.batches_per_epoch // meta["batches_per_epoch"]
        job.step.convert_sums(plan.batches_per_epoch / meta["batches_per_epoch"], plan.device_batch / before.batch_size)
    elif "batch_size" in recipe.allow_changes:
        whole_epochs = meta["batches"] // meta["batches_per_epoch"]
        job.batches = whole_epochs * plan.batches_per_epoch
        job.step.set_steps(whole_epochs * plan.steps_per_epoch)
        job.step.start_epoch()
    else:
        raise UserError(
            f"batch_size: a step took {meta['global_batch']} images and would take {plan.global_batch} now on "
            f"{plan.world_size} device(s); keep the product of batch_size, devices and gradient_accumulation_steps, "
            "or say --allow_changes batch_size"
        )
    if recipe.deterministic and (meta["workers"], meta["world"]) != (plan.workers, plan.world_size):
        job.notes.append(
            f"{meta['workers']} input workers on {meta['world']} device(s) before, {plan.workers} on "
            f"{plan.world_size} now: the run goes on, but not bit for bit"
        )


def _random_layout(recipe: Recipe, model: MnasNet) -> RandomLayout:
    return RandomLayout(
        image_size=recipe.image_resize,
        drop_columns=model.random_columns,
        mixup=recipe.mixup,
        cutmix=recipe.cutmix,
        mix_prob=recipe.cutmix_prob,
        erase_prob=recipe.re_prob,
        erase_scale=(recipe.re_scale[0], recipe.re_scale[1]),
        erase_ratio=(recipe.re_ratio[0], recipe.re_ratio[1]),
        erase_attempts=recipe.re_max_attempts,
    )


def _require_agreement(job: Job) -> None:
    """Refuse to start where the ranks see other data or other checkpoints: they would wait for each other for ever."""
    if simulation.simulated():
        return  # a dry run reads nothing but zeros
    own = {"training images": len(job.train), "validation images": len(job.val or ()), "batches done": job.batches}
    whole = runtime.sum_over_ranks(np.array(list(own.values())), job.runtime.world)
    for (what, mine), sum_of_all in zip(own.items(), whole, strict=True):
        if mine * job.runtime.world != sum_of_all:
            same = "the same data_dir and run folder have to be on all nodes"
            raise JobError(f"rank {job.runtime.rank} has {mine} {what}, other ranks have not: {same}")
