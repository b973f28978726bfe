"""The number that epochs and checkpoints are ranked by: one for each task, of averaged weights where there are some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Scores by the name of their metric, and what people call them; all in percent, more is better.
TITLES = {"top1": "top-1", "ap": "AP"}


def score_of(metrics: Mapping[str, Any]) -> float | None:
    """The score among an epoch's metrics, or None where nothing was validated."""
    for name in TITLES:
        score = metrics.get(f"val_{name}_ema", metrics.get(f"val_{name}"))
        if score is not None:
            return float(score)
    return None
