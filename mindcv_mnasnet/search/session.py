"""A search from the command line: its folder, its progress bar, Ctrl-C, the report at the end."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mindcv_mnasnet import console
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.files import quoted, replace_file
from mindcv_mnasnet.latency.agreement import agreement
from mindcv_mnasnet.run.progress import duration
from mindcv_mnasnet.search.candidates import Candidate
from mindcv_mnasnet.search.evaluators import open_evaluator
from mindcv_mnasnet.search.finish import export_winners
from mindcv_mnasnet.search.folder import SearchFolder
from mindcv_mnasnet.search.report import write_report
from mindcv_mnasnet.search.results import best_feasible, measured
from mindcv_mnasnet.search.runner import Search
from mindcv_mnasnet.search.settings import Settings, changed
from mindcv_mnasnet.search.strategies import RandomSearch
from mindcv_mnasnet.search.trials import Trial
from mindcv_mnasnet.search.work import images_of, rungs_of, trainings_of

#: What a search that goes on may have otherwise.
_CHANGEABLE = ("trials", "workers", "pool", "ray_address", "trial_timeout_s", "retries", "most_failures", "top")


def begin(settings: Settings) -> None:
    """Run a new search to its end, report, and export its finalists; a mistake leaves no folder."""
    folder = SearchFolder.create(settings)
    try:
        _run(folder.stored_settings(), folder)
    except (UserError, JobError):
        folder.remove_unused()
        raise


def resume(path: str | Path, overrides: Mapping[str, Any]) -> None:
    """Go on with a search to its end, report, and export its finalists.

    Raises:
        UserError: no search is there, or a key is to change that would make another search of it.
    """
    for name in overrides:
        if name not in _CHANGEABLE:
            raise UserError(f"{name}: a search that goes on may change {', '.join(_CHANGEABLE)} only")
    folder = SearchFolder.open(path)
    _run(folder.stored_settings(**overrides), folder)


@console.lenient()
def _run(settings: Settings, folder: SearchFolder) -> None:
    folder.lock()
    print(f"search folder {folder.path}", flush=True)
    search = Search(settings, folder)
    bar = _Bar(search, search.log.read())
    with _two_interrupts(search), bar:
        trials = search.run(bar.update, lambda: folder.keep(settings))
    missing = settings.trials - len(trials)
    if missing > 0:
        print(f"stopped after {len(trials)} of {settings.trials} trials; --resume {quoted(folder.path)} goes on")
    if not measured(trials):
        if missing > 0:
            return
        last = trials[-1]
        raise JobError(f"all {len(trials)} trials failed; the last: {last.status}: {last.reason}")
    print(write_report(folder.path), flush=True)
    if settings.finalists and not search.stopped:
        for line in export_winners(folder):
            print(line, flush=True)


class _Bar:
    """Trials done, best reward, best accuracy within the target, time left."""

    def __init__(self, search: Search, done: Sequence[Trial]):
        self._search, settings = search, search.settings
        self._seen = list(done)
        counts = trainings_of(settings)
        self._work = [1.0] * len(counts)  # of a trial on each rung
        if settings.evaluator == "proxy":
            self._work = [rung.work for rung in rungs_of(settings, images_of(settings))]
        self._left = sum(count * work for count, work in zip(counts, self._work, strict=True))
        self._left -= sum(self._work[trial.rung] for trial in done)
        self._done = 0.0  # since the first trial of this start ended
        self._total = sum(counts)
        self._bar = tqdm(
            total=self._total,
            initial=len(done),
            unit="trial",
            disable=None,
            dynamic_ncols=True,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
        )
        self._first: float | None = None  # when the first trial ended: what is before it, like a supernet, is done once
        self._printed = time.monotonic()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, trial: Trial) -> None:
        """A trial has ended."""
        self._seen.append(trial)
        self._bar.update()
        self._left -= self._work[trial.rung]
        now = time.monotonic()
        if self._first is None:
            self._first = now
        else:
            self._done += self._work[trial.rung]
        own = [one for one in self._seen if one.number >= 0 and one.ok and one.rung == 0]
        if not own:
            return
        top = max(one.reward for one in own)
        target = self._search.settings.target_ms  # with target_network it is known when the search runs
        feasible = best_feasible(own, target) if len(own) < 500 or len(own) % 50 == 0 else None
        words = f"best reward {top:.4f}"
        if feasible is not None and feasible.accuracy is not None:
            words += f", {100 * feasible.accuracy:.2f} % within {target:.4g} ms"
        if self._done:
            words += f"  {duration(self._left * (now - self._first) / self._done)} left"
        self._bar.set_postfix_str(words, refresh=False)
        if not sys.stderr.isatty() and now - self._printed > 30:
            self._printed = now
            print(f"trial {len(self._seen)}/{self._total}  {words}", flush=True)


@contextmanager
def _two_interrupts(search: Search) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM lets running trials end; the second Ctrl-C ends at once."""

    def first(number: int, frame: Any) -> None:
        print("\nstopping after the running trials, or the supernet's epoch; Ctrl-C again ends at once", flush=True)
        search.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, first) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def proxy_check(settings: Settings, networks: int, longer: int, seeds: int) -> str:
    """Whether the evaluator ranks networks as training does; written to ``proxy_check.json`` of a new folder.

    ``networks`` random ones are evaluated, by the proxy or by the supernet, and trained on their own for ``longer``
    times the proxy's epochs. With the proxy the first three are tried with ``seeds`` seeds each too: their spread says
    which differences mean anything.

    Raises:
        UserError: an evaluator that trains nothing, or too few networks.
    """
    if settings.evaluator not in ("proxy", "supernet"):
        raise UserError(f"--proxy_check: evaluator {settings.evaluator} trains nothing; it is for proxy and supernet")
    shared = settings.evaluator == "supernet"
    if networks < 3 or longer < (1 if shared else 2) or seeds < 1:
        raise UserError("--proxy_check: at least 3 networks, 2 times the epochs (a supernet: 1) and 1 seed are needed")
    folder = SearchFolder.create(settings)
    folder.lock()
    print(f"search folder {folder.path}", flush=True)
    space = settings.open_space()
    tokens = RandomSearch(space, settings.seed).ask(0, networks)
    epochs = int(settings.proxy_keys(settings.final_recipe()).get("epoch_size", 90))
    candidates = [Candidate(i, 0, one, space.network(one), settings.seed + i) for i, one in enumerate(tokens)]
    more = [
        Candidate(
            networks + i * seeds + seed, 0, candidates[i].tokens, candidates[i].network, settings.seed + 1000 + seed
        )
        for i in range(0 if shared else 3)
        for seed in range(seeds)
    ]
    short = _accuracies(settings, folder.path / "short", [*candidates, *more])
    alone = changed(settings, evaluator="proxy", proxy={**settings.proxy, "epoch_size": epochs * longer})
    long = _accuracies(alone, folder.path / "long", candidates)
    both = [candidate.number for candidate in candidates if candidate.number in short and candidate.number in long]
    found = agreement([short[number] for number in both], [long[number] for number in both])
    groups = [[short[d.number] for d in more[i : i + seeds] if d.number in short] for i in range(0, len(more), seeds)]
    spreads = [np.std(group, ddof=1) for group in groups if len(group) > 1]
    spread = float(np.mean(spreads)) if spreads else None
    evaluated = f"a supernet of {settings.supernet_epochs} epochs" if shared else f"{epochs} epochs"
    content = {"evaluated": evaluated, "alone_epochs": epochs * longer, "spread_over_seeds": spread}
    content |= {"spearman": found.spearman, "kendall": found.kendall, "networks": len(both)}
    content |= {"short": short, "long": long}
    replace_file(folder.path / "proxy_check.json", json.dumps(content, indent=2).encode())
    spread_words = "" if spread is None else f"; spread over seeds {100 * spread:.2f} points"
    return (
        f"{found.count} networks, {evaluated} against {epochs * longer} epochs alone: Spearman {found.spearman:.3f}, "
        f"Kendall {found.kendall:.3f}{spread_words}; {folder.path / 'proxy_check.json'}"
    )


def _accuracies(settings: Settings, folder: Path, candidates: list[Candidate]) -> dict[int, float]:
    folder.mkdir()
    evaluator = open_evaluator(settings, settings.open_space(), folder)
    found = {}
    try:
        for number, result in tqdm(evaluator.run(candidates), total=len(candidates), unit="training", disable=None):
            if result.accuracy is not None:
                found[number] = result.accuracy
                if not sys.stderr.isatty():  # there is no bar
                    print(f"network {number}: {100 * result.accuracy:.2f} %", flush=True)
            else:
                print(f"network {number}: {result.status}: {result.reason}", flush=True)
    finally:
        evaluator.close()
    return found
