"""Training and evaluation: job, loop, compiled steps, optimizers, losses, metrics.

The sub-package itself can be called: ``mindcv_mnasnet.train(recipe)`` trains.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindcv_mnasnet.recipe.recipe import Recipe


class _Train(ModuleType):
    def __call__(self, recipe: Recipe | str | Path, **keys: Any) -> dict[str, Any]:
        """Train as a recipe says and return the run's summary (also in its ``summary.json``).

        Args:
            recipe: a recipe, or the path of a recipe file.
            keys: recipe keys that override it, such as ``epoch_size=5``.
        Raises:
            UserError: an unknown key or an impossible value.
            JobError: the training failed.
        """
        from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe, with_keys
        from mindcv_mnasnet.train.engine import fit

        if not isinstance(recipe, Recipe):
            recipe = load_recipe(recipe, keys)
        elif keys:
            recipe = with_keys(recipe, keys)
        return fit(recipe)


sys.modules[__name__].__class__ = _Train
