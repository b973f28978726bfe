"""NSGA-II by Optuna: accuracy up and latency down at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mindcv_mnasnet.errors import require_extra
from mindcv_mnasnet.search.decisions import Decisions, Tokens
from mindcv_mnasnet.search.strategy import Accept, Arrays, Outcome, draw

_EXCESS = "excess_ms"


class NSGA2:
    """NSGA-II (Deb et al. 2002) with a target as constraint; needs the extra ``search``.

    Of two networks above the target the faster wins whatever its accuracy, and both lose to one within it. The state is
    the history: loading asks and tells all generations again, which takes milliseconds each.
    """

    def __init__(self, space: Decisions, seed: int, population: int, target_ms: float | None = None):
        self._optuna = require_extra("optuna", "search")
        self._space, self._seed, self._population, self._target_ms = space, seed, population, target_ms
        self._begin()

    def _begin(self) -> None:
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        constraint = {"constraints_func": _excess} if self._target_ms is not None else {}
        sampler = self._optuna.samplers.NSGAIISampler(population_size=self._population, seed=self._seed, **constraint)
        self._study = self._optuna.create_study(sampler=sampler, directions=["maximize", "minimize"])
        self._asked: dict[int, list[tuple[Any, Tokens]]] = {}
        self._history: list[list[Any]] = []  # ["ask", generation, accepted?...] and ["tell", generation, results]

    def ask(self, generation: int, count: int, accept: Accept | None = None) -> list[Tokens]:
        """See ``Strategy``."""
        if generation not in self._asked:
            asked: list[tuple[Any, Tokens]] = []
            verdicts: list[bool] = []
            for _ in range(count):
                draw(lambda: self._propose(asked, verdicts), accept, lambda: self._refuse(asked, verdicts))
            self._asked[generation] = asked
            self._history.append(["ask", generation, verdicts])
        return [tokens for _, tokens in self._asked[generation]]

    def _propose(self, asked: list[tuple[Any, Tokens]], verdicts: list[bool]) -> Tokens:
        trial = self._study.ask()
        named = enumerate(self._space.allowed)
        tokens = tuple(int(trial.suggest_categorical(f"d{i}", one)) for i, one in named)
        asked.append((trial, tokens))
        verdicts.append(True)
        return tokens

    def _refuse(self, asked: list[tuple[Any, Tokens]], verdicts: list[bool]) -> None:
        trial, _ = asked.pop()
        verdicts[-1] = False
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def tell(self, generation: int, outcomes: Sequence[Outcome]) -> None:
        """See ``Strategy``."""
        results = [[one.accuracy, one.latency_ms] for one in outcomes]
        for (trial, _), (accuracy, latency) in zip(self._asked.pop(generation), results, strict=True):
            if accuracy is None or latency is None:
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
                continue
            trial.set_user_attr(_EXCESS, latency - (self._target_ms or 0.0))
            self._study.tell(trial, [accuracy, latency])
        self._history.append(["tell", generation, results])

    def state(self) -> Arrays:
        """See ``Strategy``."""
        return {"history": np.frombuffer(json.dumps(self._history).encode(), np.uint8)}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """See ``Strategy``."""
        self._begin()
        for what, generation, rows in json.loads(state["history"].tobytes()):
            if what == "ask":
                verdicts = iter(rows)
                self.ask(generation, sum(rows), lambda tokens, verdicts=verdicts: next(verdicts))  # type: ignore[misc]
            else:
                answered = zip(self.ask(generation, len(rows)), rows, strict=True)
                self.tell(generation, [Outcome(tokens, 0.0, accuracy, ms) for tokens, (accuracy, ms) in answered])


def _excess(trial: Any) -> tuple[float]:
    """Milliseconds above the target; not above 0 is within."""
    return (float(trial.user_attrs[_EXCESS]),)
