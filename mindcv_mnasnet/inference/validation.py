"""Checkpoints validated on a data set, beside the published results they may be compared with."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.data.sets import open_val
from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.devices.runtime import Runtime
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.export.artifact import SUFFIXES, Artifact, open_artifact
from mindcv_mnasnet.export.backend import described, through_backend
from mindcv_mnasnet.files import unwritable
from mindcv_mnasnet.inference.settings import merged_recipe, require_exportable, require_honored
from mindcv_mnasnet.inference.verdict import EvalSettings, Verdict, compare
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.recipe.evaluation import CONVENTION_KEYS
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.run.checkpoint import Checkpoint
from mindcv_mnasnet.train.evaluation import Counted, Evaluator, count_images
from mindcv_mnasnet.train.metrics import Counts
from mindcv_mnasnet.weights.convert import open_weights
from mindcv_mnasnet.weights.sound import require_sound


@dataclass(frozen=True)
class Result:
    """One checkpoint's accuracy."""

    checkpoint: str
    weights: str  # "ema" or "raw"
    model: str
    counts: Counts
    skipped: int
    images_per_second: float
    verdict: Verdict
    backend: str = "mindspore"
    quantization: str | None = None
    notes: tuple[str, ...] = ()  # sentences about the data

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; accuracies in percent."""
        return {
            "checkpoint": self.checkpoint,
            "weights": self.weights,
            "model": self.model,
            "backend": self.backend,
            "quantization": self.quantization,
            **self.counts.to_dict(),
            "skipped": self.skipped,
            "notes": list(self.notes),
            "images_per_second": round(self.images_per_second, 1),
            "reported": self.verdict.to_dict(),
        }


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
    image_index = open_val(recipe, checkpoint.class_names)
    plan = Plan.make(recipe, None, len(image_index), machine.world, runtime.usable_cores())
    conventions = {name: getattr(recipe, name) for name in CONVENTION_KEYS if name in recipe.given}
    network = replace(checkpoint.network, image_size=recipe.image_resize, **conventions)
    weights = "ema" if checkpoint.has_ema and ema is not False else "raw"
    if artifact is None:
        evaluator = Evaluator(network, recipe, machine)
        evaluator.load(checkpoint.weights(ema), str(checkpoint.path))
        counts = evaluator.run(image_index, plan)
        counted = Counted(counts, evaluator.skipped, evaluator.images_per_second)
    else:
        if conventions:
            raise UserError(f"{next(iter(conventions))}: {artifact.path} is compiled already and cannot be changed")
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
        skipped=len(counted.skipped),
        images_per_second=counted.images_per_second,
        verdict=compare(network, _settings(recipe, network, counts, checkpoint), counts.top1, counts.top5, tolerance),
        backend="mindspore" if artifact is None else artifact.runtime,
        quantization=None if artifact is None else artifact.metadata.quantization,
        notes=image_index.notes,
    )


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


def format_results(results: Sequence[Result]) -> str:
    """A text table, one row per checkpoint, with the verdict on each below it."""
    header = ("checkpoint", "weights", "backend", "top-1 %", "top-5 %", "loss", "images", "images/s")
    rows = [
        (
            *(r.checkpoint, r.weights, " ".join(filter(None, (r.backend, r.quantization)))),
            *(f"{r.counts.top1:.3f}", f"{r.counts.top5:.3f}", f"{r.counts.mean_loss:.4f}"),
            *(f"{r.counts.seen}", f"{r.images_per_second:.0f}"),
        )
        for r in results
    ]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    verdicts = [f"{r.checkpoint}: {r.verdict}" if len(results) > 1 else str(r.verdict) for r in results]
    skipped = [f"{r.checkpoint}: {r.skipped} broken images skipped" for r in results if r.skipped]
    notes = dict.fromkeys(note for r in results for note in r.notes)
    return "\n".join([*lines, *skipped, *notes, *verdicts])


def append_csv(path: Path, results: Sequence[Result]) -> None:
    """Append one line per result to a CSV file, with a header where it is new.

    Raises:
        UserError: the file has other columns.
        JobError: it cannot be written.
    """
    rows = [{**r.to_dict(), **{f"reported_{k}": v for k, v in r.verdict.to_dict().items()}} for r in results]
    for row in rows:
        del row["reported"], row["notes"]
    try:
        header = path.read_text().splitlines()[:1] if path.exists() else []
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        if not header:
            writer.writeheader()
        elif next(csv.reader(header)) != list(rows[0]):
            raise UserError(f"csv: {path} has other columns than {','.join(rows[0])}; name another file")
        writer.writerows(rows)
        with path.open("a", newline="") as file:
            file.write(text.getvalue())
    except OSError as error:
        raise unwritable(path, error) from None


def require_reported(results: Sequence[Result]) -> None:
    """Fail unless every result is comparable with a published one and inside the tolerance.

    Raises:
        JobError: naming the first that is not.
    """
    for result in results:
        if not result.verdict.inside:
            raise JobError(f"{result.checkpoint} does not reproduce a reported result: {result.verdict}")
