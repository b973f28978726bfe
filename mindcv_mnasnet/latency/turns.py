"""Latency relative to an anchor network, both measured in turns.

A machine has more than one speed: clocks change, other jobs come and go, and calls of one network, however many, lie
within one of them. What drifts slowly hits neighbors in time alike, so ratios of neighbors hold where milliseconds do
not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mindcv_mnasnet.latency.record import Clock, Latency
from mindcv_mnasnet.latency.runtime import one_at_a_time
from mindcv_mnasnet.networks.network import Network

LEAST_TURNS = 5
_MEDIAN = math.sqrt(math.pi / 2)  # standard error of a median against that of a mean, for normal values
_MAD = 1.4826  # a normal deviation by the median absolute deviation


@dataclass(frozen=True)
class Ratio:
    """The median of ``turns`` ratios and its standard error, as a share of it; ``times`` are the network's, in ms."""

    value: float
    error: float
    turns: int
    times: tuple[float, ...]


def in_turns(network: Clock, anchor: Clock, most: int, error: float) -> Ratio:
    """Time both in turns, A-B-B-A, until the ratio's standard error is at most ``error``, or ``most`` turns."""
    logs: list[float] = []
    times: list[float] = []
    while True:
        first, second = (network, anchor) if len(logs) % 2 == 0 else (anchor, network)
        one, other = first(), second()
        own, reference = (one, other) if len(logs) % 2 == 0 else (other, one)
        times.append(own)
        logs.append(math.log(own / reference))
        middle = float(np.median(logs))
        spread = _MAD * float(np.median(np.abs(np.array(logs) - middle)))
        found = Ratio(math.exp(middle), _MEDIAN * spread / math.sqrt(len(logs)), len(logs), tuple(times))
        if len(logs) >= most or (len(logs) >= LEAST_TURNS and found.error <= error):
            return found


class TurnsMeter:
    """Measures networks in turns with an anchor; its milliseconds are ratios times ``anchor_ms``.

    ``meter`` is of a device: one with ``opened``. ``most`` and ``error`` are of ``in_turns``.
    """

    def __init__(self, meter: Any, anchor: Network, anchor_ms: float, most: int, error: float):
        self._meter, self._anchor, self._anchor_ms = meter, anchor, anchor_ms
        self._most, self._error = most, error

    def measure(self, network: Network) -> Latency:
        """See ``Meter``."""
        with ExitStack() as opened:
            clocks: list[Callable[[], float]] = [
                opened.enter_context(self._meter.opened(one)) for one in (network, self._anchor)
            ]
            if getattr(self._meter, "locks", False):
                found = in_turns(clocks[0], clocks[1], self._most, self._error)
            else:
                with one_at_a_time():
                    found = in_turns(clocks[0], clocks[1], self._most, self._error)
        ms = found.value * self._anchor_ms
        described = self._meter.describe(network)
        return replace(
            described,
            median_ms=ms,
            mean_ms=ms,
            std_ms=float(np.std(found.times)),
            p90_ms=float(np.percentile(found.times, 90)),
            repetitions=found.turns,
            ratio=found.value,
            ratio_error=found.error,
            turns=found.turns,
        )
