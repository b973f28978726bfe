"""Ways to choose what is tried next, behind one interface: random search, regularized evolution, NSGA-II.

The controller of the paper has a file of its own, ``controller``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mindcv_mnasnet.errors import UserError, require_extra
from mindcv_mnasnet.search.space import Space, Tokens
from mindcv_mnasnet.search.strategy import NAMES, Accept, Arrays, Outcome, Strategy, draw, generator


class RandomSearch:
    """Draws evenly; learns nothing."""

    def __init__(self, space: Space, seed: int):
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

    def __init__(self, space: Space, seed: int, population: int):
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
        self._population += [(one.tokens, one.reward) for one in outcomes]
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


class NSGA2:
    """Accuracy up and latency down at once, by Optuna's NSGA-II (Deb et al. 2002); needs the extra ``search``.

    Its state is the history: loading asks and tells all generations again, which takes milliseconds each.
    """

    def __init__(self, space: Space, seed: int, population: int):
        self._optuna = require_extra("optuna", "search")
        self._space, self._seed, self._population = space, seed, population
        self._begin()

    def _begin(self) -> None:
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        sampler = self._optuna.samplers.NSGAIISampler(population_size=self._population, seed=self._seed)
        self._study = self._optuna.create_study(sampler=sampler, directions=["maximize", "minimize"])
        self._asked: dict[int, list[tuple[Any, Tokens]]] = {}
        self._history: list[list[list[float | None]]] = []
        self._refused: list[tuple[int, Tokens]] = []

    def ask(self, generation: int, count: int, accept: Accept | None = None) -> list[Tokens]:
        """See ``Strategy``."""
        if generation not in self._asked:
            asked: list[tuple[Any, Tokens]] = []
            for _ in range(count):
                draw(lambda: self._propose(asked), accept, lambda: self._refuse(asked))
            self._asked[generation] = asked
        return [tokens for _, tokens in self._asked[generation]]

    def _propose(self, asked: list[tuple[Any, Tokens]]) -> Tokens:
        trial = self._study.ask()
        named = enumerate(self._space.allowed)
        tokens = tuple(int(trial.suggest_categorical(f"d{i}", one)) for i, one in named)
        asked.append((trial, tokens))
        return tokens

    def _refuse(self, asked: list[tuple[Any, Tokens]]) -> None:
        trial, tokens = asked.pop()
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        self._refused.append((len(self._history), tokens))

    def tell(self, generation: int, outcomes: Sequence[Outcome]) -> None:
        """See ``Strategy``."""
        states = self._optuna.trial.TrialState
        told = self._asked.pop(generation)
        for (trial, _), one in zip(told, outcomes, strict=True):
            if one.accuracy is None or one.latency_ms is None:
                self._study.tell(trial, state=states.FAIL)
            else:
                self._study.tell(trial, [one.accuracy, one.latency_ms])
        self._history.append([[one.accuracy, one.latency_ms] for one in outcomes])

    def state(self) -> Arrays:
        """See ``Strategy``."""
        stored = {"history": self._history, "refused": self._refused}
        return {"history": np.frombuffer(json.dumps(stored).encode(), np.uint8)}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """See ``Strategy``."""
        self._begin()
        stored = json.loads(state["history"].tobytes())
        refused = {(generation, tuple(tokens)) for generation, tokens in stored["refused"]}
        for generation, results in enumerate(stored["history"]):
            known = {tokens for at, tokens in refused if at == generation}
            asked = self.ask(generation, len(results), lambda tokens, known=known: tokens not in known)  # type: ignore[misc]
            told = zip(asked, results, strict=True)
            self.tell(generation, [Outcome(tokens, 0.0, accuracy, latency) for tokens, (accuracy, latency) in told])


def make_strategy(name: str, space: Space, seed: int, population: int = 50) -> Strategy:
    """The strategy of that name; ``population`` is what evolution and NSGA-II breed from.

    Raises:
        UserError: an unknown name, or one whose extra is not installed.
    """
    if name == "controller":
        from mindcv_mnasnet.search.controller import Controller

        return Controller(space, seed)
    if name == "random":
        return RandomSearch(space, seed)
    makers: dict[str, Any] = {"evolution": Evolution, "nsga2": NSGA2}
    if name not in makers:
        raise UserError(f"strategy: {name!r} is unknown; it can be {', '.join(NAMES)}")
    made: Strategy = makers[name](space, seed, population)
    return made
