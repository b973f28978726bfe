"""The search itself: propose, measure, train, learn; every step on disk before the next."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from mindcv_mnasnet.search.candidates import Candidate, reference_network
from mindcv_mnasnet.search.evaluators import Evaluator, open_evaluator
from mindcv_mnasnet.search.flow import Flow
from mindcv_mnasnet.search.folder import SearchFolder
from mindcv_mnasnet.search.generations import Generations
from mindcv_mnasnet.search.keys import ON_THIS_MACHINE
from mindcv_mnasnet.search.ledger import Ledger
from mindcv_mnasnet.search.measurements import Measurements
from mindcv_mnasnet.search.meters import meter_for
from mindcv_mnasnet.search.pools import Result
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.space import within
from mindcv_mnasnet.search.strategies import make_strategy
from mindcv_mnasnet.search.strategy import Accept
from mindcv_mnasnet.search.trials import Trial, TrialLog


class Search:
    """One search in its folder: ``run`` begins it or goes on where the folder says it stopped.

    Proposals are stored before they are tried and follow from the results alone, so a crash at any moment loses at most
    the trials that were running, and a resume ends where the search would have ended.
    """

    def __init__(self, settings: Settings, folder: SearchFolder):
        self.settings, self.folder = settings, folder
        self.space = settings.open_space()
        self.log = TrialLog(folder.trials)
        self._stopped = False
        self._evaluator: Evaluator | None = None

    def stop(self) -> None:
        """Let the running trials end, then no more."""
        self._stopped = True
        if self._evaluator is not None:
            self._evaluator.stop()

    def run(self, progress: Callable[[Trial], None] = lambda trial: None) -> list[Trial]:
        """All trials, in the order of their numbers; fewer after ``stop``.

        Raises:
            JobError: more than ``most_failures`` of the trials failed; names the last reason.
            UserError: settings that this machine or data set cannot serve.
        """
        settings = self.settings
        strategy = make_strategy(
            settings.chosen_strategy, self.space, settings.seed, settings.population, settings.target_ms
        )
        ledger = Ledger(settings, self.space, self.folder, progress)
        measurements = Measurements(meter_for(settings), settings.latency in ON_THIS_MACHINE)
        self._evaluator = open_evaluator(settings, self.space, self.folder.path)
        with closing(self._evaluator), closing(measurements):
            self._try_references(ledger, measurements, self._evaluator)
            generations = Generations(
                strategy, self.folder.state, self._size, settings.generations_ahead, self._accept()
            )
            Flow(settings, ledger, generations, measurements, self._evaluator, lambda: self._stopped).run()
        return ledger.of()

    def _size(self, generation: int) -> int:
        return min(self.settings.generation, self.settings.trials - generation * self.settings.generation)

    def _accept(self) -> Accept | None:
        limits = self.settings.limits()
        return (lambda tokens: within(self.space, tokens, limits)) if limits.bounded else None

    def _try_references(self, ledger: Ledger, measurements: Measurements, evaluator: Evaluator) -> None:
        """Try what there is already; their numbers are negative, and no strategy learns of them."""
        like = self.space.network(tuple(one[0] for one in self.space.allowed))
        by_number = {}
        for place, name in enumerate(self.settings.references):
            network = reference_network(self.settings.located(name), like)
            if ledger.done(-1 - place) is None:
                by_number[-1 - place] = Candidate(-1 - place, -1, (), network, self.settings.seed)
        if self._stopped or not by_number:
            return
        failed = measurements.begin(list(by_number.values()))
        results = {one.number: Result("unmeasured") for one in failed}
        waiting = [one for one in by_number.values() if one.number not in results]
        for number, result in (*results.items(), *evaluator.run(iter(waiting))):
            name = self.settings.references[-1 - number]
            ledger.keep([replace(ledger.trial(by_number[number], measurements, result), name=name)])
