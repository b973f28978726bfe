"""Searches beside each other: what they found, how they spread around the target, how fast they learned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import replace_file, unwritable
from mindcv_mnasnet.search import figures
from mindcv_mnasnet.search.folder import SearchFolder
from mindcv_mnasnet.search.results import best_feasible, proposed
from mindcv_mnasnet.search.trials import Trial, TrialLog

_COLUMNS = {
    "search": "search",
    "trials": "trials",
    "mean_reward": "mean reward",
    "last_tenth_reward": "of the last tenth",
    "best_feasible": "best within target",
    "within_target": "trials within target",
    "within_10_percent": "target +-10 %",
    "latency_deviation_ms": "latency's deviation, ms",
}


def compare(paths: Sequence[str | Path], folder: Path | None) -> str:
    """A table of searches of one target; with ``folder`` also ``compare.json``, ``latencies.png`` and ``rewards.png``.

    ``latencies.png`` is the paper's figure 6 where one search had the soft reward and the other the hard one. Latencies
    are of the last half of each search's trials, after the learning.

    Raises:
        UserError: a path is no search with finished trials, or their targets differ.
    """
    groups: dict[str, Sequence[Trial]] = {}
    targets = set()
    for path in paths:
        one = SearchFolder.open(path)
        targets.add(one.stored_settings().target_ms)
        trials = proposed(TrialLog(one.trials).read())
        if not any(trial.ok for trial in trials):
            raise UserError(f"{one.path} has no trial with accuracy and latency yet")
        groups[one.path.name if one.path.name not in groups else str(one.path)] = trials
    if len(targets) > 1:
        raise UserError(f"searches of different targets cannot be compared: {', '.join(f'{t:g} ms' for t in targets)}")
    (target,) = targets
    rows = [_row(name, trials, target) for name, trials in groups.items()]
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from None
        replace_file(folder / "compare.json", json.dumps({"target_ms": target, "searches": rows}, indent=2).encode())
        late = {name: _late(trials) for name, trials in groups.items()}
        figures.draw_latencies(late, target, folder / "latencies.png")
        figures.draw_learning(groups, folder / "rewards.png")
    lines = [_COLUMNS.values(), ["---"] * len(_COLUMNS), *([_shown(row[key]) for key in _COLUMNS] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shown(value: str | int | float | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _late(trials: Sequence[Trial]) -> Sequence[Trial]:
    return trials[len(trials) // 2 :]


def _row(name: str, trials: Sequence[Trial], target_ms: float) -> dict[str, str | int | float | None]:
    rewards = np.array([trial.reward for trial in trials])
    latencies = np.array([trial.latency_ms for trial in _late(trials) if trial.ok])
    feasible = best_feasible(trials, target_ms)
    return {
        "search": name,
        "trials": len(trials),
        "mean_reward": float(rewards.mean()),
        "last_tenth_reward": float(rewards[-max(1, len(rewards) // 10) :].mean()),
        "best_feasible": None if feasible is None else feasible.accuracy,
        "within_target": float((latencies <= target_ms).mean()),
        "within_10_percent": float((np.abs(latencies / target_ms - 1) <= 0.1).mean()),
        "latency_deviation_ms": float(latencies.std()),
    }
