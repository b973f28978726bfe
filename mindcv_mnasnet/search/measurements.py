"""Latencies of networks, one measurement at a time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from mindcv_mnasnet.latency.record import Latency, LatencyError, Meter
from mindcv_mnasnet.latency.turns import TurnsMeter
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.search.candidates import Candidate, network_key


class Measurements:
    """Measures in a thread of its own; equal networks are measured once.

    ``before``: whether a generation is measured before its trainings begin, not beside them.
    """

    def __init__(self, meter: Meter, before: bool):
        self.meter, self.before = meter, before
        self._device = ThreadPoolExecutor(1)
        self._found: dict[tuple[str, ...], Future[Latency]] = {}

    def begin(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Start measuring; returns those whose measurement is known to have failed."""
        futures = [self._future(candidate.network) for candidate in candidates]
        if not self.before:
            return []
        return [one for one, future in zip(candidates, futures, strict=True) if future.exception() is not None]

    def of(self, network: Network) -> tuple[Latency | None, str]:
        """A network's latency, waited for; or None and the reason. A failure is forgotten: another try may do."""
        try:
            return self._future(network).result(), ""
        except LatencyError as error:
            self._found.pop(network_key(network), None)
            return None, str(error)

    def milliseconds(self, network: Network) -> float:
        """A network's latency, waited for.

        Raises:
            LatencyError: the device failed.
        """
        latency, reason = self.of(network)
        if latency is None:
            raise LatencyError(reason)
        return latency.median_ms

    def again(self, network: Network) -> Latency:
        """A network's latency, measured anew.

        Raises:
            LatencyError: the device failed.
        """
        return self._device.submit(self.meter.measure, network).result()

    def remember(self, network: Network, latency: Latency) -> None:
        """Take a latency that an earlier process measured."""
        future: Future[Latency] = Future()
        future.set_result(latency)
        self._found.setdefault(network_key(network), future)

    def _future(self, network: Network) -> Future[Latency]:
        key = network_key(network)
        if key not in self._found:
            self._found[key] = self._device.submit(self.meter.measure, network)
        return self._found[key]

    def close(self) -> None:
        """Wait for the running measurement and begin no other."""
        self._device.shutdown(cancel_futures=True)
        if isinstance(self.meter, TurnsMeter):
            self.meter.close()
