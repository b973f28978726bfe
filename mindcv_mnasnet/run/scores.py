"""The number that epochs and checkpoints are ranked by: one for each task, of averaged weights or raw ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Scores by the name of their metric, and what people call them; all in percent, more is better.
TITLES = {"top1": "top-1", "ap": "AP"}


def score_of(metrics: Mapping[str, Any]) -> float | None:
    """The score among an epoch's metrics, of the better set of weights, or None where nothing was validated."""
    found = [score for score in _scores(metrics) if score is not None]
    return max(found, default=None)


def better_weights(metrics: Mapping[str, Any]) -> str:
    """``ema``, or ``raw`` where an epoch's metrics say that the raw weights score higher."""
    averaged, raw = _scores(metrics)
    return "raw" if averaged is not None and raw is not None and raw > averaged else "ema"


def of_better_weights(metrics: Mapping[str, Any], name: str) -> float | None:
    """``val_<name>`` of the weights that ``better_weights`` names, or None where it was not measured."""
    raw = metrics.get(f"val_{name}")
    return raw if better_weights(metrics) == "raw" else metrics.get(f"val_{name}_ema", raw)


def _scores(metrics: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The scores of averaged and of raw weights."""
    for name in TITLES:
        averaged, raw = metrics.get(f"val_{name}_ema"), metrics.get(f"val_{name}")
        if averaged is not None or raw is not None:
            return averaged, raw
    return None, None
