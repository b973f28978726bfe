"""Latency relative to an anchor network, both measured in turns.

A machine has more than one speed: clocks change, other jobs come and go, and calls of one network, however many, lie
within one of them. What drifts slowly hits neighbors in time alike, so ratios of neighbors hold where milliseconds do
not. Work on a core's other hyper-thread slows networks unequally: turns count where the anchor is as fast as it has
been lately.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mindcv_mnasnet.export.folded import Folded
from mindcv_mnasnet.latency.record import Clock, Latency
from mindcv_mnasnet.latency.runtime import one_at_a_time
from mindcv_mnasnet.networks.network import Network

LEAST_TURNS = 5
CALM = 1.05  # a turn counts whose anchor takes at most this times its lowest; beside a busy hyper-thread it took 1.3
_LATELY = 20  # measurements, whose lowest is the anchor's: clocks may stay lower than they were once
_PAUSE_S = 0.3  # after a turn that does not count: other work came and went within seconds
_FIRST = 10  # times of the anchor, a pause after each, that tell its lowest at the start
_PATIENCE = 3  # times as many turns as asked for, where other work keeps some of them from counting
_UNEQUAL = 1 / 3  # of what the anchor takes more: beside work that slowed it by 30 %, ratios were up to 10 % off
_PART_ERROR = 0.03  # of a part's ratio: a sum of ten parts is three times as exact
_PART_CALLS = 3  # of the anchor in a turn: it takes ten times as long as a part
_MEDIAN = math.sqrt(math.pi / 2)  # standard error of a median against that of a mean, for normal values
_MAD = 1.4826  # a normal deviation by the median absolute deviation


@dataclass(frozen=True)
class Ratio:
    """The median of ``turns`` ratios and its standard error, as a share of it; ``times`` are the network's, in ms.

    ``anchor_ms``: the anchor's lowest time.
    """

    value: float
    error: float
    turns: int
    times: tuple[float, ...]
    anchor_ms: float


def in_turns(
    network: Clock, anchor: Clock, most: int, error: float, lowest: float | None = None, pause_s: float = 0.0
) -> Ratio:
    """Time both in turns, A-B-B-A, until the ratio's standard error is at most ``error``, or ``most`` turns.

    Args:
        lowest: the anchor's lowest time lately, in ms. Turns count where the anchor takes at most ``CALM`` times the
            lowest; up to three times ``most`` are taken until ``most`` count. Where fewer than ``LEAST_TURNS`` of
            them do, all count, and the error is at least what such turns were seen to be off. None counts all.
        pause_s: seconds to wait after a turn that does not count.
    """
    turns: list[tuple[float, float]] = []
    least = min(LEAST_TURNS, most)
    limit = math.inf
    while True:
        first, second = (network, anchor) if len(turns) % 2 == 0 else (anchor, network)
        one, other = first(), second()
        turns.append((one, other) if len(turns) % 2 == 0 else (other, one))
        if lowest is not None:
            lowest = min(lowest, turns[-1][1])
            limit = CALM * lowest
        calm = [turn for turn in turns if turn[1] <= limit]
        ended = len(calm) >= most or len(turns) >= _PATIENCE * most
        if len(calm) >= least and ((found := _ratio(calm)).error <= error or ended):
            return found
        if ended:
            assert lowest is not None  # or all would count
            return _disturbed(turns, lowest)
        if turns[-1][1] > limit:
            time.sleep(pause_s)


def _disturbed(turns: Sequence[tuple[float, float]], lowest: float) -> Ratio:
    """The ratio of turns beside other work: how slow the anchor was tells more of its error than the spread does."""
    found = _ratio(turns)
    excess = float(np.median([anchor for _, anchor in turns])) / lowest - 1
    return replace(found, error=max(found.error, _UNEQUAL * excess))


def _ratio(turns: Sequence[tuple[float, float]]) -> Ratio:
    own, reference = np.array(turns).T
    logs = np.log(own / reference)
    middle = float(np.median(logs))
    spread = _MAD * float(np.median(np.abs(logs - middle)))
    error = _MEDIAN * spread / math.sqrt(len(turns))
    return Ratio(math.exp(middle), error, len(turns), tuple(own.tolist()), float(reference.min()))


class TurnsMeter:
    """Measures networks in turns with an anchor; its milliseconds are ratios times ``anchor_ms``.

    ``meter`` is of a device: one with ``opened``. ``most`` and ``error`` are of ``in_turns``. On this machine, where a
    clock tells the lowest of several calls, turns count by the anchor's speed; a command's times spread too far.
    """

    def __init__(self, meter: Any, anchor: Network, anchor_ms: float, most: int, error: float):
        self._meter, self._anchor, self._anchor_ms = meter, anchor, anchor_ms
        self._most, self._error = most, error
        self._lowest: deque[float] = deque(maxlen=_LATELY)
        self._for_parts = ExitStack()
        self._anchor_of_parts: Clock | None = None

    def measure(self, network: Network) -> Latency:
        """See ``Meter``."""
        with self._meter.opened(network) as clock, self._meter.opened(self._anchor) as anchor:
            if getattr(self._meter, "locks", False):
                found = in_turns(clock, anchor, self._most, self._error)
            else:
                with one_at_a_time():
                    found = self._counted(clock, anchor)
        return self._record(found, network)

    def measure_part(self, part: Folded) -> Latency:
        """The latency of one of ``folded.parts``; all turns count, as errors of parts of a network cancel.

        A command is asked for the part alone: it repeats its calls itself.
        """
        if getattr(self._meter, "locks", False):
            return self._meter.measure_part(part)
        if self._anchor_of_parts is None:  # opened once: it takes longer than a part's turns
            self._anchor_of_parts = self._for_parts.enter_context(self._meter.opened(self._anchor, _PART_CALLS))
        with self._meter.opened_part(part) as clock, one_at_a_time():
            found = in_turns(clock, self._anchor_of_parts, self._most, _PART_ERROR)
        return self._record(found, part.network)

    def close(self) -> None:
        """Close what parts were measured beside."""
        self._for_parts.close()
        self._anchor_of_parts = None

    def _record(self, found: Ratio, network: Network) -> Latency:
        ms = found.value * self._anchor_ms
        return replace(
            self._meter.describe(network),
            median_ms=ms,
            mean_ms=ms,
            std_ms=float(np.std(found.times)),
            p90_ms=float(np.percentile(found.times, 90)),
            repetitions=found.turns,
            ratio=found.value,
            ratio_error=found.error,
            turns=found.turns,
        )

    def _counted(self, network: Clock, anchor: Clock) -> Ratio:
        for _ in range(0 if self._lowest else _FIRST):
            self._lowest.append(anchor())
            time.sleep(_PAUSE_S)
        found = in_turns(network, anchor, self._most, self._error, min(self._lowest), _PAUSE_S)
        self._lowest.append(found.anchor_ms)
        return found
