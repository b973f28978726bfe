"""The search itself: propose, measure, train, learn; every step on disk before the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.latency.record import Latency, LatencyError, Meter
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import Network, resolve
from mindcv_mnasnet.run.checkpoint import read_checkpoint, write_checkpoint
from mindcv_mnasnet.search.candidates import Candidate
from mindcv_mnasnet.search.evaluators import Evaluator, open_evaluator
from mindcv_mnasnet.search.folder import SearchFolder
from mindcv_mnasnet.search.meters import meter_for
from mindcv_mnasnet.search.pools import Result
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.space import Tokens, within
from mindcv_mnasnet.search.strategies import make_strategy
from mindcv_mnasnet.search.strategy import Outcome
from mindcv_mnasnet.search.trials import Trial, TrialLog

#: Kinds of latency that this machine's cores are timed for: nothing else may run meanwhile.
_ON_THIS_MACHINE = ("onnxruntime", "litert", "mindspore")
#: Trials before a search with too many failures is given up.
_LEAST_TRIALS = 10


class Search:
    """One search in its folder: ``run`` begins it or goes on where the folder says it stopped.

    A generation is proposed from the state that is stored after the one before, so a crash at any moment loses at most
    the trials that were running: the rest of their generation is read from ``trials.jsonl``.
    """

    def __init__(self, settings: Settings, folder: SearchFolder, tell: Callable[[str], None] = print):
        self.settings, self.folder, self._tell = settings, folder, tell
        self.space = settings.open_space()
        self.log = TrialLog(folder.trials)
        self._reward = settings.reward_function()
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
        strategy = make_strategy(settings.strategy, self.space, settings.seed, settings.population)
        limits = settings.limits()
        accept = (lambda tokens: within(self.space, tokens, limits)) if limits.bounded else None
        done = {trial.number: trial for trial in self.log.read()}
        begin = 0
        if self.folder.state.is_file():
            stored = read_checkpoint(self.folder.state)
            strategy.load(stored.tensors)
            begin = int(stored.meta["generations"])
        meter = meter_for(settings)
        self._evaluator = open_evaluator(settings, self.space, self.folder.path)
        with closing(self._evaluator):
            self._try_references(meter, self._evaluator, done, progress)
            for generation in range(begin, -(-settings.trials // settings.generation)):
                first = generation * settings.generation
                count = min(settings.generation, settings.trials - first)
                asked = strategy.ask(generation, count, accept)
                candidates = [self._draft(first + i, generation, tokens) for i, tokens in enumerate(asked)]
                self._require_same(candidates, done)
                self._try(candidates, meter, self._evaluator, done, progress)
                if self._stopped:
                    break
                told = [done[candidate.number] for candidate in candidates]
                strategy.tell(generation, [_outcome(trial) for trial in told])
                write_checkpoint(self.folder.state, strategy.state(), {"generations": generation + 1})
                self._require_health(done)
        return [done[number] for number in sorted(done) if number >= 0]

    def _draft(self, number: int, generation: int, tokens: Tokens) -> Candidate:
        return Candidate(number, generation, tokens, self.space.network(tokens), self.settings.seed + 1000 + number)

    def _require_same(self, candidates: Iterable[Candidate], done: dict[int, Trial]) -> None:
        for candidate in candidates:
            if candidate.number in done and done[candidate.number].tokens != candidate.tokens:
                raise UserError(
                    f"{self.folder.trials}: trial {candidate.number} is of another network than the one proposed now; "
                    "the file or the state beside it was changed, or this is another version of MindSpore"
                )

    def _try(
        self,
        candidates: Sequence[Candidate],
        meter: Meter,
        evaluator: Evaluator,
        done: dict[int, Trial],
        progress: Callable[[Trial], None],
    ) -> None:
        """Make the trials that are not done; networks that were tried before are not tried again."""
        known = {
            trial.blocks: trial for trial in done.values() if trial.ok and trial.number >= 0 and trial.repeats is None
        }
        first: dict[tuple[str, ...], Candidate] = {}
        repeated = []
        for candidate in candidates:
            if candidate.number not in done:
                blocks = candidate.network.block_strings
                if blocks in known or blocks in first:
                    repeated.append(candidate)
                else:
                    first[blocks] = candidate

        def keep(trials: Sequence[Trial]) -> None:
            self.log.append(*trials)
            for trial in trials:
                done[trial.number] = trial
                progress(trial)

        for trials in self._measured(list(first.values()), meter, evaluator):
            keep(trials)
            known.update({trial.blocks: trial for trial in trials})
        again = [_again(known[blocks], d) for d in repeated if (blocks := d.network.block_strings) in known]
        if again:
            keep(again)

    def _measured(self, candidates: list[Candidate], meter: Meter, evaluator: Evaluator) -> Iterator[list[Trial]]:
        """Their trials as they end: latency first where it is this machine's, beside the trainings elsewhere."""
        latencies: dict[int, Future[Latency]] = {}
        by_number = {candidate.number: candidate for candidate in candidates}
        with ThreadPoolExecutor(1) as device:  # one measurement at a time
            for candidate in candidates:
                latencies[candidate.number] = device.submit(meter.measure, candidate.network)
            if self.settings.latency in _ON_THIS_MACHINE or evaluator.immediate:
                _settle(latencies.values())
                unmeasured = [
                    candidate for candidate in candidates if latencies[candidate.number].exception() is not None
                ]
                if unmeasured:
                    yield [
                        self._trial(candidate, latencies[candidate.number], Result("unmeasured"))
                        for candidate in unmeasured
                    ]
                candidates = [candidate for candidate in candidates if latencies[candidate.number].exception() is None]
            if evaluator.immediate:
                results = dict(evaluator.run(candidates))
                yield [self._trial(by_number[n], latencies[n], result) for n, result in results.items()]
                return
            for number, result in evaluator.run(candidates):
                yield [self._trial(by_number[number], latencies[number], result)]

    def _trial(self, candidate: Candidate, measured: Future[Latency], result: Result) -> Trial:
        cost = network_cost(candidate.network)
        record: dict[str, Any] = {}
        status, reason, latency_ms = result.status, result.reason, None
        try:
            latency = measured.result()
            record, latency_ms = latency.to_dict(), latency.median_ms
        except LatencyError as error:
            status, reason = "unmeasured", str(error)
        reward = 0.0
        if status == "ok" and result.accuracy is not None and latency_ms is not None:
            reward = self._reward(result.accuracy, latency_ms)
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
            latency_ms=latency_ms,
            reward=reward,
            seconds=round(result.seconds, 3),
            reason=reason,
            latency=record,
            evaluator=self.settings.evaluator,
        )

    def _try_references(
        self, meter: Meter, evaluator: Evaluator, done: dict[int, Trial], progress: Callable[[Trial], None]
    ) -> None:
        """Try what there is already; their numbers are negative, and no strategy learns of them."""
        candidates = []
        for place, name in enumerate(self.settings.references):
            network = reference_network(name, self.space.network(self._any_tokens()))
            candidates.append(Candidate(-1 - place, -1, (), network, self.settings.seed))
        missing = [candidate for candidate in candidates if candidate.number not in done]
        for trials in self._measured(missing, meter, evaluator) if missing and not self._stopped else ():
            named = [replace(trial, name=self.settings.references[-1 - trial.number]) for trial in trials]
            self.log.append(*named)
            for trial in named:
                done[trial.number] = trial
                progress(trial)

    def _any_tokens(self) -> Tokens:
        return tuple(one[0] for one in self.space.allowed)

    def _require_health(self, done: dict[int, Trial]) -> None:
        most = self.settings.most_failures
        tried = [trial for trial in done.values() if trial.number >= 0]
        failed = [trial for trial in tried if not trial.ok]
        if len(tried) >= min(_LEAST_TRIALS, self.settings.trials) and len(failed) > most * len(tried):
            raise JobError(
                f"{len(failed)} of {len(tried)} trials failed, more than most_failures {most:g} allows; "
                f"the last: {failed[-1].status}: {failed[-1].reason}; --resume {self.folder.path} goes on"
            )


def reference_network(name: str, like: Network) -> Network:
    """A published network (``NAME`` or ``NAME@WIDTH``) with the ends and the conventions of ``like``.

    Its blocks and its stem's width are its own; image size, classes, stride of the stem, head and padding are shared.
    """
    model, _, width = name.partition("@")
    try:
        overrides = {"width_mult": float(width)} if width else {}
    except ValueError:
        raise UserError(f"references: {name!r} is not a model's name, or one with @ and a width") from None
    known = resolve(model, **overrides)
    shared = ("stem_stride", "head", "num_classes", "in_channels", "image_size", "padding", "bn_eps", "bn_momentum")
    return replace(known, **{field: getattr(like, field) for field in (*shared, "dropout", "drop_connect")})


def _outcome(trial: Trial) -> Outcome:
    return Outcome(trial.tokens, trial.reward, trial.accuracy if trial.ok else None, trial.latency_ms)


def _again(known: Trial, candidate: Candidate) -> Trial:
    """The trial of a network that was tried before."""
    return replace(
        known,
        number=candidate.number,
        generation=candidate.generation,
        tokens=candidate.tokens,
        seconds=0.0,
        repeats=known.number,
    )


def _settle(futures: Iterable[Future[Latency]]) -> None:
    for future in futures:
        with suppress(LatencyError):
            future.result()
