"""Latency of a network on a device: a record in plain text, and what measures it."""

from __future__ import annotations

import fcntl
import getpass
import json
import math
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mindcv_mnasnet.arch import Network
from mindcv_mnasnet.blocks import is_number
from mindcv_mnasnet.errors import JobError, UserError, require_extra
from mindcv_mnasnet.export.folded import Folded

KINDS = {"onnxruntime": "onnx", "litert": "tflite", "mindspore": "mindir"}


class LatencyError(JobError):
    """A device that could not be reached, took too long, or answered with something that is no latency."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call of ``batch`` pictures, over ``repetitions`` calls after ``warm_up`` ones.

    ``repetitions`` 0: the number was not measured here but told (by a command), predicted, or made up; ``runtime``
    says which. A told number is median and mean at once.
    """

    median_ms: float
    mean_ms: float
    std_ms: float
    p90_ms: float
    repetitions: int
    warm_up: int
    threads: int
    batch: int
    image_size: int
    runtime: str
    device: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; ``from_dict`` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Latency:
        """Read what ``to_dict`` wrote; a missing or unknown key, or a time that is none, is a ``UserError``."""
        if odd := sorted({one.name for one in fields(cls)}.symmetric_difference(stored)):
            raise UserError(f"a stored latency has missing or unknown keys: {', '.join(odd)}")
        for key in ("median_ms", "mean_ms", "std_ms", "p90_ms"):
            if not is_number(stored[key]) or not math.isfinite(stored[key]) or stored[key] < 0:
                raise UserError(f"a stored latency has {key} {stored[key]!r}")
        return cls(**stored)


@dataclass(frozen=True)
class LatencySettings:
    """How latency is to be had: ``kind`` is a runtime of ``KINDS``, ``command`` or ``table``.

    ``command``: a command line with ``{model}`` (and ``{threads}`` where it wants it), without a shell; it gets a file
    of ``format``. Its answer is the first group of the regular expression ``pattern``, or the number at ``json_path``
    (``a.b.0``) of its output, times ``scale`` (1000 where it answers in seconds).
    """

    kind: str = "onnxruntime"
    threads: int = 1
    batch: int = 1
    repetitions: int = 100
    warm_up: int = 10
    timeout_s: float = 120.0
    command: str | None = None
    format: str = "onnx"
    pattern: str | None = None
    json_path: str | None = None
    scale: float = 1.0
    table: str | None = None


class Meter(Protocol):
    """Tells latencies."""

    def measure(self, network: Network) -> Latency:
        """The latency of a network, with random weights, at its own image size.

        Raises:
            LatencyError: the device failed.
        """


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

    def measure_part(self, part: Folded) -> Latency:
        """The latency of one of ``folded.parts``."""
        with tempfile.TemporaryDirectory(prefix="latency-") as folder:
            path = Path(folder) / f"part.{KINDS[self._settings.kind]}"
            return self._time(write_folded(part, path, self._settings.batch), part.network)

    def _time(self, path: Path, network: Network) -> Latency:
        from mindcv_mnasnet.export.artifact import open_artifact

        settings = self._settings
        artifact = open_artifact(path, None if settings.kind == "mindspore" else settings.threads)
        size = (network.image_size, network.image_size)
        rng = np.random.default_rng(0)
        if path.suffix == ".tflite":
            x = rng.random((settings.batch, *size, network.in_channels), np.float32)
        else:
            x = rng.random((settings.batch, network.in_channels, *size), np.float32)
        with one_at_a_time():
            times = _timed(lambda: artifact.run_raw(x), settings)
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


class CommandMeter:
    """Asks any program: adb, ssh to a board, the benchmark tools of a vendor."""

    def __init__(self, settings: LatencySettings):
        self._settings = settings
        if settings.command is None or "{model}" not in settings.command:
            raise UserError("latency_command: a command line with {model} in it is needed")
        if (settings.pattern is None) == (settings.json_path is None):
            raise UserError("latency_pattern: say either a pattern or latency_json_path, where the milliseconds are")
        if settings.pattern is not None:
            try:
                groups = re.compile(settings.pattern).groups
            except re.error as error:
                raise UserError(f"latency_pattern: {settings.pattern!r} is no regular expression: {error}") from None
            if groups != 1:
                raise UserError(f"latency_pattern: {settings.pattern!r} has {groups} groups; the milliseconds are one")
        try:
            self._words = shlex.split(settings.command)
        except ValueError as error:
            raise UserError(f"latency_command: {settings.command!r} is no command line: {error}") from None

    def measure(self, network: Network) -> Latency:
        """See ``Meter``."""
        settings = self._settings
        with tempfile.TemporaryDirectory(prefix="latency-") as folder:
            path = write_model(network, Path(folder) / f"model.{settings.format}", settings.batch)
            words = [
                word.replace("{model}", str(path)).replace("{threads}", str(settings.threads)) for word in self._words
            ]
            with one_at_a_time():
                output = run_command(words, settings.timeout_s)
        value = self._read(output) * settings.scale
        if not math.isfinite(value) or value <= 0:
            raise LatencyError(f"latency_command answered {value:g} ms, which is no latency")
        return Latency(
            median_ms=value,
            mean_ms=value,
            std_ms=0.0,
            p90_ms=value,
            repetitions=0,
            warm_up=0,
            threads=settings.threads,
            batch=settings.batch,
            image_size=network.image_size,
            runtime="command",
            device=self._words[0],
        )

    def _read(self, output: str) -> float:
        settings = self._settings
        if settings.pattern is not None:
            match = re.search(settings.pattern, output)
            if match is None:
                raise LatencyError(
                    f"latency_command: nothing in its output matches the pattern; it says {_shown(output)}"
                )
            found: Any = match[1]
        else:
            assert settings.json_path is not None
            try:
                found = json.loads(output)
                for part in settings.json_path.split("."):
                    found = found[int(part)] if isinstance(found, list) else found[part]
            except (ValueError, KeyError, IndexError, TypeError):
                raise LatencyError(
                    f"latency_command: its output has no {settings.json_path} as JSON; it says {_shown(output)}"
                ) from None
        try:
            return float(found)
        except (TypeError, ValueError):
            raise LatencyError(f"latency_command: {str(found)[:80]!r} is not a number") from None


def run_command(words: Sequence[str], timeout_s: float) -> str:
    """The output of a command; when its time is up, it and all that it started are killed.

    Raises:
        LatencyError: it cannot be started, takes too long, or ends with a code other than 0.
    """
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise LatencyError(f"latency_command: {words[0]} cannot be started: {error.strerror or error}") from None
    try:
        output, complaints = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise LatencyError(f"latency_command: {words[0]} took longer than {timeout_s:g} s") from None
    if process.returncode:
        raise LatencyError(f"latency_command: {words[0]} ended with code {process.returncode}: {_shown(complaints)}")
    return output


def _shown(text: str) -> str:
    lines = text.strip().splitlines()
    return repr(lines[0][:120]) if lines else "nothing"


def write_model(network: Network, path: Path, batch: int) -> Path:
    """An exported file of a network with random weights, whose cost is that of any weights; by the suffix of ``path``.

    Raises:
        UserError: an extra is missing.
    """
    from mindcv_mnasnet.export.card import Card
    from mindcv_mnasnet.export.folded import fold

    tensors = random_tensors(network)
    if path.suffix == ".mindir":
        from mindcv_mnasnet.export.mindir import write_mindir

        write_mindir(tensors, path, Card.blank(network, batch))
        return path
    return write_folded(fold(network, tensors), path, batch)


def write_folded(folded: Folded, path: Path, batch: int) -> Path:
    """A folded network, or a part of one, as ONNX or TFLite file."""
    from mindcv_mnasnet.export.card import Card

    card = Card.blank(folded.network, batch)
    if path.suffix == ".tflite":
        from mindcv_mnasnet.export.tflite import write_tflite

        write_tflite(folded, path, card)
    else:
        from mindcv_mnasnet.export.onnx_writer import write_onnx

        write_onnx(folded, path, card)
    return path


def random_tensors(network: Network) -> dict[str, np.ndarray]:
    """Tensors by name under which activations neither vanish nor grow: denormal numbers would be slow."""
    from mindcv_mnasnet.weights.schemes import shapes

    rng = np.random.default_rng(0)
    found = {}
    for name, shape in shapes(network).items():
        if name.endswith(("gamma", "moving_variance")):
            found[name] = np.ones(shape, np.float32)
        elif len(shape) == 1:
            found[name] = np.zeros(shape, np.float32)
        else:
            scale = np.float32((2 / math.prod(shape[1:])) ** 0.5)
            found[name] = rng.standard_normal(shape, np.float32) * scale
    return found


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Within it, no other process of this user measures on this machine; waits for its turn."""
    path = Path(tempfile.gettempdir()) / f"mindcv_mnasnet-latency-{getpass.getuser()}.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def this_device() -> str:
    """The processor's name and its cores."""
    name = "unknown processor"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {len(os.sched_getaffinity(0))} cores"
