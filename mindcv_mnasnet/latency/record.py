"""Latency of a network on a device: a record, and the settings that it is measured by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Protocol

from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.networks.blocks import is_number
from mindcv_mnasnet.networks.network import Network

KINDS = {"onnxruntime": "onnx", "litert": "tflite", "mindspore": "mindir"}  # runtimes and the files they take


class LatencyError(JobError):
    """A device that could not be reached, took too long, or answered with something that is no latency."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call of ``batch`` images, over ``repetitions`` calls after ``warm_up`` ones.

    ``repetitions`` 0: the number was not measured here but given (by a command), predicted, or made up; ``runtime``
    says which. Such a number is median and mean at once.

    ``ratio``: to the anchor's latency, where both were measured in turns; ``ratio_error`` is its standard error, over
    ``turns`` turns, as a share of it, and ``median_ms`` the ratio times the anchor's latency at the start.
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
    ratio: float | None = None
    ratio_error: float | None = None
    turns: int | None = None

    @classmethod
    def given(cls, ms: float, network: Network, runtime: str, device: str, threads: int = 1, batch: int = 1) -> Latency:
        """A number that was not measured here."""
        size = network.image_size
        return cls(ms, ms, 0.0, ms, 0, 0, threads, batch, image_size=size, runtime=runtime, device=device)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; ``from_dict`` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Latency:
        """Read what ``to_dict`` wrote; a missing or unknown key, or a time that is none, is a ``UserError``."""
        stored = {**{one.name: one.default for one in fields(cls) if one.default is not MISSING}, **stored}
        if odd := sorted({one.name for one in fields(cls)}.symmetric_difference(stored)):
            raise UserError(f"a stored latency has missing or unknown keys: {', '.join(odd)}")
        for key in ("median_ms", "mean_ms", "std_ms", "p90_ms"):
            if not is_number(stored[key]) or not math.isfinite(stored[key]) or stored[key] < 0:
                raise UserError(f"a stored latency has {key} {stored[key]!r}")
        return cls(**stored)


@dataclass(frozen=True)
class LatencySettings:
    """How latency is measured: ``kind`` is a runtime of ``KINDS``, ``command`` or ``table``.

    ``command``: a command line with ``{model}`` (and ``{threads}`` where it wants it), without a shell; it gets a file
    of ``format``. Its answer is the first group of the regular expression ``pattern``, or the number at ``json_path``
    (``a.b.0``) of its output, times ``scale`` (1000 where it answers in seconds). It is called ``calls`` times.
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
    calls: int = 1
    table: str | None = None


Clock = Callable[[], float]


class Meter(Protocol):
    """Tells latencies. Those of devices also have ``opened``, a context of a network's ``Clock`` (milliseconds)."""

    def measure(self, network: Network) -> Latency:
        """The latency of a network, with random weights, at its own image size.

        Raises:
            LatencyError: the device failed.
        """
