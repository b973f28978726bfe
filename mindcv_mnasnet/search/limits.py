"""Bounds of what a search may propose."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import Network


@dataclass(frozen=True)
class Limits:
    """Bounds of parameters and multiply-adds. None: unbounded."""

    min_params: float | None = None
    max_params: float | None = None
    min_madds: float | None = None
    max_madds: float | None = None

    @property
    def bounded(self) -> bool:
        """Whether there is any bound."""
        return self != Limits()

    def allow(self, network: Network) -> bool:
        """Whether a network is within the bounds, which count as inside."""
        cost = network_cost(network)
        return _between(self.min_params, cost.params, self.max_params) and _between(
            self.min_madds, cost.madds, self.max_madds
        )


def _between(low: float | None, value: float, high: float | None) -> bool:
    return (-math.inf if low is None else low) <= value <= (math.inf if high is None else high)
