"""The search on a public table of real trainings: NAS-Bench-Macro (Su et al. 2021).

The table (github.com/xiusu/NAS-Bench-Macro, Apache-2.0, not included) holds 6561 networks of eight layers with
three choices each, trained on CIFAR-10 for 50 epochs with three seeds, and their multiply-adds. Short trainings are not
in it, so they are simulated: the mean accuracy and Gaussian noise, half of whose variance a network keeps on all rungs.
The deviation of the noise is chosen for the rank correlations in the band that are published for NAS-Bench-201 after 1
and 5 epochs of 200, 0.45 and 0.68. Full trainings are not simulated: they are the table's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats  # comes with scikit-learn

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.search.decisions import PlainDecisions, Tokens
from mindcv_mnasnet.search.strategies import make_strategy
from mindcv_mnasnet.search.strategy import Outcome

SPACE = PlainDecisions(((0, 1, 2),) * 8)
LEAST_SHARE = 0.85  # of the band's upper end
NOISE = (1.5, 0.9)  # per rung, in deviations of the band's accuracies
FIRST, BATCH, BATCHES = 24, 6, 4  # proposals: random ones, then batches
KEPT = (10, 3)  # networks on the second rung, and trained in full
RANDOM_FULL = 6  # random networks trained in full at no less cost than a whole search


@dataclass(frozen=True)
class Band:
    """Networks within a band of multiply-adds: accuracies in per cent, float64 (networks, 3 seeds), by tokens."""

    tokens: tuple[Tokens, ...]
    accuracies: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """True accuracies: means over seeds."""
        return np.asarray(self.accuracies.mean(1))


def read_band(path: str | Path, madds: float) -> Band:
    """The networks of the file with 0.85 to 1 times ``madds``.

    Raises:
        UserError: the file is not there or is another one.
    """
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
        kept = {name: row for name, row in rows.items() if LEAST_SHARE * madds <= row["flops"] <= madds}
        tokens = tuple(tuple(int(digit) for digit in name) for name in sorted(kept))
        accuracies = np.array([kept[name]["test_acc"] for name in sorted(kept)])
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        raise UserError(f"{path} is not the file of NAS-Bench-Macro") from None
    if not tokens:
        raise UserError(f"{path} has no network of {madds:g} multiply-adds")
    return Band(tokens, accuracies)


def search_once(band: Band, strategy: str, seed: int) -> dict[str, float]:
    """One search by a strategy and what its budget gives otherwise; true accuracies in per cent.

    ``finalists``: the best of three that were trained in full. ``proxies``: the best of the 48 short trainings.
    ``random``: the best of six random networks that were trained in full.
    """
    rng = np.random.default_rng([seed, 1])
    index = {tokens: place for place, tokens in enumerate(band.tokens)}
    means, count = band.means, len(band.tokens)
    shared = rng.normal(size=count)
    scores = [means + sigma * means.std() * (shared + rng.normal(size=count)) * 0.5**0.5 for sigma in NOISE]
    tried = _propose(strategy, seed, index, scores[0])
    second = sorted(tried, key=lambda place: -scores[0][place])[: KEPT[0]]
    final = sorted(second, key=lambda place: -scores[1][place])[: KEPT[1]]
    drawn = rng.choice(count, RANDOM_FULL, replace=False)
    seen = band.accuracies[:, rng.integers(band.accuracies.shape[1])]  # one training each
    return {
        "finalists": float(means[max(final, key=lambda place: seen[place])]),
        "proxies": float(means[max(tried, key=lambda place: scores[0][place])]),
        "random": float(means[max(drawn, key=lambda place: seen[place])]),
    }


def _propose(name: str, seed: int, index: dict[Tokens, int], scores: np.ndarray) -> list[int]:
    """The places of the networks that a strategy tries in the band."""
    strategy = make_strategy(name, SPACE, seed, FIRST)
    tried: list[int] = []
    for generation, size in enumerate((FIRST, *(BATCH,) * BATCHES)):
        asked = strategy.ask(generation, size, lambda tokens: tokens in index)
        places = [index[tokens] for tokens in asked]
        answered = zip(asked, places, strict=True)
        strategy.tell(generation, [Outcome(tokens, scores[place], scores[place]) for tokens, place in answered])
        tried += places
    return list(dict.fromkeys(tried))


def compare(band: Band, seeds: Sequence[int]) -> dict[str, Any]:
    """Searches by the predictor beside other uses of the budget: mean accuracies in per cent and tests.

    For every rival the mean difference, its 95 % interval, how often it is above 0 and below it, and the one-sided p of
    a sign test.
    """
    predictor = [search_once(band, "predictor", seed) for seed in seeds]
    random = [search_once(band, "random", seed) for seed in seeds]
    ours = np.array([found["finalists"] for found in predictor])
    rivals = {
        "best of as many random proxies": [found["proxies"] for found in random],
        "best of the predictor's own proxies": [found["proxies"] for found in predictor],
        "random networks trained in full": [found["random"] for found in random],
        "the same rungs, random proposals": [found["finalists"] for found in random],
    }
    return {
        "networks": len(band.tokens),
        "seeds": len(seeds),
        "predictor with verified finalists": round(float(ours.mean()), 3),
        "best in the band": round(float(band.means.max()), 3),
        "rivals": {name: _difference(ours, np.array(values)) for name, values in rivals.items()},
    }


def _difference(ours: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    """How far ours are above others, seed by seed."""
    found = ours - others
    above, below = int((found > 0).sum()), int((found < 0).sum())
    half = float(stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5)
    test = stats.binomtest(above, above + below, alternative="greater") if above + below else None
    return {
        "mean": round(float(others.mean()), 3),
        "difference": round(float(found.mean()), 3),
        "interval": [round(float(found.mean()) - half, 3), round(float(found.mean()) + half, 3)],
        "above": above,
        "below": below,
        "p": 1.0 if test is None else float(f"{test.pvalue:.2g}"),
    }
