"""The band of latencies that a search keeps to, and how it knows a network's latency before it measures it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mindcv_mnasnet.latency.growing import GrowingTable
from mindcv_mnasnet.latency.record import LatencyError
from mindcv_mnasnet.latency.table import Table, has_parts
from mindcv_mnasnet.latency.turns import TurnsMeter
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.search.candidates import network_key, reference_of
from mindcv_mnasnet.search.decisions import Tokens
from mindcv_mnasnet.search.measurements import Measurements
from mindcv_mnasnet.search.meters import latency_settings
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.space import Space

SLACK = 1.04  # ratios of one network lie within it
PARTS = "parts.jsonl"
FITTED_ON = 8  # whole networks beside the anchor
_LOOKED_AT = 400  # random networks of the space
_OFF = 1.6  # factor by which multiply-adds of these may differ from the target's

#: Milliseconds of a network, or some number above the most that is asked for.
#: Raises LatencyError where the device failed.
Predict = Callable[[Network, float], float]


class Band:
    """Accepts networks of ``band`` to 1 times the target by their predicted latency."""

    def __init__(self, settings: Settings, space: Space, predict: Predict):
        assert settings.band is not None
        self._space, self._predict = space, predict
        self._low, self._high = settings.band * settings.target_ms, settings.target_ms
        self._seen: dict[Tokens, bool] = {}

    def __call__(self, tokens: Tokens) -> bool:
        if tokens not in self._seen:
            self._seen[tokens] = self._within(tokens, 1.0)
        return self._seen[tokens]

    def nearly(self, tokens: Tokens) -> bool:
        """Whether a network is within the band by the error of a measurement: so is the anchor itself."""
        return self._within(tokens, SLACK)

    def share(self, tokens: Tokens) -> float:
        """The middle of the band as a share of a network's latency.

        Raises:
            LatencyError: the device failed.
        """
        return (self._low + self._high) / 2 / self._predict(self._space.network(tokens), math.inf)

    def _within(self, tokens: Tokens, slack: float) -> bool:
        most = self._high * slack
        try:
            milliseconds = self._predict(self._space.network(tokens), most)
        except LatencyError:
            return False
        return self._low / slack <= milliseconds <= most


def predict_for(settings: Settings, space: Space, measurements: Measurements, folder: Path) -> Predict:
    """By the search's table; else by parts, where the device tells of them; else measured.

    A search asks for hundreds of networks of which it trains a few. Parts are kept in ``parts.jsonl`` of ``folder``,
    with the line from their sums to whole networks, which is fitted when the first network is asked for.
    """
    if settings.latency_table:
        known = Table.read(settings.beside(settings.latency_table))
        return lambda network, most: known.measure(network).median_ms
    if not has_parts(settings.latency):
        return lambda network, most: measurements.milliseconds(network)
    turns = measurements.meter if isinstance(measurements.meter, TurnsMeter) else None
    table = GrowingTable(latency_settings(settings), folder / PARTS, turns)
    named = settings.target_network
    anchor = None if named is None else reference_of(settings, space, named)

    def by_parts(network: Network, most: float) -> float:
        if not table.fitted:
            table.fit(*_measured(settings, space, measurements, anchor or network))
        return table.predict(network, most)

    return by_parts


def _measured(
    settings: Settings, space: Space, measurements: Measurements, anchor: Network
) -> tuple[list[Network], list[float]]:
    """The anchor and random networks of about the target's multiply-adds, and their milliseconds.

    Raises:
        LatencyError: the device failed on the anchor, or on most of the others.
    """
    networks, milliseconds = [anchor], [measurements.milliseconds(anchor)]
    wanted = network_cost(anchor).madds * settings.target_ms / milliseconds[0]

    def off(network: Network) -> float:
        return max(abs(math.log(network_cost(network).madds / wanted)), math.log(_OFF))

    rng = np.random.default_rng(settings.seed)
    drawn = [space.network(space.random(rng)) for _ in range(_LOOKED_AT)]
    different = {network_key(one): one for one in drawn if network_key(one) != network_key(anchor)}
    nearest = sorted(different.values(), key=off)[:FITTED_ON]  # in the order drawn where none is off by more
    reason = ""
    for one in nearest:
        latency, failure = measurements.of(one)
        if latency is None:
            reason = failure
        else:
            networks.append(one)
            milliseconds.append(latency.median_ms)
    if len(networks) - 1 < len(nearest) / 2:
        raise LatencyError(reason)
    return networks, milliseconds
