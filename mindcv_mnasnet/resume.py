"""Going on with a run: its newest checkpoint, its recipe with what may change, its position."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mindcv_mnasnet.checkpoint import Checkpoint, newest_intact
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.model import load_parameters
from mindcv_mnasnet.recipe import Recipe, diff
from mindcv_mnasnet.run_folder import RunFolder

if TYPE_CHECKING:
    from mindcv_mnasnet.job import Job

_BATCH_KEYS = ("batch_size", "gradient_accumulation_steps")  # judged by their product, and with the devices


def stored_state(recipe: Recipe) -> tuple[RunFolder | None, Checkpoint | None, list[str]]:
    """Run folder and newest intact checkpoint to resume from."""
    if recipe.resume is None:
        return None, None, []
    folder = RunFolder.open(recipe.resume)
    checkpoint, complaints = newest_intact(folder.checkpoints)
    if checkpoint is None and (complaints or folder.has_summary()):
        raise JobError(f"{folder.path} has no intact checkpoint to resume from{''.join(f'; {c}' for c in complaints)}")
    if checkpoint is None:
        return folder, None, [f"{folder.path} has no checkpoint yet; starting from the beginning"]
    return folder, checkpoint, [*complaints, f"resuming from {checkpoint.path}"]


def merged(recipe: Recipe, before: Recipe) -> Recipe:
    """The run's recipe with what was given now on top; changes have to be named in ``allow_changes``."""
    given = {name: value for name, value in recipe.to_dict().items() if name in recipe.given and name != "resume"}
    whole = Recipe.from_dict({**before.to_dict(), **given})
    whole = replace(whole, given=recipe.given | before.given, resume=recipe.resume)
    refused = [name for name in diff(before, whole) if name not in recipe.allow_changes and name not in _BATCH_KEYS]
    if refused:
        name = refused[0]
        raise UserError(
            f"{name}: the run was made with {getattr(before, name)!r} and is resumed with {getattr(whole, name)!r}; "
            f"leave it as it was, or say --allow_changes {','.join(refused)}"
        )
    return whole


def restore(job: Job, stored: Checkpoint) -> None:
    """Set parameters, position and best result from a checkpoint of the same job."""
    recipe, plan, meta = job.recipe, job.plan, stored.meta
    if len(job.train) != meta["train_images"]:
        raise UserError(f"the run trained on {meta['train_images']} images, {job.train.root} has {len(job.train)} now")
    load_parameters(job.step.state(), stored.tensors, str(stored.path))
    before = stored.recipe
    job.best, job.metrics = dict(meta["best"]), dict(meta["metrics"])
    job.last_checkpoint = stored.path
    if plan.global_batch == meta["global_batch"]:
        job.batches = meta["batches"] * plan.batches_per_epoch // meta["batches_per_epoch"]
        job.step.convert_sums(plan.batches_per_epoch / meta["batches_per_epoch"], plan.device_batch / before.batch_size)
    elif "batch_size" in recipe.allow_changes:
        whole_epochs = meta["batches"] // meta["batches_per_epoch"]
        job.batches = whole_epochs * plan.batches_per_epoch
        job.step.set_steps(whole_epochs * plan.steps_per_epoch)
        job.step.start_epoch()
        job.notes.append(f"images per step: {plan.global_batch}, were {meta['global_batch']}; epoch starts again")
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
