"""What a run is summed up in: the columns that MindCV publishes, and what makes them repeatable."""

from __future__ import annotations

import math
from typing import Any

from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.run.scores import of_better_weights
from mindcv_mnasnet.train.feed import Throughput
from mindcv_mnasnet.train.job import Job


def summarize(job: Job, throughput: Throughput, compile_seconds: float) -> dict[str, Any]:
    """The content of ``summary.json``; times leave compilation, validation and saving out."""
    rate, waiting = throughput.overall()
    metrics = job.metrics
    cost = job.task.cost(job.recipe, job.network)
    return {
        "model": job.recipe.model,
        "params": cost.params,
        "params_with_bn": cost.params_with_bn,
        "madds": cost.madds,
        "cards": job.plan.world_size,
        "device": job.runtime.device,
        "batch_size": job.plan.device_batch,
        "global_batch": job.plan.global_batch,
        "resolution": f"{job.recipe.image_resize}x{job.recipe.image_resize}",
        "jit_level": job.runtime.jit_level,
        "graph_compile_seconds": round(compile_seconds, 1),
        "ms_per_step": _rounded(1000 * job.plan.global_batch / rate, 1) if rate > 0 else None,
        "images_per_second": _rounded(rate, 1),
        "data_wait_percent": _rounded(waiting, 1),
        "epochs": job.batches / job.plan.batches_per_epoch,
        "steps": job.attempted_steps,
        **{name: of_better_weights(metrics, name) for name in job.task.headline},
        "best": job.best,
        "metrics": metrics,
        "stopped": not job.finished,
        "recipe": "recipe.yaml",
        "recipe_fingerprint": job.recipe.fingerprint(),
        "environment": runtime.describe(),
    }


def _rounded(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None
