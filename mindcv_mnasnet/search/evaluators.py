"""Where a candidate's accuracy comes from: short trainings, a supernet, a table, or the surrogate."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.search.candidates import Candidate
from mindcv_mnasnet.search.pools import Pool, Result, open_pool
from mindcv_mnasnet.search.proxy import write_job
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.space import Space
from mindcv_mnasnet.search.surrogate import surrogate_accuracy


class Evaluator(Protocol):
    """Gives accuracies; ``immediate`` ones take no time worth telling and are asked for a generation at once."""

    immediate: bool

    def run(self, candidates: Iterable[Candidate | None]) -> Iterator[tuple[int, Result]]:
        """(number, result) of every candidate, as they end; fewer after ``stop``.

        A candidate is taken when there is a worker for it. None is none yet: it is asked again after another result.
        """

    def stop(self) -> None:
        """Begin nothing more."""

    def close(self) -> None:
        """End everything."""


class Surrogate:
    """The made-up accuracy; see ``surrogate``."""

    immediate = True

    def run(self, candidates: Iterable[Candidate | None]) -> Iterator[tuple[int, Result]]:
        """See ``Evaluator``."""
        for candidate in filter(None, candidates):
            yield candidate.number, Result("ok", "", surrogate_accuracy(candidate.network))

    def stop(self) -> None:
        """See ``Evaluator``."""

    def close(self) -> None:
        """See ``Evaluator``."""


class Proxy:
    """Trains every candidate for a short time, as the recipe with the proxy's changes, and its rung's, says."""

    immediate = False

    def __init__(self, settings: Settings, folder: Path, pool: Pool):
        self._settings, self._folder, self._pool = settings, folder, pool

    def run(self, candidates: Iterable[Candidate | None]) -> Iterator[tuple[int, Result]]:
        """See ``Evaluator``."""
        yield from self._pool.run(None if one is None else (one.number, self._write(one)) for one in candidates)

    def _write(self, candidate: Candidate) -> Path:
        name = f"{candidate.number:06d}" if candidate.number >= 0 else f"reference{-candidate.number}"
        folder = self._folder / "trials" / (f"{name}-rung{candidate.rung}" if candidate.rung else name)
        return proxy_job(self._settings, candidate, folder)

    def stop(self) -> None:
        """See ``Evaluator``."""
        self._pool.stop()

    def close(self) -> None:
        """See ``Evaluator``."""
        self._pool.close()


def network_keys(network: Network) -> dict[str, Any]:
    """A candidate as keys of a recipe."""
    return {
        "model": "mnasnet_100",
        "blocks": list(network.block_strings),
        "stem": network.stem,
        "width_mult": network.width_mult or 1.0,
        "divisor": 1 if network.width_mult is None else network.divisor,
        "residual_rule": network.residual_rule,
    }


def proxy_job(settings: Settings, candidate: Candidate, folder: Path) -> Path:
    """Put down the short training of a candidate, of its rung, for a process of ``pools``; returns the job's file.

    A finalist is trained on all training images and validated as its recipe says.
    """
    recipe = {**settings.rung_keys(candidate.rung), **network_keys(candidate.network), "seed": candidate.seed}
    held_out = None if candidate.rung > len(settings.rungs) else settings.held_out
    return write_job(folder, recipe, held_out, settings.trial_memory_gb)


class TableEvaluator:
    """Accuracies of trainings that were made before, by the blocks of their networks.

    The file holds JSON lines with ``blocks`` (a list of block strings) and ``accuracy`` in [0, 1], and ``rung`` where
    it is not 0: ``trials.jsonl`` of any search is one.
    """

    immediate = True

    def __init__(self, path: Path):
        self._path = path
        self._found: dict[tuple[int, tuple[str, ...]], tuple[float, float | None]] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise UserError(f"accuracy_table: {path} cannot be read") from None
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                if row["accuracy"] is not None:
                    key = (int(row.get("rung", 0)), tuple(row["blocks"]))
                    self._found.setdefault(key, (float(row["accuracy"]), row.get("loss")))
            except (ValueError, TypeError, KeyError):
                raise UserError(f"accuracy_table: {path}, line {number} has no blocks and accuracy as JSON") from None

    def run(self, candidates: Iterable[Candidate | None]) -> Iterator[tuple[int, Result]]:
        """See ``Evaluator``; a network that is not in the table is a failure."""
        for candidate in filter(None, candidates):
            found = self._found.get((candidate.rung, candidate.network.block_strings))
            if found is None:
                yield candidate.number, Result("failed", f"{self._path} has no such network")
            else:
                yield candidate.number, Result("ok", "", found[0], 0.0, found[1])

    def __contains__(self, network: Network) -> bool:
        return (0, network.block_strings) in self._found

    def stop(self) -> None:
        """See ``Evaluator``."""

    def close(self) -> None:
        """See ``Evaluator``."""


def open_evaluator(settings: Settings, space: Space, folder: Path, timeout_s: float | None = None) -> Evaluator:
    """The evaluator that the settings ask for; ``timeout_s`` per training is ``trial_timeout_s`` if None."""
    if settings.evaluator == "surrogate":
        return Surrogate()
    if settings.evaluator == "supernet":
        from mindcv_mnasnet.search.supernet.evaluator import SupernetEvaluator

        return SupernetEvaluator(settings, space, folder)
    if settings.evaluator == "table":
        assert settings.accuracy_table is not None  # load_settings sees to it
        return TableEvaluator(settings.beside(settings.accuracy_table))
    timeout_s = timeout_s or settings.trial_timeout_s
    pool = open_pool(settings.pool, settings.workers, timeout_s, settings.retries, settings.ray_address)
    return Proxy(settings, folder, pool)
