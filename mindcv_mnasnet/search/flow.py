"""Candidates on their way from proposals to trials, beside each other and in any order of their ends."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from mindcv_mnasnet.search.candidates import Candidate, network_key
from mindcv_mnasnet.search.decisions import Tokens
from mindcv_mnasnet.search.evaluators import Evaluator
from mindcv_mnasnet.search.generations import Generations
from mindcv_mnasnet.search.ledger import Ledger
from mindcv_mnasnet.search.measurements import Measurements
from mindcv_mnasnet.search.pools import Result
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.strategy import Outcome
from mindcv_mnasnet.search.trials import INFORMATIVE, Trial


class Flow:
    """Candidates on their way: queued, running, or waiting for an equal one that runs."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        generations: Generations,
        measurements: Measurements,
        evaluator: Evaluator,
        stopped: Callable[[], bool],
    ):
        self._settings, self._ledger, self._generations = settings, ledger, generations
        self._measurements, self._evaluator, self._stopped = measurements, evaluator, stopped
        self._queue: deque[Candidate] = deque()
        self._candidates: dict[int, list[Candidate]] = {}  # of open generations
        self._by_number: dict[int, Candidate] = {}
        self._equal: dict[tuple[str, ...], list[Candidate]] = defaultdict(list)

    def run(self) -> None:
        """Try the references and generation after generation, until the last or a stop.

        References have negative numbers, and no strategy learns of them.
        """
        references = [one for number, one in self._ledger.references().items() if self._ledger.done(number) is None]
        self._equal.update({network_key(one.network): [] for one in references})
        self._start(references)
        for generation, tokens in self._generations.begin():
            self._enter(generation, tokens)
        self._advance()
        if self._evaluator.immediate:
            while self._queue and not self._stopped():
                batch = list(self._queue)
                self._queue.clear()
                results = list(self._evaluator.run(iter(batch)))
                trials = [self._trial(number, result) for number, result in results]
                self._end(trials)
        elif self._queue:
            for number, result in self._evaluator.run(self._waiting()):
                self._end([self._trial(number, result)])

    def _waiting(self) -> Iterator[Candidate | None]:
        """The next candidate whenever a worker is free; None where it has to wait for results."""
        while (self._candidates or self._queue) and not self._stopped():
            yield self._queue.popleft() if self._queue else None

    def _trial(self, number: int, result: Result) -> Trial:
        return self._ledger.trial(self._by_number[number], self._measurements, result)

    def _end(self, trials: Sequence[Trial]) -> None:
        """Keep trials that ended and their equals, then learn where a generation is complete."""
        self._ledger.keep(trials)
        again = []
        for trial in trials:
            candidate = self._by_number.pop(trial.number)
            waiting = self._equal.pop(network_key(candidate.network), [])
            again += [_again(trial, one) for one in waiting]
        if again:
            self._ledger.keep(again)
        self._advance()

    def _advance(self) -> None:
        """Tell the strategy of complete generations, oldest first, and enter what it proposes next."""
        while (candidates := self._candidates.get(self._generations.oldest)) is not None:
            trials = [self._ledger.done(candidate.number) for candidate in candidates]
            found = [trial for trial in trials if trial is not None]
            if len(found) < len(trials):
                return
            del self._candidates[self._generations.oldest]
            new = self._generations.tell([_outcome(trial) for trial in found])
            self._ledger.require_health()
            if self._stopped():
                return
            for generation, tokens in new.items():
                self._enter(generation, tokens)

    def _enter(self, generation: int, tokens: Sequence[Tokens]) -> None:
        """Queue a generation's networks, but for those that were tried or are being tried."""
        first = self._generations.number(generation)
        candidates = [self._ledger.candidate(first + i, generation, one) for i, one in enumerate(tokens)]
        self._candidates[generation] = candidates
        new, again = [], []
        for candidate in candidates:
            key = network_key(candidate.network)
            if self._ledger.done(candidate.number) is not None:
                continue
            if (known := self._ledger.known(key)) is not None:
                again.append(_again(known, candidate))
            elif key in self._equal:
                self._equal[key].append(candidate)
            else:
                self._equal[key] = []
                new.append(candidate)
        if again:
            self._ledger.keep(again)
        self._start(new)

    def _start(self, new: Sequence[Candidate]) -> None:
        """Measure candidates, and queue those whose measurement did not fail."""
        self._by_number.update({candidate.number: candidate for candidate in new})
        failed = self._measurements.begin(new)
        self._queue.extend(candidate for candidate in new if candidate not in failed)
        if failed:
            self._end([self._trial(candidate.number, Result("unmeasured")) for candidate in failed])


def _outcome(trial: Trial) -> Outcome:
    accuracy = trial.accuracy if trial.ok else None
    return Outcome(trial.tokens, trial.reward, accuracy, trial.latency_ms, trial.status in INFORMATIVE)


def _again(known: Trial, candidate: Candidate) -> Trial:
    """The trial of a network that was tried before."""
    return replace(
        known,
        number=candidate.number,
        generation=candidate.generation,
        tokens=candidate.tokens,
        blocks=candidate.network.block_strings,
        seconds=0.0,
        repeats=known.number,
        name="",
    )
