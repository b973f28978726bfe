"""How well one list of numbers ranks as another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats  # comes with scikit-learn

from mindcv_mnasnet.errors import UserError


@dataclass(frozen=True)
class Agreement:
    """Rank correlations in [-1, 1] (nan where a list is constant) and the mean relative error of ``predicted``."""

    count: int
    spearman: float
    kendall: float
    relative_error: float


def agreement(predicted: Sequence[float], real: Sequence[float]) -> Agreement:
    """Compare two lists of equal length.

    Raises:
        UserError: fewer than three pairs, which have no rank to speak of.
    """
    if len(predicted) != len(real) or len(real) < 3:
        raise UserError(f"a comparison of ranks needs 3 pairs or more, not {min(len(predicted), len(real))}")
    a, b = np.asarray(predicted, float), np.asarray(real, float)
    errors = np.abs(a - b) / np.maximum(np.abs(b), 1e-12)
    spearman, kendall = (float(test(a, b).statistic) for test in (stats.spearmanr, stats.kendalltau))
    return Agreement(len(a), spearman, kendall, float(errors.mean()))


def interval_of_ranks(a: Sequence[float], b: Sequence[float], resamples: int = 2000) -> tuple[float, float]:
    """The 95 % interval of Spearman's correlation of two lists of equal length, by the percentile bootstrap of pairs.

    Draws in which one list is constant have no correlation and are left out; nan for both where none has any.
    """
    drawn = np.random.default_rng(0).integers(len(a), size=(resamples, len(a)))
    x, y = (stats.rankdata(np.asarray(values, float)[drawn], axis=1) for values in (a, b))
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    found = (x * y).sum(axis=1)[scale > 0] / scale[scale > 0]
    if not len(found):
        return (np.nan, np.nan)
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)
