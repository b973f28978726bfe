"""Where a candidate's accuracy comes from: short trainings, a supernet, or the synthetic surrogate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from mindcv_mnasnet.search.candidates import Candidate
from mindcv_mnasnet.search.pools import Pool, Result, open_pool
from mindcv_mnasnet.search.proxy import write_job
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.space import Space
from mindcv_mnasnet.search.surrogate import surrogate_accuracy


class Evaluator(Protocol):
    """Gives accuracies; ``immediate`` ones take no time worth telling and are asked for a generation at once."""

    immediate: bool

    def run(self, candidates: Sequence[Candidate]) -> Iterator[tuple[int, Result]]:
        """(number, result) of every candidate, as they end; fewer after ``stop``."""

    def stop(self) -> None:
        """Begin nothing more."""

    def close(self) -> None:
        """End everything."""


class Surrogate:
    """The made-up accuracy; see ``surrogate``."""

    immediate = True

    def run(self, candidates: Sequence[Candidate]) -> Iterator[tuple[int, Result]]:
        """See ``Evaluator``."""
        for candidate in candidates:
            yield candidate.number, Result("ok", "", surrogate_accuracy(candidate.network))

    def stop(self) -> None:
        """See ``Evaluator``."""

    def close(self) -> None:
        """See ``Evaluator``."""


class Proxy:
    """Trains every candidate for a short time, as the recipe with the proxy's changes says."""

    immediate = False

    def __init__(self, settings: Settings, folder: Path, pool: Pool):
        self._settings, self._folder, self._pool = settings, folder, pool
        self._keys = settings.proxy_keys(settings.final_recipe())

    def run(self, candidates: Sequence[Candidate]) -> Iterator[tuple[int, Result]]:
        """See ``Evaluator``."""
        yield from self._pool.run([(candidate.number, self._write(candidate)) for candidate in candidates])

    def _write(self, candidate: Candidate) -> Path:
        network = candidate.network
        own = {
            "model": "mnasnet_100",
            "blocks": list(network.block_strings),
            "stem": network.stem,
            "width_mult": network.width_mult or 1.0,
            "divisor": 1 if network.width_mult is None else network.divisor,
            "residual_rule": network.residual_rule,
            "seed": candidate.seed,
        }
        name = f"{candidate.number:06d}" if candidate.number >= 0 else f"reference{-candidate.number}"
        recipe = {**self._keys, **own}
        return write_job(
            self._folder / "trials" / name, recipe, self._settings.held_out, self._settings.trial_memory_gb
        )

    def stop(self) -> None:
        """See ``Evaluator``."""
        self._pool.stop()

    def close(self) -> None:
        """See ``Evaluator``."""
        self._pool.close()


def open_evaluator(settings: Settings, space: Space, folder: Path) -> Evaluator:
    """The evaluator that the settings ask for."""
    if settings.evaluator == "surrogate":
        return Surrogate()
    if settings.evaluator == "supernet":
        from mindcv_mnasnet.search.supernet.evaluator import SupernetEvaluator

        return SupernetEvaluator(settings, space, folder)
    pool = open_pool(settings.pool, settings.workers, settings.trial_timeout_s, settings.retries, settings.ray_address)
    return Proxy(settings, folder, pool)
