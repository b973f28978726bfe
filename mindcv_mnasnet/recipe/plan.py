"""The integers of a job, derived once from recipe, data set and machine; never typed by hand."""

from __future__ import annotations

from dataclasses import dataclass

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.recipe import Recipe

MAX_STEPS = 100_000_000  # the learning rate of each is held in memory
FEWEST_SUNK_STEPS = 16  # per call; where no divisor of an epoch's steps is as large, its last call is shorter


@dataclass(frozen=True)
class Plan:
    """What follows from a recipe for one data set and one number of devices.

    A batch is what one device takes at a time; a step is one update of the weights, ``accumulation`` batches on each
    of ``world_size`` devices. Steps and epochs are counted from 1 once they are done.
    """

    train_images: int  # images in use, after num_samples
    val_images: int
    world_size: int
    device_batch: int
    accumulation: int
    global_batch: int  # images per step
    batches_per_epoch: int  # per device; a multiple of accumulation
    steps_per_epoch: int
    epochs: int
    total_steps: int
    warmup_steps: float  # exact, may be fractional
    peak_lr: float
    val_batch: int
    val_batches: int  # per device, equal on all
    workers: int
    val_interval: int | None  # epochs; None: not during training
    log_interval: int  # steps
    save_epochs: int
    save_steps: int | None
    notes: tuple[str, ...] = ()  # sentences for the log

    @classmethod
    def make(
        cls, recipe: Recipe, train_images: int | None, val_images: int, world_size: int = 1, cores: int = 1
    ) -> Plan:
        """Derive the plan.

        Args:
            train_images: images of the training set before ``num_samples``; None plans a validation alone.
            world_size: number of devices, one process each.
            cores: cores that this process may use.
        Raises:
            UserError: no training images, not one full step, or a peak rate below ``min_lr``.
        """
        images = min(train_images or 0, recipe.num_samples or train_images or 0)
        global_batch = recipe.batch_size * world_size * recipe.gradient_accumulation_steps
        peak_lr = recipe.lr if recipe.lr_per_256 is None else recipe.lr_per_256 * global_batch / 256
        steps = 0 if train_images is None else _steps_per_epoch(recipe, images, global_batch)
        if steps * recipe.epoch_size > MAX_STEPS:
            raise UserError(
                f"epoch_size: {recipe.epoch_size} epochs of {steps} steps are more than {MAX_STEPS:,} steps"
            )
        if steps and recipe.scheduler in ("cosine_decay", "polynomial_decay") and recipe.min_lr > peak_lr:
            raise UserError(
                f"min_lr: {recipe.min_lr} is above {peak_lr:g}, the peak rate of {global_batch} images a step"
            )
        share = -(-val_images // world_size)
        val_batch = min(recipe.val_batch_size or recipe.batch_size, max(share, 1))
        return cls(
            train_images=images,
            val_images=val_images,
            world_size=world_size,
            device_batch=recipe.batch_size,
            accumulation=recipe.gradient_accumulation_steps,
            global_batch=global_batch,
            batches_per_epoch=steps * recipe.gradient_accumulation_steps,
            steps_per_epoch=steps,
            epochs=recipe.epoch_size,
            total_steps=steps * recipe.epoch_size,
            warmup_steps=recipe.warmup_epochs * steps,
            peak_lr=peak_lr,
            val_batch=val_batch,
            val_batches=-(-share // val_batch),
            workers=min(recipe.num_parallel_workers, max(cores, 1)),
            val_interval=recipe.val_interval if recipe.val_while_train and val_images else None,
            log_interval=recipe.log_interval,
            save_epochs=recipe.ckpt_save_interval,
            save_steps=recipe.ckpt_save_steps,
            notes=_notes(recipe, cores),
        )

    def logs(self, step: int, taken: int = 1) -> bool:
        """Whether there is a log line after step ``step``: the first, every ``log_interval``-th and the last.

        Args:
            taken: steps that were taken at once, ``step`` being the last of them.
        """
        return step in (taken, self.total_steps) or passed(self.log_interval, step, taken)

    def validates(self, epoch: int) -> bool:
        """Whether epoch ``epoch`` ends with a validation; the last one does if any does."""
        return self.val_interval is not None and (epoch % self.val_interval == 0 or epoch == self.epochs)

    def saves(self, step: int, taken: int = 1) -> bool:
        """Whether a checkpoint is written after step ``step``, the last of ``taken`` at once; always after the last."""
        if self.save_steps is not None and passed(self.save_steps, step, taken):
            return True
        epoch, rest = divmod(step, self.steps_per_epoch)
        return rest == 0 and (epoch % self.save_epochs == 0 or epoch == self.epochs)


def passed(every: int, step: int, taken: int) -> bool:
    """Whether a multiple of ``every`` lies among the last ``taken`` steps up to ``step``."""
    return step // every > (step - taken) // every


def sunk_steps(steps: int, wanted: int) -> tuple[int, int]:
    """Steps per call, at most ``wanted``, in which a device takes an epoch's ``steps``; and of a shorter last call.

    The second is 0 where all calls are alike. A last call of another length is compiled on its own, so that a divisor
    is taken where one is not small.
    """
    wanted = min(wanted, steps)
    divisor = next(n for n in range(wanted, 0, -1) if steps % n == 0)
    if divisor >= min(wanted, FEWEST_SUNK_STEPS):
        return divisor, 0
    while steps % wanted == 1:  # MindSpore reads a queue of single steps in another, slower way
        wanted -= 1
    return wanted, steps % wanted


def _steps_per_epoch(recipe: Recipe, images: int, global_batch: int) -> int:
    steps = images // global_batch if recipe.drop_remainder else -(-images // global_batch)
    if steps == 0:
        devices = global_batch // recipe.batch_size // recipe.gradient_accumulation_steps
        remedy = " or set --drop_remainder False" if images and recipe.drop_remainder else ""
        raise UserError(
            f"{images} training images do not fill one step of {global_batch}: batch_size {recipe.batch_size} x "
            f"{devices} devices x gradient_accumulation_steps {recipe.gradient_accumulation_steps}; "
            f"lower --batch_size{remedy}"
        )
    return steps


def _notes(recipe: Recipe, cores: int) -> tuple[str, ...]:
    notes = []
    if recipe.num_parallel_workers > cores:
        notes.append(f"num_parallel_workers: {recipe.num_parallel_workers} is clamped to the {cores} cores here")
    if recipe.warmup_epochs > recipe.epoch_size:
        notes.append(f"warm-up ({recipe.warmup_epochs:g} epochs) is longer than training ({recipe.epoch_size})")
    return tuple(notes)
