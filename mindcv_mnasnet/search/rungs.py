"""Longer trainings for the best networks, rung by rung, and the finalists' by their own recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from mindcv_mnasnet.files import replace_file
from mindcv_mnasnet.latency.record import LatencyError
from mindcv_mnasnet.search.candidates import Candidate
from mindcv_mnasnet.search.evaluators import Evaluator
from mindcv_mnasnet.search.folder import SearchFolder
from mindcv_mnasnet.search.keys import KEEP
from mindcv_mnasnet.search.ledger import Ledger
from mindcv_mnasnet.search.measurements import Measurements
from mindcv_mnasnet.search.results import keeping_band, ranked, read_again
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.space import Space
from mindcv_mnasnet.search.trials import Trial

_APART = 2  # decisions between finalists


class Rungs:
    """Trains the best of every rung on the next one; references are trained on all."""

    def __init__(
        self,
        settings: Settings,
        space: Space,
        folder: SearchFolder,
        ledger: Ledger,
        measurements: Measurements,
        stopped: Callable[[], bool],
    ):
        self._settings, self._space, self._folder = settings, space, folder
        self._ledger, self._measurements, self._stopped = ledger, measurements, stopped

    def run(self, evaluator: Evaluator) -> None:
        """Train on the rungs, every network with the search's own seed, and measure the best once more."""
        for rung, keys in enumerate(self._settings.rungs, start=1):
            chosen = self._within(ranked(self._ledger.of(rung - 1)))[: keys[KEEP]]
            self._train(chosen, rung, evaluator)
            if self._stopped():
                return
        self._measure_again()

    def train_finalists(self, evaluator: Evaluator) -> None:
        """Train finalists and references by the recipe itself, on all its training images."""
        last = len(self._settings.rungs)
        found = ranked(self._ledger.of(last))
        kept = keeping_band(found, self._settings, read_again(self._folder.again))
        self._train(self._apart(kept), last + 1, evaluator)

    def _within(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those within the target, where the search keeps to it."""
        target = self._settings.target_ms
        if self._settings.band is None:
            return list(trials)
        return [trial for trial in trials if trial.latency_ms is not None and trial.latency_ms <= target]

    def _apart(self, trials: Sequence[Trial]) -> list[Trial]:
        """The first ones that differ in two decisions from each other."""
        chosen: list[Trial] = []
        for trial in trials:
            distances = [sum(a != b for a, b in zip(trial.tokens, one.tokens, strict=True)) for one in chosen]
            if len(chosen) < self._settings.finalists and all(distance >= _APART for distance in distances):
                chosen.append(trial)
        return chosen

    def _train(self, chosen: Sequence[Trial], rung: int, evaluator: Evaluator) -> None:
        references = self._ledger.references()
        candidates = {
            trial.number: Candidate(
                trial.number,
                trial.generation,
                trial.tokens,
                self._space.network(trial.tokens),
                self._settings.seed,
                rung,
            )
            for trial in chosen
        } | {number: replace(one, rung=rung) for number, one in references.items()}
        missing = [one for number, one in candidates.items() if self._ledger.done(number, rung) is None]
        for number, result in evaluator.run(iter(missing)):
            self._ledger.keep([self._ledger.trial(candidates[number], self._measurements, result)])

    def _measure_again(self) -> None:
        """Measure the best once more until enough of them are within the target."""
        settings = self._settings
        if settings.band is None:
            return
        found = {str(number): ms for number, ms in read_again(self._folder.again).items()}
        wanted = max(settings.finalists, settings.top)
        kept = 0
        for trial in ranked(self._ledger.of(len(settings.rungs))):
            if kept >= wanted or self._stopped():
                break
            if str(trial.number) not in found:
                try:
                    latency = self._measurements.again(self._space.network(trial.tokens))
                except LatencyError:
                    continue
                found[str(trial.number)] = latency.median_ms
                replace_file(self._folder.again, json.dumps(found).encode())
            kept += found[str(trial.number)] <= settings.target_ms
