"""The results of a search: its best trials, the front of accuracy against latency, and recipes of the winners."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats  # comes with scikit-learn

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import quoted, replace_file
from mindcv_mnasnet.networks.blocks import parse_blocks
from mindcv_mnasnet.recipe.yaml_files import to_yaml
from mindcv_mnasnet.run.folder import storable
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.space import Space
from mindcv_mnasnet.search.trials import Trial


def proposed(trials: Iterable[Trial]) -> list[Trial]:
    """The search's own trials of the first rung, without the references, in the order of their numbers."""
    own = (trial for trial in trials if trial.number >= 0 and trial.rung == 0)
    return sorted(own, key=lambda trial: trial.number)


def require_space(trials: Iterable[Trial], space: Space, path: Path) -> None:
    """Refuse trials of another space than this one.

    Raises:
        UserError: a trial's decisions stand for another network here, or for none.
    """
    for trial in trials:
        if trial.number < 0:
            continue
        try:
            same = space.blocks(trial.tokens) == parse_blocks(trial.blocks)[0]
        except UserError:
            same = False
        if not same:
            raise UserError(
                f"space: {path} has trials of another space than {space.name} is now, such as trial {trial.number}; "
                "give the space's file back what it said then, or search anew"
            )


def measured(trials: Iterable[Trial]) -> list[Trial]:
    """The trials that have an accuracy and a latency, every network once."""
    found: dict[tuple[str, ...], Trial] = {}
    for trial in trials:
        if trial.ok:
            found.setdefault(trial.blocks, trial)
    return list(found.values())


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """Finished trials of one rung, the best first: by the mean of their ranks in reward and in loss.

    Trials without a loss are ranked by reward alone. Networks that repeat an earlier one are left out.
    """
    found = [trial for trial in trials if trial.ok and trial.repeats is None]
    score = stats.rankdata([-trial.reward for trial in found])
    losses = [trial.loss for trial in found if trial.loss is not None]
    if len(losses) == len(found):
        score = score + stats.rankdata(losses)
    order = np.lexsort((np.array([trial.number for trial in found]), score))
    return [found[place] for place in order]


def standard_error(trial: Trial) -> float:
    """Of an accuracy in [0, 1], by the number of its images; 0 where that is not known."""
    if trial.accuracy is None or not trial.images:
        return 0.0
    return math.sqrt(trial.accuracy * (1 - trial.accuracy) / trial.images)


def read_again(path: Path) -> dict[int, float]:
    """Milliseconds of the networks that were measured again in the end, by number."""
    if not path.is_file():
        return {}
    return {int(number): float(ms) for number, ms in json.loads(path.read_text()).items()}


def keeping_band(trials: Iterable[Trial], settings: Settings, again: Mapping[int, float]) -> list[Trial]:
    """The trials whose network is within the target by its last measurement; all where the search has no band."""
    if settings.band is None:
        return list(trials)
    return [one for one in trials if (again.get(one.number) or one.latency_ms or math.inf) <= settings.target_ms]


def standing(everything: Iterable[Trial], settings: Settings, again: Mapping[int, float]) -> list[Trial]:
    """The networks of a search, the best first, each by its trial on the highest rung that it reached.

    Finalists come in the order of their accuracy, others of a search with rungs by ``ranked``, without rungs by reward.
    """
    by_rung: dict[int, list[Trial]] = {}
    for trial in everything:
        if trial.number >= 0:
            by_rung.setdefault(trial.rung, []).append(trial)
    found: dict[int, Trial] = {}
    for rung in sorted(by_rung, reverse=True):
        last = rung == len(settings.rungs) + 1
        ordered = sorted((one for one in by_rung[rung] if one.ok), key=lambda one: -_accuracy(one)) if last else []
        plain = rung == 0 and len(by_rung) == 1
        ordered = ordered or (best(by_rung[rung], len(by_rung[rung])) if plain else ranked(by_rung[rung]))
        for trial in ordered:
            found.setdefault(trial.number, trial)
    return keeping_band(found.values(), settings, again)


def best(trials: Iterable[Trial], count: int) -> list[Trial]:
    """The ``count`` trials of the highest reward; of equal ones the faster, then the earlier."""
    return sorted(measured(trials), key=lambda t: (-t.reward, t.latency_ms, t.number))[:count]


def best_feasible(trials: Iterable[Trial], target_ms: float) -> Trial | None:
    """The trial of the highest accuracy within the target."""
    within = [trial for trial in measured(trials) if _ms(trial) <= target_ms]
    return max(within, key=lambda trial: (_accuracy(trial), -_ms(trial)), default=None)


def front(trials: Iterable[Trial]) -> list[Trial]:
    """The trials that no other one beats in both accuracy and latency, the fastest first."""
    found: list[Trial] = []
    for trial in sorted(measured(trials), key=lambda t: (t.latency_ms, -_accuracy(t))):
        if not found or _accuracy(trial) > _accuracy(found[-1]):
            found.append(trial)
    return found


def hypervolume(trials: Iterable[Trial], most_ms: float) -> float:
    """Area between the front, accuracy 0 and ``most_ms``, as a share of accuracy 1 times ``most_ms``: in [0, 1]."""
    total, before = 0.0, 0.0
    for trial in front(trials):
        if _ms(trial) >= most_ms:
            break
        total += (most_ms - _ms(trial)) * (_accuracy(trial) - before)
        before = _accuracy(trial)
    return total / most_ms


def running_best(trials: Sequence[Trial]) -> np.ndarray:
    """The highest reward so far, by trial."""
    rewards = np.array([trial.reward for trial in trials])
    return np.maximum.accumulate(rewards) if len(rewards) else rewards


def expected_best(rewards: Sequence[float], count: int) -> np.ndarray:
    """The expected highest of 1, 2, ... ``count`` rewards drawn with repetition from those given.

    With rewards of random networks it is the curve of random search. Dodge et al. 2019, "Show your work", equation 1.
    """
    values = np.sort(np.asarray(rewards, np.float64))
    shares = np.arange(1, len(values) + 1) / len(values)
    budgets = np.arange(1, count + 1)[:, None]
    chances = shares[None] ** budgets - (shares - 1 / len(values))[None] ** budgets
    return np.asarray(chances @ values)


def write_winners(winners: Sequence[Trial], settings: Settings, folder: Path) -> list[Path]:
    """``1.yaml``, ``2.yaml``, ...: recipes of the best networks, as ``standing`` has them, that train.py takes.

    Without a base recipe (the surrogate) there are none.
    """
    if settings.recipe is None:
        return []
    folder.mkdir(exist_ok=True)
    recipe = storable(settings.final_recipe())
    paths = []
    given = {name: value for name, value in recipe.to_dict().items() if name in recipe.given}
    for name in ("model", "blocks", "stem", "width_mult", "divisor", "min_width", "residual_rule"):
        given.pop(name, None)
    space = settings.open_space()
    for place, trial in enumerate(winners[: settings.top], start=1):
        path = folder / f"{place}.yaml"
        own = {"blocks": list(trial.blocks), "stem": space.stem, "divisor": 1}
        header = (
            f"Number {place} of the search {folder.parent.name}, trial {trial.number}: {trial.params:,} parameters, "
            f"{trial.madds / 1e6:.1f} M multiply-adds,\n"
            f"{trial.latency_ms:.3g} ms ({trial.latency.get('runtime')}, {trial.latency.get('device')}), "
            f"{100 * _accuracy(trial):.2f} % {_where(trial, settings)}.\n"
            f"\n  python train.py --config {quoted(path)}\n"
        )
        comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())  # names may have line breaks
        replace_file(path, (comment + "\n" + to_yaml({**own, **given})).encode())
        paths.append(path)
    remove_numbered(folder, "*.yaml", len(paths))
    return paths


def remove_numbered(folder: Path, pattern: str, kept: int) -> None:
    """Delete what an earlier report left: files whose names are the pattern with a number above ``kept`` for its star.

    A search with fewer winners than before would seem to have them still.
    """
    before, _, after = pattern.partition("*")
    for path in folder.glob(pattern):
        number = path.name.removeprefix(before).removesuffix(after)
        if number.isdecimal() and int(number) > kept:
            path.unlink()


def _where(trial: Trial, settings: Settings) -> str:
    if trial.rung == len(settings.rungs) + 1:
        return "after its own training by this recipe"
    return f"on held-out training images by evaluator {trial.evaluator}"


def _ms(trial: Trial) -> float:
    assert trial.latency_ms is not None
    return trial.latency_ms


def _accuracy(trial: Trial) -> float:
    assert trial.accuracy is not None
    return trial.accuracy
