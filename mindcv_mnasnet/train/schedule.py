"""The learning rate of every step of a job, computed once as an array.

The position of a step is its number of epochs, ``step / steps_per_epoch`` from 0 (floored with ``lr_epoch_stair``).
Warm-up is linear from ``warmup_factor`` times the peak to the peak. Decay counts its epochs from the end of warm-up, as
MindCV does, or from the start, as the MnasNet authors do. Warm-up, cosine (cycles included), exponential, step and
multi-step decay equal MindCV 0.3's; polynomial decay, which MindCV's command line lacks, ends at ``min_lr``.

Warm-up and decay that a recipe leaves open are fitted to its epochs in :mod:`mindcv_mnasnet.recipe.fitting`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.training_keys import ScheduleKeys

Epochs = NDArray[np.float64]
_ROUNDING = 1e-9  # a step at a boundary belongs to what begins there


def learning_rates(recipe: ScheduleKeys, plan: Plan) -> NDArray[np.float32]:
    """The rate of each optimizer step, shape (plan.total_steps,)."""
    epochs = np.arange(plan.total_steps, dtype=np.float64) / plan.steps_per_epoch
    if recipe.lr_epoch_stair:
        epochs = np.floor(epochs + _ROUNDING)
    decay_start = recipe.warmup_epochs if recipe.decay_from == "warmup" else 0.0
    rates = plan.peak_lr * _DECAYS[recipe.scheduler](recipe, np.maximum(epochs - decay_start, 0.0), plan.peak_lr)
    warming = epochs[epochs < recipe.warmup_epochs - _ROUNDING]
    if warming.size:
        done = warming / recipe.warmup_epochs
        rates[: warming.size] = plan.peak_lr * (recipe.warmup_factor + (1.0 - recipe.warmup_factor) * done)
    return rates.astype(np.float32)


# Each takes (recipe, epochs since decay began, peak rate) and returns shares of the peak rate.


def _constant(recipe: ScheduleKeys, epochs: Epochs, peak: float) -> Epochs:
    return np.ones_like(epochs)


def _cosine(recipe: ScheduleKeys, epochs: Epochs, peak: float) -> Epochs:
    floor = recipe.min_lr / peak
    cycle = np.floor(epochs / recipe.decay_epochs + _ROUNDING)
    within = np.maximum(epochs / recipe.decay_epochs - cycle, 0.0)
    top = recipe.cycle_decay**cycle
    shares = floor + 0.5 * (top - floor) * (1.0 + np.cos(np.pi * within))
    return np.where(cycle < recipe.num_cycles, shares, floor)


def _exponential(recipe: ScheduleKeys, epochs: Epochs, peak: float) -> Epochs:
    periods = epochs / (recipe.decay_every_epochs or 1.0)
    return _powers(recipe.decay_rate, np.floor(periods + _ROUNDING) if recipe.decay_staircase else periods)


def _step(recipe: ScheduleKeys, epochs: Epochs, peak: float) -> Epochs:
    return _powers(recipe.decay_rate, np.floor(epochs / recipe.decay_epochs + _ROUNDING))


def _multi_step(recipe: ScheduleKeys, epochs: Epochs, peak: float) -> Epochs:
    passed = np.searchsorted(np.asarray(recipe.multi_step_decay_milestones), epochs + _ROUNDING, side="right")
    return _powers(recipe.decay_rate, passed)


def _polynomial(recipe: ScheduleKeys, epochs: Epochs, peak: float) -> Epochs:
    floor = recipe.min_lr / peak
    left = 1.0 - np.minimum(epochs / recipe.decay_epochs, 1.0)
    return floor + (1.0 - floor) * left**recipe.poly_power


def _powers(rate: float, exponents: NDArray[np.generic]) -> Epochs:
    return np.power(rate, exponents, dtype=np.float64)


_DECAYS: dict[str, Callable[[ScheduleKeys, Epochs, float], Epochs]] = {
    "constant": _constant,
    "cosine_decay": _cosine,
    "exponential_decay": _exponential,
    "step_decay": _step,
    "multi_step_decay": _multi_step,
    "polynomial_decay": _polynomial,
}
