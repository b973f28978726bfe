"""How long an exported file takes for one call of its own runtime."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.export.artifact import Artifact, open_artifact


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call of ``batch`` images: median, 90th percentile, least and mean over ``repetitions``."""

    median_ms: float
    p90_ms: float
    least_ms: float
    mean_ms: float
    batch: int
    repetitions: int


def measure(artifact: Artifact, batch: int = 1, repetitions: int = 100, warm_up: int = 10) -> Latency:
    """Time an artifact on noise (its cost does not depend on the images), after ``warm_up`` calls.

    Raises:
        UserError: no repetitions, or a batch that the file does not take.
    """
    if repetitions < 1 or warm_up < 0:
        raise UserError(f"repetitions: {repetitions} after {warm_up} for warm-up is impossible")
    if artifact.batch not in (None, batch):
        raise UserError(f"batch_size: {artifact.path} takes {artifact.batch} images at once, not {batch}")
    network = artifact.metadata.network_description()
    shape = (batch, network.image_size, network.image_size, network.in_channels)
    x = artifact.prepare(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    times = []
    for _ in range(warm_up + repetitions):
        began = time.perf_counter()
        artifact.run_raw(x)
        times.append(1000 * (time.perf_counter() - began))
    measured = np.array(times[warm_up:])
    return Latency(
        median_ms=float(np.median(measured)),
        p90_ms=float(np.percentile(measured, 90)),
        least_ms=float(measured.min()),
        mean_ms=float(measured.mean()),
        batch=batch,
        repetitions=repetitions,
    )


def artifact_report(path: Path, threads: int | None, batch: int | None, repetitions: int) -> dict[str, Any]:
    """What the benchmark prints and writes about an artifact; ``threads`` None is the runtime's own choice."""
    if threads is not None and threads < 1:
        raise UserError(f"threads: {threads} is impossible; it is 1 or more")
    artifact = open_artifact(path, threads)
    if threads is not None and artifact.kind == "mindir":
        raise UserError("threads: MindSpore has one setting for its process; leave it out for MindIR files")
    latency = measure(artifact, batch or artifact.batch or 1, repetitions)
    network = artifact.metadata.network_description()
    return {
        "artifact": str(path),
        "runtime": artifact.runtime,
        "quantization": artifact.metadata.quantization,
        "image_size": network.image_size,
        "threads": threads,
        **{key: round(value, 4) for key, value in asdict(latency).items()},
    }


def format_latency(report: dict[str, Any]) -> str:
    """The report as two lines."""
    kind = report["quantization"] or "float32"
    threads = "default" if report["threads"] is None else report["threads"]
    return (
        f"{report['artifact']}: {report['runtime']}, {kind}, {report['image_size']} px, batch {report['batch']}, "
        f"threads {threads}\n  median {report['median_ms']:.3f} ms, 90 % below {report['p90_ms']:.3f} ms, "
        f"least {report['least_ms']:.3f} ms, mean {report['mean_ms']:.3f} ms over {report['repetitions']} calls"
    )
