"""What follows from other keys where a person did not say it, such as schedules of the length of the training.

Applied to recipes as they are written, never to stored ones, whose numbers are what the job was begun with.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeVar

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.keys import AllKeys

_WARMUP_SHARE = 0.1  # of the epochs, at most
_STEPS_OF_DECAY = 3  # that step decay takes where its period is not given

AnyRecipe = TypeVar("AnyRecipe", bound=AllKeys)


def fitted(recipe: AnyRecipe) -> AnyRecipe:
    """The recipe with warm-up and decay that fit ``epoch_size``, and a split by name, where they were not given.

    Raises:
        UserError: means and deviations are shares of 1 instead of pixel values.
    """
    _refuse_shares(recipe)
    found: dict[str, Any] = {}
    if "warmup_epochs" not in recipe.given:
        most = _WARMUP_SHARE * recipe.epoch_size
        most = float(math.floor(most + 1e-9)) if recipe.lr_epoch_stair else most  # its stairs are whole epochs
        found["warmup_epochs"] = min(recipe.warmup_epochs, most)
    warmup = found.get("warmup_epochs", recipe.warmup_epochs) if recipe.decay_from == "warmup" else 0.0
    parts = {"cosine_decay": recipe.num_cycles, "polynomial_decay": 1, "step_decay": _STEPS_OF_DECAY}
    if "decay_epochs" not in recipe.given and recipe.scheduler in parts and recipe.epoch_size > warmup:
        found["decay_epochs"] = (recipe.epoch_size - warmup) / parts[recipe.scheduler]
    if recipe.val_fraction is not None and "split_by" not in recipe.given:
        found["split_by"] = "name"
    return replace(recipe, **found)


def _refuse_shares(recipe: AllKeys) -> None:
    if "mean" in recipe.given and any(recipe.mean) and max(recipe.mean) <= 1:
        pixels = ",".join(f"{255 * one:g}" for one in recipe.mean)
        raise UserError(f"mean: {list(recipe.mean)} looks like shares of 1; pixels are 0..255: --mean {pixels}")
