"""The band of latencies that a search keeps to."""

from __future__ import annotations

from mindcv_mnasnet.latency.record import LatencyError, Meter
from mindcv_mnasnet.search.decisions import Tokens
from mindcv_mnasnet.search.measurements import Measurements
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.space import Space

SLACK = 1.04  # ratios of one network lie within it


class Band:
    """Accepts networks of ``band`` to 1 times the target: by a table where there is one, else measured."""

    def __init__(self, settings: Settings, space: Space, measurements: Measurements, table: Meter | None):
        assert settings.band is not None
        self._space, self._measurements, self._table = space, measurements, table
        self._low, self._high = settings.band * settings.target_ms, settings.target_ms
        self._seen: dict[Tokens, bool] = {}

    def __call__(self, tokens: Tokens) -> bool:
        if tokens not in self._seen:
            milliseconds = self._predict(tokens)
            self._seen[tokens] = milliseconds is not None and self._low <= milliseconds <= self._high
        return self._seen[tokens]

    def nearly(self, tokens: Tokens) -> bool:
        """Whether a network is within the band by the error of a measurement: so is the anchor itself."""
        milliseconds = self._predict(tokens)
        return milliseconds is not None and self._low / SLACK <= milliseconds <= self._high * SLACK

    def _predict(self, tokens: Tokens) -> float | None:
        network = self._space.network(tokens)
        if self._table is None:
            latency, _ = self._measurements.of(network)
            return None if latency is None else latency.median_ms
        try:
            return self._table.measure(network).median_ms
        except LatencyError:
            return None
