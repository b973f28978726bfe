"""Latencies of candidates, one measurement at a time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from mindcv_mnasnet.latency.record import Latency, LatencyError, Meter
from mindcv_mnasnet.search.candidates import Candidate, network_key


class Measurements:
    """Measures in a thread of its own; equal networks are measured once.

    ``before``: whether a generation is measured before its trainings begin, not beside them.
    """

    def __init__(self, meter: Meter, before: bool):
        self.meter, self.before = meter, before
        self._device = ThreadPoolExecutor(1)
        self._found: dict[tuple[str, ...], Future[Latency]] = {}
        self._keys: dict[int, tuple[str, ...]] = {}

    def begin(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Start measuring; returns those whose measurement is known to have failed."""
        for candidate in candidates:
            key = self._keys[candidate.number] = network_key(candidate.network)
            if key not in self._found:
                self._found[key] = self._device.submit(self.meter.measure, candidate.network)
        return [one for one in candidates if self.before and self._future(one).exception() is not None]

    def of(self, candidate: Candidate) -> tuple[Latency | None, str]:
        """A candidate's latency, waited for; or None and the reason. A failure is forgotten: another try may do."""
        try:
            return self._future(candidate).result(), ""
        except LatencyError as error:
            self._found.pop(self._keys[candidate.number], None)
            return None, str(error)

    def _future(self, candidate: Candidate) -> Future[Latency]:
        if candidate.number not in self._keys or self._keys[candidate.number] not in self._found:
            self._keys[candidate.number] = key = network_key(candidate.network)
            self._found[key] = self._device.submit(self.meter.measure, candidate.network)
        return self._found[self._keys[candidate.number]]

    def close(self) -> None:
        """Wait for the running measurement and begin no other."""
        self._device.shutdown(cancel_futures=True)
