"""Checkpoints validated on a data set, beside the published results they may be compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.data.known import open_known_val
from mindcv_mnasnet.detection import data as boxes
from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.devices.runtime import Runtime
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.export.artifact import SUFFIXES, Artifact, open_artifact
from mindcv_mnasnet.export.backend import described, through_backend
from mindcv_mnasnet.inference.results import Result
from mindcv_mnasnet.inference.settings import merged_recipe, require_exportable, require_honored
from mindcv_mnasnet.inference.verdict import EvalSettings, compare, compare_boxes
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.recipe.evaluation import CONVENTION_KEYS
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.run.checkpoint import Checkpoint
from mindcv_mnasnet.train.box_evaluation import BoxEvaluator, score_images
from mindcv_mnasnet.train.evaluation import Counted, Evaluator, count_images
from mindcv_mnasnet.train.metrics import Counts
from mindcv_mnasnet.weights.convert import open_weights
from mindcv_mnasnet.weights.sound import require_sound


def validate(
    paths: Sequence[Path],
    recipe: Recipe | None,
    overrides: Mapping[str, Any],
    ema: bool | None = None,
    tolerance: float = 0.1,
    backend: str | None = None,
) -> tuple[list[Result], Runtime]:
    """Evaluate checkpoints and exported files one by one; every rank returns the results of the whole data set.

    Args:
        backend: "onnxruntime" or "litert" evaluates checkpoints through an export to that runtime; exported files are
            always run by their own.
        recipe: one that is given as well; its network must be the checkpoint's, how it evaluates counts.
        overrides: keys of the command line, which win.
        ema: averaged or raw weights; None takes averaged ones where they are.
    Raises:
        UserError: a checkpoint that is broken or does not agree with the recipe, data that does not fit, or an
            impossible tolerance.
        JobError: not every image was counted.
    """
    if not tolerance >= 0:
        raise UserError(f"tolerance: {tolerance} is impossible; it is 0 points or more")
    machine: Runtime | None = None
    results = []
    for path in paths:
        artifact = open_artifact(path) if path.suffix in SUFFIXES else None
        checkpoint = open_weights(path) if artifact is None else described(artifact)
        merged = merged_recipe(checkpoint, recipe, overrides)
        if machine is None:
            machine = runtime.start(merged.device_target, merged.distribute, merged.jit_level, merged.deterministic)
        if artifact is not None:
            require_honored(artifact, merged, merged.given, ema, backend)
        else:
            require_exportable(merged, backend)
            require_sound(checkpoint.weights(ema), str(path))
            artifact = None if backend is None else through_backend(checkpoint, backend, ema, merged)
        validate_one = _validate_one if checkpoint.detector is None else _validate_boxes
        results.append(validate_one(checkpoint, artifact, merged, machine, ema, tolerance))
    assert machine is not None
    return results, machine


def _validate_one(
    checkpoint: Checkpoint,
    artifact: Artifact | None,
    recipe: Recipe,
    machine: Runtime,
    ema: bool | None,
    tolerance: float,
) -> Result:
    image_index = open_known_val(recipe, checkpoint.class_names, checkpoint.meta.get("data"))
    plan = Plan.make(recipe, None, len(image_index), machine.world, runtime.usable_cores())
    conventions, network = _evaluated(checkpoint, recipe)
    weights = checkpoint.chosen(ema)
    if artifact is None:
        evaluator = Evaluator(network, recipe, machine)
        evaluator.load(checkpoint.weights(ema), str(checkpoint.path))
        counts = evaluator.run(image_index, plan)
        counted = Counted(counts, evaluator.skipped, evaluator.images_per_second)
    else:
        _require_compiled(artifact, conventions)
        weights = artifact.metadata.weights
        counted = count_images(lambda images: artifact.logits(images.asnumpy()), image_index, recipe, plan, machine)
    counts = counted.counts
    if not np.isfinite(counts.mean_loss):
        raise JobError(f"{checkpoint.path} gives logits that are not finite; nothing can be counted with them")
    return Result(
        checkpoint=str(checkpoint.path),
        weights=weights,
        model=recipe.model,
        counts=counts,
        skipped=counted.skipped,
        images_per_second=counted.images_per_second,
        verdict=compare(network, _settings(recipe, network, counts, checkpoint), counts.top1, counts.top5, tolerance),
        backend="mindspore" if artifact is None else artifact.runtime,
        quantization=None if artifact is None else artifact.metadata.quantization,
        notes=image_index.notes,
    )


def _validate_boxes(
    checkpoint: Checkpoint,
    artifact: Artifact | None,
    recipe: Recipe,
    machine: Runtime,
    ema: bool | None,
    tolerance: float,
) -> Result:
    assert checkpoint.detector is not None
    image_index = boxes.open_known_val(recipe, checkpoint.class_names, checkpoint.meta.get("data"))
    plan = Plan.make(recipe, None, len(image_index), machine.world, runtime.usable_cores())
    conventions, network = _evaluated(checkpoint, recipe)
    detector = replace(checkpoint.detector, network=network)
    if artifact is None:
        evaluator = BoxEvaluator(detector, recipe, machine)
        evaluator.load(checkpoint.weights(ema), str(checkpoint.path))
        counts = evaluator.run(image_index, plan)
    else:
        _require_compiled(artifact, conventions)
        find = partial(artifact.detections, post=artifact.metadata.post_process(recipe))
        counts = score_images(find, detector, image_index, recipe, plan, machine)
    return Result(
        checkpoint=str(checkpoint.path),
        weights=checkpoint.chosen(ema) if artifact is None else artifact.metadata.weights,
        model=recipe.model,
        counts=counts,
        skipped=counts.skipped,
        images_per_second=counts.images_per_second,
        verdict=compare_boxes(counts.seen, len(checkpoint.class_names), counts.ap, tolerance),
        backend="mindspore" if artifact is None else artifact.runtime,
        notes=image_index.notes,
    )


def _require_compiled(artifact: Artifact, conventions: Mapping[str, Any]) -> None:
    if conventions:
        raise UserError(f"{next(iter(conventions))}: {artifact.path} is compiled already and cannot be changed")


def _evaluated(checkpoint: Checkpoint, recipe: Recipe) -> tuple[dict[str, Any], Network]:
    """What a checkpoint's network is told to do otherwise, and the network that does so."""
    conventions = {name: getattr(recipe, name) for name in CONVENTION_KEYS if name in recipe.given}
    return conventions, replace(checkpoint.network, image_size=recipe.image_resize, **conventions)


def _settings(recipe: Recipe, network: Network, counts: Counts, checkpoint: Checkpoint) -> EvalSettings:
    return EvalSettings(
        image_size=recipe.image_resize,
        crop_pct=recipe.crop_pct,
        val_resize=recipe.val_resize,
        interpolation=recipe.resampling(),
        eval_crop=recipe.eval_crop,
        padding=network.padding,
        bn_eps=network.bn_eps,
        dataset_name=recipe.dataset,
        images=counts.seen,
        source=checkpoint.meta.get("source"),
    )
