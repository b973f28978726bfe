"""Checkpoints validated on a data set, beside the published results they may be compared with.

What may be compared, and within which tolerance, is decided in :mod:`mindcv_mnasnet.inference.verdict`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.known import open_known_val
from mindcv_mnasnet.detection import data as boxes
from mindcv_mnasnet.detection.index import DetectionIndex
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
from mindcv_mnasnet.train.box_evaluation import BoxCounts, BoxEvaluator, score_images
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
        artifact = open_artifact(path) if path.suffix.lower() in SUFFIXES else None
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
        results.append(_validate_one(checkpoint, artifact, merged, machine, ema, tolerance))
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
    open_val = open_known_val if checkpoint.detector is None else boxes.open_known_val
    image_index = open_val(recipe, checkpoint.class_names, checkpoint.meta.get("data"))
    conventions = {name: getattr(recipe, name) for name in CONVENTION_KEYS if name in recipe.given}
    if artifact is not None and conventions:
        raise UserError(f"{next(iter(conventions))}: {artifact.path} is compiled already and cannot be changed")
    network = replace(checkpoint.network, image_size=recipe.image_resize, **conventions)
    counted: Counted | BoxCounts
    counts: Counts | BoxCounts
    if isinstance(image_index, DetectionIndex):
        counted = counts = found = _count_boxes(checkpoint, artifact, network, recipe, image_index, machine, ema)
        verdict = compare_boxes(found.seen, len(checkpoint.class_names), found.ap, tolerance)
    else:
        counted = _count_classes(checkpoint, artifact, network, recipe, image_index, machine, ema)
        counts = right = counted.counts
        verdict = compare(network, _settings(recipe, network, right, checkpoint), right.top1, right.top5, tolerance)
    return Result(
        checkpoint=str(checkpoint.path),
        weights=checkpoint.chosen(ema) if artifact is None else artifact.metadata.weights,
        model=recipe.model,
        counts=counts,
        skipped=counted.skipped,
        images_per_second=counted.images_per_second,
        verdict=verdict,
        backend="mindspore" if artifact is None else artifact.runtime,
        quantization=None if artifact is None else artifact.metadata.quantization,
        notes=image_index.notes,
    )


def _count_classes(
    checkpoint: Checkpoint,
    artifact: Artifact | None,
    network: Network,
    recipe: Recipe,
    image_index: ImageIndex,
    machine: Runtime,
    ema: bool | None,
) -> Counted:
    plan = Plan.make(recipe, None, len(image_index), machine.world, runtime.usable_cores())
    if artifact is None:
        evaluator = Evaluator(network, recipe, machine)
        evaluator.load(checkpoint.weights(ema), str(checkpoint.path))
        counts = evaluator.run(image_index, plan)
        counted = Counted(counts, evaluator.skipped, evaluator.images_per_second)
    else:
        counted = count_images(lambda images: artifact.logits(images.asnumpy()), image_index, recipe, plan, machine)
    if not np.isfinite(counted.counts.mean_loss):
        raise JobError(f"{checkpoint.path} gives logits that are not finite; nothing can be counted with them")
    return counted


def _count_boxes(
    checkpoint: Checkpoint,
    artifact: Artifact | None,
    network: Network,
    recipe: Recipe,
    image_index: DetectionIndex,
    machine: Runtime,
    ema: bool | None,
) -> BoxCounts:
    assert checkpoint.detector is not None
    detector = replace(checkpoint.detector, network=network)
    plan = Plan.make(recipe, None, len(image_index), machine.world, runtime.usable_cores())
    if artifact is not None:
        find = partial(artifact.detections, post=artifact.metadata.post_process(recipe))
        return score_images(find, detector, image_index, recipe, plan, machine)
    evaluator = BoxEvaluator(detector, recipe, machine)
    evaluator.load(checkpoint.weights(ema), str(checkpoint.path))
    return evaluator.run(image_index, plan)


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
