"""What a search maximizes: accuracy, weighed by latency against a target."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mindcv_mnasnet.networks.blocks import check, is_number

#: (alpha, beta) by name. MnasNet, section 3: soft (doubling the latency buys about 5 % relative accuracy) and hard;
#: MobileNetV3, section 4.1, for small networks.
EXPONENTS = {"soft": (-0.07, -0.07), "hard": (0.0, -1.0), "mobilenetv3": (-0.15, -0.15)}
#: Most that the factor can be: an absurdly small latency (a broken measurement) must not win.
MOST = 2.0


@dataclass(frozen=True)
class Reward:
    """``accuracy * (latency / target) ** w``, w = ``alpha`` up to the target and ``beta`` above it, in [0, 2].

    MnasNet, equation 2 and 3. A trial that failed has a reward of 0.
    """

    target_ms: float
    alpha: float = -0.07
    beta: float = -0.07

    def __post_init__(self) -> None:
        check(is_number(self.target_ms) and self.target_ms > 0, "target_ms", self.target_ms, "above 0")
        for key in ("alpha", "beta"):
            check(is_number(getattr(self, key)) and -10 <= getattr(self, key) <= 0, key, getattr(self, key), "-10 to 0")

    def __call__(self, accuracy: float, latency_ms: float) -> float:
        """The reward of ``accuracy`` in [0, 1]; 0 for values that are not finite or impossible."""
        if not (math.isfinite(accuracy) and math.isfinite(latency_ms) and latency_ms > 0):
            return 0.0
        exponent = self.alpha if latency_ms <= self.target_ms else self.beta
        factor = math.exp(min(exponent * math.log(latency_ms / self.target_ms), math.log(MOST)))
        return min(max(accuracy, 0.0), 1.0) * factor
