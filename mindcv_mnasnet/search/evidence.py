"""What a report says on how far its results can be trusted: rungs, the predictor's ranking, the finalists."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from mindcv_mnasnet.latency.agreement import agreement, interval_of_ranks
from mindcv_mnasnet.search.chart import scatter
from mindcv_mnasnet.search.page import Section
from mindcv_mnasnet.search.predictor import leave_one_out
from mindcv_mnasnet.search.results import measured, ranked, standard_error
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.trials import Trial

_LEAST = 8  # networks for a rank correlation worth printing
_MOST_LEFT_OUT = 300  # fits of the predictor
_Z = 1.96


def verdict_sections(settings: Settings, everything: Sequence[Trial]) -> list[Section]:
    """The finalists beside the references, all trained by the same recipe."""
    last = len(settings.rungs) + 1
    final = [trial for trial in everything if trial.rung == last and trial.ok]
    if not settings.finalists or not final:
        return []
    own = sorted((one for one in final if one.number >= 0), key=lambda one: -(one.accuracy or 0))
    references = [one for one in final if one.number < 0]
    rows = [("network", "accuracy, %", "95 % interval", "latency, ms", "latency / target", "parameters, M")]
    for one in (*own, *references):
        half = 100 * _Z * standard_error(one)
        middle, ms = 100 * (one.accuracy or 0), one.latency_ms or 0
        bounds = f"{middle - half:.2f} to {middle + half:.2f}"
        ratio = f"{ms / settings.target_ms:.3f}"
        rows.append((one.label, f"{middle:.2f}", bounds, f"{ms:.3f}", ratio, f"{one.params / 1e6:.3f}"))
    sentences = [_verdict(own[0], one) for one in references if own]
    sentences.append(
        "All were trained once by the recipe itself. The intervals are of the images counted, and say nothing of the "
        "spread between seeds, which is of like size: train the first ones with other seeds before a close call."
    )
    return [Section("Finalists", tuple(sentences), tuple(rows))]


def _verdict(first: Trial, reference: Trial) -> str:
    difference = 100 * ((first.accuracy or 0) - (reference.accuracy or 0))
    half = 100 * _Z * math.hypot(standard_error(first), standard_error(reference))
    word = "better than" if difference > half else "worse than" if difference < -half else "not told apart from"
    speed = (first.latency_ms or 0) / (reference.latency_ms or 1)
    return (
        f"{first.label} is {word} {reference.label}: {difference:+.2f} points, 95 % interval "
        f"{difference - half:+.2f} to {difference + half:+.2f}, at {speed:.2f} times its latency."
    )


def rung_sections(settings: Settings, everything: Sequence[Trial]) -> list[Section]:
    """Who rose and who fell from one training to the next longer one."""
    last = max((trial.rung for trial in everything), default=0)
    if last == 0:
        return []
    by_rung = [{one.number: one for one in everything if one.rung == rung} for rung in range(last + 1)]
    places = []
    for trials in by_rung:
        order = ranked(one for one in trials.values() if one.number >= 0)
        places.append({one.number: place for place, one in enumerate(order, start=1)})
    names = [f"rung {rung}" if rung <= len(settings.rungs) else "final" for rung in range(last + 1)]
    rows: list[tuple[str, ...]] = [("network", *names)]
    for number in [*places[1], *sorted(number for number in by_rung[1] if number < 0)]:
        cells = [_cell(by_rung[rung].get(number), places[rung].get(number)) for rung in range(last + 1)]
        rows.append((by_rung[1][number].label, *cells))
    sentences = ["Accuracy in per cent, and the place among the networks of the rung."]
    for short, long in itertools.combinations(range(last + 1), 2):
        both = [number for number in places[long] if number in places[short]]
        if len(both) >= 3:
            a, b = ([by_rung[rung][number].accuracy or 0 for number in both] for rung in (short, long))
            chosen = ", which were chosen by the former and so differ less than others"
            sentences.append(
                f"{names[short].capitalize()} against {names[long]}: {_ranking(a, b)}"
                f"{chosen if len(both) < len(places[short]) else ''}."
            )
    return [Section("Rungs", tuple(sentences), tuple(rows))]


def _ranking(a: Sequence[float], b: Sequence[float]) -> str:
    found, (low, high) = agreement(a, b), interval_of_ranks(a, b)
    interval = f"95 % interval {low:.2f} to {high:.2f}, bootstrap"
    return f"Spearman {found.spearman:.2f} ({interval}), Kendall {found.kendall:.2f} over {found.count} networks"


def _cell(trial: Trial | None, place: int | None) -> str:
    if trial is None:
        return "-"
    if trial.accuracy is None:
        return trial.status
    return f"{100 * trial.accuracy:.2f}" + (f" ({place}.)" if place else "")


def predictor_sections(settings: Settings, trials: Sequence[Trial]) -> list[Section]:
    """How the predictor ranks networks that it was not fitted on."""
    found = measured(trials)[:_MOST_LEFT_OUT]
    if settings.chosen_strategy != "predictor" or len(found) < _LEAST:
        return []
    known = {trial.tokens: trial.reward for trial in found}
    predicted = leave_one_out(settings.open_space(), known)
    ranking = _ranking(predicted, list(known.values()))
    sentence = f"Fitted on all networks but one, the predictor ranks the one left out with {ranking}."
    pairs = list(zip(predicted, known.values(), strict=True))
    return [Section("Predicted against measured", (sentence,), (), (), scatter(pairs, "predicted reward", "reward"))]
