"""Ways to choose what is tried next, by name; random search and regularized evolution are here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.search.decisions import Decisions, Tokens
from mindcv_mnasnet.search.strategy import NAMES, Accept, Arrays, Outcome, Strategy, draw, generator

CONTROLLER_FROM = 4000  # trials: at 1000 evolution finds better networks, at 8000 the controller


class RandomSearch:
    """Draws evenly; learns nothing."""

    def __init__(self, space: Decisions, seed: int):
        self._space, self._seed = space, seed

    def ask(self, generation: int, count: int, accept: Accept | None = None) -> list[Tokens]:
        """See ``Strategy``."""
        rng = generator(self._seed, generation)
        return [draw(lambda: self._space.random(rng), accept) for _ in range(count)]

    def tell(self, generation: int, outcomes: Sequence[Outcome]) -> None:
        """See ``Strategy``."""

    def state(self) -> Arrays:
        """See ``Strategy``."""
        return {}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """See ``Strategy``."""


class Evolution:
    """Regularized evolution: a child of the best of a random few, and the oldest dies. Real et al. 2019, algorithm 1.

    Their population of 100 and sample of 25 are for 20,000 trials; here a fifth of the population is sampled.
    """

    def __init__(self, space: Decisions, seed: int, population: int):
        self._space, self._seed = space, seed
        self._most, self._sample = population, max(2, population // 5)
        self._population: list[tuple[Tokens, float]] = []

    def ask(self, generation: int, count: int, accept: Accept | None = None) -> list[Tokens]:
        """See ``Strategy``; random ones until the population is full."""
        rng = generator(self._seed, generation)
        found: list[Tokens] = []
        for _ in range(count):
            if len(self._population) + len(found) < self._most:
                found.append(draw(lambda: self._space.random(rng), accept))
            else:
                found.append(draw(lambda: self._child(rng), accept))
        return found

    def _child(self, rng: np.random.Generator) -> Tokens:
        few = rng.choice(len(self._population), min(self._sample, len(self._population)), replace=False)
        best = max(few, key=lambda index: self._population[index][1])
        return self._space.mutate(self._population[best][0], rng)

    def tell(self, generation: int, outcomes: Sequence[Outcome]) -> None:
        """See ``Strategy``."""
        self._population += [(one.tokens, one.reward) for one in outcomes if one.informative]
        self._population = self._population[-self._most :]

    def state(self) -> Arrays:
        """See ``Strategy``."""
        return {
            "tokens": np.array([tokens for tokens, _ in self._population], np.int64).reshape(-1, self._space.length),
            "rewards": np.array([reward for _, reward in self._population], np.float64),
        }

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """See ``Strategy``."""
        tokens = [tuple(int(token) for token in row) for row in state["tokens"]]
        self._population = list(zip(tokens, state["rewards"].tolist(), strict=True))


def default_strategy(trials: int) -> str:
    """The strategy for a number of trials, as the comparison in docs/search.md has it."""
    return "evolution" if trials < CONTROLLER_FROM else "controller"


def make_strategy(
    name: str, space: Decisions, seed: int, population: int = 50, target_ms: float | None = None
) -> Strategy:
    """The strategy of that name.

    Args:
        population: what evolution and NSGA-II breed from, and the random networks before the predictor's first.
        target_ms: latency above which NSGA-II takes a network for one that breaks a constraint.
    Raises:
        UserError: an unknown name, or one whose extra is not installed.
    """
    if name == "controller":
        from mindcv_mnasnet.search.controller import Controller

        return Controller(space, seed)
    if name == "random":
        return RandomSearch(space, seed)
    if name == "evolution":
        return Evolution(space, seed, population)
    if name == "predictor":
        from mindcv_mnasnet.search.predictor import Predictor

        return Predictor(space, seed, population)
    if name == "nsga2":
        from mindcv_mnasnet.search.nsga2 import NSGA2

        return NSGA2(space, seed, population, target_ms)
    raise UserError(f"strategy: {name!r} is unknown; it can be {', '.join(NAMES)}")
