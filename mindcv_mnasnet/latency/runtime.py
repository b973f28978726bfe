"""Latency by timing a runtime of this machine."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.devices.processor import processor_name, usable_cores
from mindcv_mnasnet.errors import require_extra
from mindcv_mnasnet.export.folded import Folded
from mindcv_mnasnet.latency.models import write_folded, write_model
from mindcv_mnasnet.latency.record import KINDS, Clock, Latency, LatencyError, LatencySettings
from mindcv_mnasnet.networks.network import Network


class RuntimeMeter:
    """Times calls of a runtime in this process, while no other meter of this user times anything."""

    def __init__(self, settings: LatencySettings):
        self._settings = settings
        if settings.kind == "onnxruntime":
            require_extra("onnxruntime", "onnx")
            require_extra("onnx", "onnx")
        elif settings.kind == "litert":
            require_extra("ai_edge_litert.interpreter", "litert")
            require_extra("tensorflow", "tensorflow")

    def measure(self, network: Network) -> Latency:
        """See ``Meter``."""
        with tempfile.TemporaryDirectory(prefix="latency-") as folder:
            path = Path(folder) / f"model.{KINDS[self._settings.kind]}"
            return self._time(write_model(network, path, self._settings.batch), network)

    @contextmanager
    def opened(self, network: Network, calls: int | None = None) -> Iterator[Clock]:
        """A function that times calls once more, a tenth of the repetitions, and tells the lowest; milliseconds.

        What disturbs a call only adds to it: beside other work, ratios of medians spread three times as far.
        """
        with tempfile.TemporaryDirectory(prefix="latency-") as folder:
            path = Path(folder) / f"model.{KINDS[self._settings.kind]}"
            yield self._clock(write_model(network, path, self._settings.batch), network, calls)

    @contextmanager
    def opened_part(self, part: Folded) -> Iterator[Clock]:
        """The same of one of ``folded.parts``."""
        with tempfile.TemporaryDirectory(prefix="latency-") as folder:
            path = Path(folder) / f"part.{KINDS[self._settings.kind]}"
            yield self._clock(write_folded(part, path, self._settings.batch), part.network)

    def _clock(self, path: Path, network: Network, calls: int | None = None) -> Clock:
        if calls is None:
            calls = max(3, self._settings.repetitions // 10)
        settings = replace(self._settings, repetitions=calls, warm_up=2)
        call = self._call(path, network)
        _timed(call, replace(self._settings, repetitions=1))
        return lambda: float(np.min(_timed(call, settings)))

    def measure_part(self, part: Folded) -> Latency:
        """The latency of one of ``folded.parts``."""
        with tempfile.TemporaryDirectory(prefix="latency-") as folder:
            path = Path(folder) / f"part.{KINDS[self._settings.kind]}"
            return self._time(write_folded(part, path, self._settings.batch), part.network)

    def _call(self, path: Path, network: Network) -> Callable[[], Any]:
        """One call of a file's runtime on noise."""
        from mindcv_mnasnet.export.artifact import open_artifact

        settings = self._settings
        artifact = open_artifact(path, None if settings.kind == "mindspore" else settings.threads)
        size = (network.image_size, network.image_size)
        rng = np.random.default_rng(0)
        if path.suffix == ".tflite":
            x = rng.random((settings.batch, *size, network.in_channels), np.float32)
        else:
            x = rng.random((settings.batch, network.in_channels, *size), np.float32)
        return lambda: artifact.run_raw(x)

    def _time(self, path: Path, network: Network) -> Latency:
        settings = self._settings
        call = self._call(path, network)
        with one_at_a_time():
            times = _timed(call, settings)
        return self._record(times, network)

    def describe(self, network: Network) -> Latency:
        """A record without a time."""
        return self._record(np.zeros(1), network)

    def _record(self, times: np.ndarray, network: Network) -> Latency:
        settings = self._settings
        return Latency(
            median_ms=float(np.median(times)),
            mean_ms=float(times.mean()),
            std_ms=float(times.std()),
            p90_ms=float(np.percentile(times, 90)),
            repetitions=settings.repetitions,
            warm_up=settings.warm_up,
            threads=settings.threads,
            batch=settings.batch,
            image_size=network.image_size,
            runtime=settings.kind,
            device=this_device(),
        )


def _timed(call: Any, settings: LatencySettings) -> np.ndarray:
    """Milliseconds of every call after the warm-up."""
    times = []
    end = time.monotonic() + settings.timeout_s
    for number in range(settings.warm_up + settings.repetitions):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
        if time.monotonic() > end:
            raise LatencyError(
                f"latency: {number + 1} of {settings.warm_up + settings.repetitions} calls took longer than "
                f"{settings.timeout_s:g} s"
            )
    return np.array(times[settings.warm_up :])


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Within it, no other process of this user measures on this machine; waits for its turn."""
    path = Path(tempfile.gettempdir()) / f"mindcv_mnasnet-latency-{os.getuid()}.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def this_device() -> str:
    """The processor's name and its cores."""
    return f"{processor_name()}, {usable_cores()} cores"
