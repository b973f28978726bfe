"""How a search spends the time that it is given: networks per rung and epochs of each."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.search.work import FORWARD

_SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_SHARES = (0.4, 0.3, 0.3)  # of the budget, per rung
MOST_TRIALS, LEAST_TRIALS, BATCH = 72, 12, 6
_LEAST_PART = 0.06  # of the final recipe's epochs, in the first rung: shorter trainings of small sets are chance
_MEASURED = 500  # held-out images at least, as far as three tenths of the set reach: 170 have errors of 4 points
_KEPT = (4.5, 14.0)  # the first rung's networks for one of the second, and of the third


@dataclass(frozen=True)
class Plan:
    """Networks and epochs per rung, and the seconds that each rung takes."""

    networks: tuple[int, ...]
    epochs: tuple[int, ...]
    seconds: tuple[float, ...]


def parse_duration(text: str) -> float:
    """Seconds of ``2h``, ``90min``, ``1h 30min``.

    Raises:
        UserError: it is no duration.
    """
    found = re.findall(r"(\d+(?:\.\d+)?)\s*(min|[smhd])", text)
    if not found or re.sub(r"(\d+(?:\.\d+)?)\s*(min|[smhd])", "", text).strip():
        raise UserError(f"budget: {text!r} is no duration, such as 2h, 90min or 1h 30min")
    return float(sum(float(number) * _SECONDS[unit] for number, unit in found))


def held_out_share(images: int) -> float:
    """The share of so many training images that measures accuracy in a search: a tenth, of small sets more."""
    return round(min(0.3, max(0.1, _MEASURED / images)), 3)


def plan(
    budget_s: float,
    workers: int,
    images: int,
    held_out: int,
    images_per_second: float,
    start_s: float,
    most_epochs: int,
) -> Plan:
    """A plan for ``workers`` workers of that speed that keeps to the budget, as nearly as whole epochs allow.

    Args:
        images: that a network is trained on; ``held_out``: that it is validated on.
        images_per_second, start_s: of one training while all workers work, see ``timing.Speed``.
        most_epochs: of the final recipe; no rung has more.
    Raises:
        UserError: the budget is too short for the fewest networks; names the shortest that is not.
    """
    fixed, epoch = start_s + held_out / (FORWARD * images_per_second), images / images_per_second
    shares = [share * budget_s * workers for share in _SHARES]
    shortest = max(1, round(_LEAST_PART * most_epochs))
    first = fixed + shortest * epoch
    least = LEAST_TRIALS * first / (_SHARES[0] * workers)
    if budget_s < least:
        raise UserError(
            f"budget: {budget_s / 60:.0f} min is too short for {LEAST_TRIALS} networks of {shortest} epoch(s) each; "
            f"{math.ceil(least / 60)} min are needed on this machine"
        )
    count = max(LEAST_TRIALS, min(MOST_TRIALS, int(shares[0] / first) // BATCH * BATCH))
    networks = (count, max(3, round(count / _KEPT[0])), max(2, round(count / _KEPT[1])))
    epochs: list[int] = []
    for number, share in zip(networks, shares, strict=True):
        fits = int((share / number - fixed) / epoch)
        epochs.append(max(epochs[-1] if epochs else shortest, min(most_epochs, fits)))
    seconds = tuple(number * (fixed + n * epoch) / workers for number, n in zip(networks, epochs, strict=True))
    return Plan(networks, tuple(epochs), seconds)
