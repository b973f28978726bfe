"""What a search has tried: its trials on disk and in memory, and how a result becomes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.files import quoted
from mindcv_mnasnet.latency.record import Latency
from mindcv_mnasnet.networks.blocks import parse_blocks
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.search.candidates import Candidate, network_key, reference_of
from mindcv_mnasnet.search.decisions import Tokens
from mindcv_mnasnet.search.folder import SearchFolder
from mindcv_mnasnet.search.measurements import Measurements
from mindcv_mnasnet.search.pools import Result
from mindcv_mnasnet.search.results import require_space
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.space import Space
from mindcv_mnasnet.search.trials import Trial, TrialLog

#: Trials before a search with too many failures is given up.
_LEAST_TRIALS = 10


class Ledger:
    """The trials of a search, read from its folder; ``progress`` hears of every new one."""

    def __init__(self, settings: Settings, space: Space, folder: SearchFolder, progress: Callable[[Trial], None]):
        self._settings, self._space, self._folder, self._progress = settings, space, folder, progress
        self.log = TrialLog(folder.trials)
        self._reward = settings.reward_function()
        self._references = self._open_references()
        self._done: dict[tuple[int, int], Trial] = {}  # by rung and number
        self._known: dict[tuple[str, ...], Trial] = {}  # by layers, finished ones of the first rung, references too
        trials = self.log.read(repair=True)
        require_space(trials, space, self.log.path)
        for trial in trials:
            self._require_reference(trial)
            self._remember(trial)

    def _require_reference(self, trial: Trial) -> None:
        """Refuse a trial of a reference whose layers were others then."""
        one = self._references.get(trial.number)
        if one is None:
            return
        network = replace(one.network, blocks=parse_blocks(trial.blocks)[0])
        if network_key(network) != network_key(one.network):
            raise UserError(
                f"references: {trial.name} was another network when {self.log.path} was written; give its file back "
                "what it said then, or search anew"
            )

    def _remember(self, trial: Trial) -> None:
        self._done[trial.rung, trial.number] = trial
        if trial.ok and trial.repeats is None and trial.rung == 0:
            one = self._references.get(trial.number)
            network = one.network if one is not None else self._space.network(trial.tokens)
            self._known.setdefault(network_key(network), trial)

    def keep(self, trials: Sequence[Trial]) -> None:
        """Put trials on disk, then tell of them."""
        self.log.append(*trials)
        for trial in trials:
            self._remember(trial)
            self._progress(trial)

    def candidate(self, number: int, generation: int, tokens: Tokens) -> Candidate:
        """The candidate that a proposal is, and the trial of that number if it was made before.

        Raises:
            UserError: that trial is of another network.
        """
        done = self.done(number)
        if done is not None and done.tokens != tokens:
            raise UserError(
                f"{self._folder.trials}: trial {number} is of another network than the one proposed now; the file or "
                "the state beside it was changed, or this is another version of MindSpore"
            )
        return Candidate(number, generation, tokens, self._space.network(tokens), self._settings.seed + 1000 + number)

    def done(self, number: int, rung: int = 0) -> Trial | None:
        """The trial of that number."""
        return self._done.get((rung, number))

    def of(self, rung: int = 0, references: bool = False) -> list[Trial]:
        """The trials of a rung in the order of their numbers: the search's own ones, or the references."""
        found = (trial for (at, number), trial in self._done.items() if at == rung and (number < 0) == references)
        return sorted(found, key=lambda trial: trial.number)

    def references(self) -> dict[int, Candidate]:
        """The references as candidates, by number."""
        return dict(self._references)

    def _open_references(self) -> dict[int, Candidate]:
        found = {}
        for place, name in enumerate(self._settings.references):
            network = reference_of(self._settings, self._space, name)
            found[-1 - place] = Candidate(-1 - place, -1, (), network, self._settings.seed)
        return found

    def restore(self, measurements: Measurements) -> None:
        """Take the latencies of the first rung's trials, which longer trainings of the same networks share."""
        networks = {number: one.network for number, one in self.references().items()}
        for trial in (*self.of(), *self.of(references=True)):
            if trial.latency:
                network = networks.get(trial.number) or self._space.network(trial.tokens)
                measurements.remember(network, Latency.from_dict(trial.latency))

    def known(self, key: tuple[str, ...]) -> Trial | None:
        """The first finished trial of a network of these layers, a reference's too."""
        return self._known.get(key)

    def trial(self, candidate: Candidate, measurements: Measurements, result: Result) -> Trial:
        """The trial that a candidate became; waits for its latency."""
        cost = network_cost(candidate.network)
        latency, reason = measurements.of(candidate.network)
        record: dict[str, Any] = {} if latency is None else latency.to_dict()
        status = "unmeasured" if latency is None else result.status
        reward = 0.0
        if status == "ok" and result.accuracy is not None and latency is not None:
            reward = self._reward(result.accuracy, latency.median_ms)
        return Trial(
            number=candidate.number,
            generation=candidate.generation,
            tokens=candidate.tokens,
            blocks=candidate.network.block_strings,
            status=status,
            seed=candidate.seed,
            params=cost.params,
            madds=cost.madds,
            accuracy=result.accuracy,
            latency_ms=None if latency is None else latency.median_ms,
            reward=reward,
            seconds=round(result.seconds, 3),
            reason=reason or result.reason,
            latency=record,
            evaluator=self._settings.evaluator,
            rung=candidate.rung,
            loss=result.loss,
            images=result.images,
            name=self._settings.references[-1 - candidate.number] if candidate.number < 0 else "",
        )

    def require_health(self) -> None:
        """Give up where too many trials failed.

        Raises:
            JobError: names the last reason.
        """
        most = self._settings.most_failures
        tried = self.of()
        failed = [trial for trial in tried if not trial.ok]
        if len(tried) >= min(_LEAST_TRIALS, self._settings.trials) and len(failed) > most * len(tried):
            raise JobError(
                f"{len(failed)} of {len(tried)} trials failed, more than most_failures {most:g} allows; "
                f"the last: {failed[-1].status}: {failed[-1].reason}; --resume {quoted(self._folder.path)} goes on"
            )
