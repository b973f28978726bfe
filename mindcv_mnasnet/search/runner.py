"""The search itself: propose, measure, train, learn; every step on disk before the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing

from mindcv_mnasnet.search.anchor import open_anchored
from mindcv_mnasnet.search.band import Band, predict_for
from mindcv_mnasnet.search.decisions import Tokens
from mindcv_mnasnet.search.evaluators import Evaluator, open_evaluator
from mindcv_mnasnet.search.flow import Flow
from mindcv_mnasnet.search.folder import SearchFolder
from mindcv_mnasnet.search.generations import Generations
from mindcv_mnasnet.search.keys import ON_THIS_MACHINE
from mindcv_mnasnet.search.ledger import Ledger
from mindcv_mnasnet.search.measurements import Measurements
from mindcv_mnasnet.search.rungs import Rungs
from mindcv_mnasnet.search.seeds import seeds
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.strategies import make_strategy
from mindcv_mnasnet.search.strategy import Accept
from mindcv_mnasnet.search.trials import Trial, TrialLog


class Search:
    """One search in its folder: ``run`` begins it or goes on where the folder says it stopped.

    Proposals are stored before they are tried and follow from the results alone, so a crash at any moment loses at most
    what running trainings did since their checkpoints, and a resume ends where the search would have ended.
    ``stopped``: ``stop`` was called.
    """

    def __init__(self, settings: Settings, folder: SearchFolder):
        self.settings, self.folder = settings, folder
        self.space = settings.open_space()
        self.log = TrialLog(folder.trials)
        self.stopped = False
        self._evaluator: Evaluator | None = None

    def stop(self) -> None:
        """Let the running trials end, then no more."""
        self.stopped = True
        if self._evaluator is not None:
            self._evaluator.stop()

    def run(
        self, progress: Callable[[Trial], None] = lambda trial: None, accepted: Callable[[], None] = lambda: None
    ) -> list[Trial]:
        """All trials, in the order of their numbers; fewer after ``stop``.

        ``accepted`` is called when settings, trials and state have proved to belong together.

        Raises:
            JobError: more than ``most_failures`` of the trials failed; names the last reason.
            UserError: settings that this machine or data set cannot serve.
        """
        settings, meter = open_anchored(self.settings, self.space, self.folder.path)
        self.settings = settings
        strategy = make_strategy(
            settings.chosen_strategy, self.space, settings.seed, settings.population, settings.target_ms
        )
        ledger = Ledger(settings, self.space, self.folder, progress)
        measurements = Measurements(meter, settings.latency in ON_THIS_MACHINE)
        ledger.restore(measurements)
        rungs = Rungs(settings, self.space, self.folder, ledger, measurements, lambda: self.stopped)
        with closing(measurements):
            self._evaluator = open_evaluator(settings, self.space, self.folder.path)
            with closing(self._evaluator):
                band = self._band(measurements)
                accept = self._accept(band)
                generations = Generations(
                    strategy,
                    self.folder.state,
                    settings.trials,
                    settings.generation,
                    settings.generations_ahead,
                    accept,
                    self._seeds(band, accept),
                    Counter(trial.generation for trial in ledger.of()),
                )
                accepted()
                Flow(settings, ledger, generations, measurements, self._evaluator, lambda: self.stopped).run()
                if not self.stopped:
                    rungs.run(self._evaluator)
            if settings.finalists and not self.stopped:
                self._evaluator = open_evaluator(settings, self.space, self.folder.path, settings.finalist_timeout_s)
                with closing(self._evaluator):
                    rungs.train_finalists(self._evaluator)
        return ledger.of()

    def _band(self, measurements: Measurements) -> Band | None:
        """The band of latencies that is kept to, where there is one."""
        if self.settings.band is None:
            return None
        predict = predict_for(self.settings, self.space, measurements, self.folder.path)
        return Band(self.settings, self.space, predict)

    def _accept(self, band: Band | None) -> Accept | None:
        """What may be proposed: networks within the limits and the band."""
        limits = self.settings.limits()
        if band is None:
            return (lambda tokens: limits.allow(self.space.network(tokens))) if limits.bounded else None
        return lambda tokens: limits.allow(self.space.network(tokens)) and band(tokens)

    def _seeds(self, band: Band | None, accept: Accept | None) -> list[Tokens]:
        """What the first generation begins with."""
        if band is None or accept is None or not self.settings.seed_references or self.folder.state.is_file():
            return []
        return seeds(self.settings, self.space, band, accept)
