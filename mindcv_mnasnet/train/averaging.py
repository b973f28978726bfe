"""The mean of several checkpoints' weights, with batch-norm statistics that fit it on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from mindcv_mnasnet.data.pipeline import train_batches
from mindcv_mnasnet.data.sets import in_folder
from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.model.parameters import load_parameters
from mindcv_mnasnet.recipe.evaluation import EVALUATION_KEYS
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.run.checkpoint import SUFFIX, Checkpoint, checkpoints_in, read_checkpoint, write_checkpoint
from mindcv_mnasnet.run.scores import score_of
from mindcv_mnasnet.train.preprocess import FromPixels
from mindcv_mnasnet.train.task import task_of
from mindcv_mnasnet.weights.convert import open_weights
from mindcv_mnasnet.weights.sound import require_sound

_STATISTICS = (".moving_mean", ".moving_variance")
_DESCRIPTION = ("recipe", "network", "class_names", "detector", "category_ids")  # what an average takes over


def choose(run: Path, last: int | None = None, best: int | None = None) -> list[Path]:
    """The newest ``last``, or the ``best`` by validation accuracy, of a run's training checkpoints.

    Raises:
        UserError: it has fewer of them, or none with a validation accuracy.
    """
    found = checkpoints_in(run / "checkpoints")
    if best is not None:
        scored = [(score, path) for path in found if (score := _score(path)) is not None]
        found = [path for _, path in sorted(scored, key=lambda pair: pair[0], reverse=True)]
    wanted = last or best or 0
    if wanted < 1 or len(found) < wanted:
        kind = "with a validation accuracy" if best is not None else "there"
        raise UserError(f"{run}: {wanted} checkpoints are asked for, {len(found)} are {kind} (keep_checkpoint_max)")
    return found[:wanted]


def _score(path: Path) -> float | None:
    return score_of(read_checkpoint(path, only_meta=True).meta.get("metrics", {}))


def average(
    paths: Sequence[Path], output: Path, ema: bool | None = None, data_dir: str | None = None, batches: int = 0
) -> int:
    """Write the mean (taken in float64) of the model tensors of several checkpoints; returns how many tensors.

    Args:
        ema: averaged or raw weights of each; None takes averaged ones where all have them.
        data_dir, batches: re-estimate the batch-norm statistics as the mean over this many training batches, if any.
    Raises:
        UserError: fewer than two checkpoints, different networks, classes or preprocessing, or the same weights twice.
    """
    if len(paths) < 2:
        raise UserError(f"an average needs two checkpoints or more, not {len(paths)}")
    if output.suffix.lower() != SUFFIX:
        raise UserError(f"output: {output} has to end in {SUFFIX}; mnasnet convert makes other files of it")
    if twice := [path for at, path in enumerate(paths) if path.resolve() in {one.resolve() for one in paths[:at]}]:
        raise UserError(f"{twice[0]} is named twice")
    first, *others = [open_weights(path) for path in paths]
    for other in others:
        if (other.network, other.class_names, other.detector) != (first.network, first.class_names, first.detector):
            raise UserError(f"{other.path} has another network or other classes than {first.path}")
        for key in EVALUATION_KEYS:
            mine, theirs = getattr(first.recipe, key), getattr(other.recipe, key)
            if mine != theirs:
                raise UserError(f"{key}: {first.path} was made with {mine!r}, {other.path} with {theirs!r}")
    if ema is None:
        ema = all(checkpoint.chosen() == "ema" for checkpoint in (first, *others))
    weights = [checkpoint.weights(ema) for checkpoint in (first, *others)]
    for at, (path, one) in enumerate(zip(paths, weights, strict=True)):
        require_sound(one, str(path))
        for before, earlier in zip(paths[:at], weights, strict=False):  # a run's best is the copy of another
            if all(np.array_equal(value, earlier[name]) for name, value in one.items()):
                raise UserError(f"{before} and {path} hold the same weights, which would count twice; name one of them")
    tensors = {name: np.mean([one[name] for one in weights], 0, np.float64).astype(np.float32) for name in weights[0]}
    if batches > 0:
        tensors |= statistics(first, tensors, data_dir, batches)
    meta = {
        **{key: first.meta[key] for key in _DESCRIPTION if key in first.meta},
        "source": first.meta.get("source"),
        "data": first.meta.get("data"),
        "average": {"of": [path.name for path in paths], "statistics_batches": batches},
    }
    write_checkpoint(output, tensors, meta)
    return len(tensors)


def statistics(
    checkpoint: Checkpoint, tensors: Mapping[str, np.ndarray], data_dir: str | None, batches: int
) -> dict[str, np.ndarray]:
    """Batch-norm means and variances by name: those of ``batches`` training batches under these weights, averaged."""
    recipe = in_folder(checkpoint.recipe, data_dir)
    machine = runtime.start(recipe.device_target)
    task = task_of(recipe)
    image_index, _ = task.open_train_val(recipe, checkpoint.class_names)
    plan = Plan.make(recipe, len(image_index), 0, machine.world, runtime.usable_cores())
    # With nothing kept of the old average, a batch's own statistics can be read after it.
    network = replace(
        checkpoint.network, image_size=recipe.image_resize, bn_momentum=0.0, dropout=0.0, drop_connect=0.0
    )
    cell = FromPixels(task.create(recipe, network, None), *recipe.pixel_statistics())
    load_parameters(cell.model.get_parameters(), tensors, str(checkpoint.path))
    cell.set_train(True)
    sums = {p.name: np.zeros(p.shape) for p in cell.model.get_parameters() if p.name.endswith(_STATISTICS)}
    done = 0
    preparation = task.preparation(recipe, network)
    for images, _labels in islice(train_batches(image_index, recipe, plan, 0, preparation=preparation), batches):
        cell(images)
        done += 1
        for parameter in cell.model.get_parameters():
            if parameter.name in sums:
                sums[parameter.name] += parameter.asnumpy()
    return {name: (total / done).astype(np.float32) for name, total in sums.items()}
