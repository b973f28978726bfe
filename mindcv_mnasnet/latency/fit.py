"""From the sum of a network's parts to its latency.

Every part pays for a call of the runtime and for laying tensors out anew at the ends of a graph, which blocks inside a
network do not. And a part's weights stay in a processor's cache between two calls, where those of a whole network may
not: on an Intel Xeon with 2 MB of it for a core, networks of 0.2 to 0.8 million weights were predicted to 18 % without
that term and to 6 % with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import Network


@dataclass(frozen=True)
class Fit:
    """What a network takes: ``factor`` times its parts, less a constant for each of them, more for its weights.

    Attributes:
        call_ms: what each part pays more than it would inside a network.
        weight_ms: what a million weights cost a network more than its parts.
        offset_ms: of tables built before there were these.
        fitted_on: whole networks; 0 where there is no fit yet.
    """

    factor: float = 1.0
    offset_ms: float = 0.0
    call_ms: float = 0.0
    weight_ms: float = 0.0
    fitted_on: int = 0

    @classmethod
    def to(cls, total_ms: Sequence[float], networks: Sequence[Network], milliseconds: Sequence[float]) -> Fit:
        """The fit to whole networks: their sums of parts and what they take. No coefficient is below 0.

        Relative errors count, as a space's largest networks take 50 times its smallest.
        """
        rows = np.array([[total, *_counts(network)] for total, network in zip(total_ms, networks, strict=True)])
        (factor, call_ms, weight_ms), _ = nnls(rows / np.array(milliseconds)[:, None], np.ones(len(rows)))
        return cls(float(factor), 0.0, float(call_ms), float(weight_ms), len(networks))

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Fit:
        """A fit from what was stored of it; older ones have fewer coefficients.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        offset, call, weight = (float(stored.get(name, 0.0)) for name in ("offset_ms", "call_ms", "weight_ms"))
        return cls(float(stored["factor"]), offset, call, weight, int(stored.get("fitted_on", 0)))

    def milliseconds(self, total_ms: float, network: Network) -> float:
        """A network's latency by the sum of its parts."""
        return max(self.factor * total_ms + self._rest(network), 1e-6)

    def total_ms(self, milliseconds: float, network: Network) -> float:
        """The sum of parts with which a network has that latency."""
        return (milliseconds - self._rest(network)) / self.factor

    def _rest(self, network: Network) -> float:
        calls, weights = _counts(network)
        return self.offset_ms + self.call_ms * calls + self.weight_ms * weights


def _counts(network: Network) -> tuple[int, float]:
    """Parts, as what is subtracted; and millions of weights."""
    return -(len(network.layers()) + 2), network_cost(network).params / 1e6
