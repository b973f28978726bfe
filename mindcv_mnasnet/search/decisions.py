"""Rows of decisions: all that a strategy has to know of what it searches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Tokens = tuple[int, ...]


class Decisions:
    """Decisions in a fixed order; a network is the row of what was chosen, as indices.

    ``allowed``: for every decision, the indices that it can have.
    """

    allowed: Any

    @property
    def length(self) -> int:
        """Decisions, which are tokens per network."""
        return len(self.allowed)

    @property
    def size(self) -> int:
        """The number of rows."""
        return math.prod(len(one) for one in self.allowed)

    def random(self, rng: np.random.Generator) -> Tokens:
        """Tokens drawn evenly."""
        return tuple(int(one[rng.integers(len(one))]) for one in self.allowed)

    def mutate(self, tokens: Sequence[int], rng: np.random.Generator) -> Tokens:
        """The tokens with one decision, drawn evenly from those that have others, made anew."""
        free = [i for i, one in enumerate(self.allowed) if len(one) > 1]
        position = int(free[rng.integers(len(free))])
        others = [token for token in self.allowed[position] if token != tokens[position]]
        changed = list(tokens)
        changed[position] = int(others[rng.integers(len(others))])
        return tuple(changed)

    def features(self, tokens: Sequence[int]) -> np.ndarray:
        """What a predictor is given of a network: float64 (features,), one-hot per decision."""
        parts = [np.equal(one, token) for one, token in zip(self.allowed, tokens, strict=True) if len(one) > 1]
        return np.concatenate(parts).astype(np.float64)


@dataclass(frozen=True)
class PlainDecisions(Decisions):
    """Decisions without networks behind them, for tables of results."""

    allowed: tuple[tuple[int, ...], ...]
