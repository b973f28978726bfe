"""Validation as a function call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mindcv_mnasnet.inference import validation
from mindcv_mnasnet.inference.results import Result
from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe
from mindcv_mnasnet.run.folder import find_checkpoints


def validate(
    checkpoints: str | Path | Sequence[str | Path],
    recipe: Recipe | str | Path | None = None,
    *,
    ema: bool | None = None,
    backend: str | None = None,
    tolerance: float = 0.1,
    **keys: Any,
) -> list[Result]:
    """Evaluate checkpoints, run folders or exported files on a data set; one result per file.

    Args:
        recipe: how to evaluate, where it is not as the checkpoint was trained.
        ema: averaged or raw weights; None takes averaged ones where they are.
        backend: "onnxruntime" or "litert" evaluates checkpoints through an export to that runtime.
        tolerance: points of accuracy by which a result may differ from a published one.
        keys: recipe keys that override it, such as ``data_dir="/data/imagenet"``.
    Raises:
        UserError: no such file, a damaged one, or data that does not fit.
        JobError: not every image was counted.
    """
    names = [checkpoints] if isinstance(checkpoints, str | Path) else checkpoints
    if isinstance(recipe, str | Path):
        recipe = load_recipe(recipe)
    paths = find_checkpoints([str(name) for name in names])
    results, _ = validation.validate(paths, recipe, keys, ema, tolerance, backend)
    return results
