"""``report.md`` and ``report.html``: what a search found, beside what there was, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import quoted, replace_file
from mindcv_mnasnet.run.progress import duration
from mindcv_mnasnet.search import figures
from mindcv_mnasnet.search.chart import SCRIPT, chart
from mindcv_mnasnet.search.evidence import predictor_sections, rung_sections, verdict_sections
from mindcv_mnasnet.search.folder import SearchFolder
from mindcv_mnasnet.search.page import Section, markdown, page
from mindcv_mnasnet.search.results import (
    best,
    best_feasible,
    front,
    hypervolume,
    measured,
    proposed,
    read_again,
    remove_numbered,
    require_space,
    standing,
    write_winners,
)
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.surrogate import LABEL
from mindcv_mnasnet.search.trials import Trial, TrialLog


def write_report(path: str | Path) -> Path:
    """Write the report and the winners' recipes of a search folder; returns ``report.html``.

    Raises:
        UserError: no search is there, or no trial has both accuracy and latency.
    """
    folder = SearchFolder.open(path)
    settings = folder.stored_settings()
    everything = TrialLog(folder.trials).read()
    trials = proposed(everything)
    references = [trial for trial in everything if trial.number < 0 and trial.rung == 0]
    require_space(everything, settings.open_space(), folder.trials)
    if not measured(trials):
        raise UserError(f"{folder.path} has no trial with accuracy and latency yet; there is nothing to report")
    order = standing(everything, settings, read_again(folder.again))
    winners = write_winners(order, settings, folder.winners)
    sections = [
        _summary(settings, trials, order, winners),
        *verdict_sections(settings, everything),
        _front_section(settings, trials, references, folder.path),
        _reward_section(settings, trials, folder.path),
        *rung_sections(settings, everything),
        *predictor_sections(settings, trials),
        _best_section(settings, order, folder.path),
        _spent(settings, everything),
    ]
    title = f"Search {folder.path.name}"
    replace_file(folder.path / "report.md", markdown(title, sections).encode())
    report = folder.path / "report.html"
    replace_file(report, page(title, sections, SCRIPT).encode())
    return report


def _summary(settings: Settings, trials: Sequence[Trial], order: Sequence[Trial], winners: Sequence[Path]) -> Section:
    top = best(trials, 1)[0]
    sentences = [
        f"{len(trials)} trials of space {settings.open_space().name} by {settings.chosen_strategy}; accuracy by "
        f"{settings.evaluator}, latency by {settings.latency} ({top.latency.get('device')}, "
        f"{settings.latency_threads} thread(s), batch {settings.latency_batch}); target {settings.target_ms:.4g} ms, "
        f"reward {settings.reward}."
    ]
    if settings.evaluator == "surrogate":
        sentences.append(
            f"Accuracy and latency are {LABEL}: they say how the algorithm does and nothing about networks."
        )
    sentences.append(f"The highest reward, {top.reward:.4f}, has trial {top.number}: {_figures(top)}.")
    feasible = best_feasible(trials, settings.target_ms)
    if feasible is None:
        sentences.append(f"No trial is within {settings.target_ms:.4g} ms.")
    else:
        sentences.append(
            f"The most accurate within {settings.target_ms:.4g} ms is trial {feasible.number}: {_figures(feasible)}."
        )
    if order and order[0].number != top.number:
        sentences.append(f"After longer trainings and the last measurement trial {order[0].number} is the first.")
    if not order:
        sentences.append("No network is within the target by its last measurement: there is no winner.")
    sentences += [f"Train it: python train.py --config {quoted(path)}" for path in winners[:1]]
    return Section("Result", tuple(sentences))


def _front_section(settings: Settings, trials: Sequence[Trial], references: Sequence[Trial], folder: Path) -> Section:
    most = 2 * settings.target_ms
    sentences = [
        f"Hypervolume {hypervolume(trials, most):.4f}: the share of accuracy 0 to 1 and latency up to {most:.4g} ms "
        "that the front covers."
    ]
    rows: list[tuple[str, ...]] = [
        ("network", "accuracy, %", "latency, ms", "parameters, M", "multiply-adds, M", "reward")
    ]
    rows += [_row(f"trial {trial.number}", trial) for trial in front(trials)]
    rows += [_row(trial.label, trial) for trial in references if trial.ok]
    for one in references:
        sentences.append(_against(one, trials))
    image = figures.draw_front(trials, references, settings.target_ms, folder / "front.png")
    drawn = chart(settings.open_space(), trials, references, settings.target_ms)
    histogram = figures.draw_latencies({"trials": trials}, settings.target_ms, folder / "latencies.png")
    return Section("Accuracy against latency", tuple(sentences), tuple(rows), (histogram,), drawn, image)


def _against(reference: Trial, trials: Sequence[Trial]) -> str:
    """Whether the search found something that is no slower and no less accurate than a published network."""
    if not reference.ok or reference.latency_ms is None or reference.accuracy is None:
        return f"{reference.label} could not be tried: {reference.status}: {reference.reason}."
    rival = best_feasible(trials, reference.latency_ms)
    if rival is None or rival.accuracy is None:
        return f"Nothing as fast as {reference.label} ({reference.latency_ms:.3g} ms) was tried."
    difference = 100 * (rival.accuracy - reference.accuracy)
    verb = "more" if difference > 0 else "less"
    how = "as accurate as" if difference == 0 else f"{abs(difference):.2f} points {verb} accurate than"
    return (
        f"At the latency of {reference.label} ({reference.latency_ms:.3g} ms) the best found, trial {rival.number}, is "
        f"{how} it by the same short evaluation."
    )


def _reward_section(settings: Settings, trials: Sequence[Trial], folder: Path) -> Section:
    random = _random_rewards(settings, trials)
    sentences = []
    if random:
        sentences.append(
            f"Random search is what {len(random)} evenly drawn networks of this search lead to expect of it "
            "(Dodge et al. 2019, equation 1)."
        )
    sentences.append(
        f"Mean reward of the first tenth {_mean(trials[: max(1, len(trials) // 10)]):.4f}, of the last tenth "
        f"{_mean(trials[-max(1, len(trials) // 10) :]):.4f}."
    )
    return Section(
        "Reward over trials", tuple(sentences), (), (figures.draw_rewards(trials, random, folder / "rewards.png"),)
    )


def _random_rewards(settings: Settings, trials: Sequence[Trial]) -> list[float]:
    """Rewards of the trials that were drawn evenly: all, the first population, or the controller's first generation."""
    bred = settings.population
    even = {"random": len(trials), "controller": settings.generation}.get(settings.chosen_strategy, bred)
    return [trial.reward for trial in trials[:even]]


def _mean(trials: Sequence[Trial]) -> float:
    return sum(trial.reward for trial in trials) / len(trials)


def _best_section(settings: Settings, order: Sequence[Trial], folder: Path) -> Section:
    space = settings.open_space()
    images = []
    rows = [("place", "trial", "accuracy, %", "latency, ms", "reward", "blocks")]
    for place, trial in enumerate(order[: settings.top], start=1):
        network = space.network(trial.tokens)
        title = f"{place}: trial {trial.number}, {_figures(trial)}"
        images.append(figures.draw_network(network, title, folder / f"network-{place}.png"))
        values = (f"{100 * (trial.accuracy or 0):.2f}", f"{trial.latency_ms:.3f}", f"{trial.reward:.4f}")
        rows.append((str(place), str(trial.number), *values, " ".join(trial.blocks)))
    remove_numbered(folder, "network-*.png", len(images))
    return Section("Best networks", (), tuple(rows), tuple(images))


def _spent(settings: Settings, trials: Sequence[Trial]) -> Section:
    counts = Counter(trial.status for trial in trials)
    repeated = sum(trial.repeats is not None for trial in trials)
    seconds = sum(trial.seconds for trial in trials)
    sentences = [
        f"{duration(seconds)} of trials' time on {settings.workers} worker(s); {repeated} trials repeat an earlier "
        "network and cost nothing.",
        "States: " + ", ".join(f"{count} {status}" for status, count in counts.most_common()) + ".",
    ]
    reasons = Counter(trial.reason for trial in trials if not trial.ok)
    rows = [("reason", "trials"), *((reason[:200], str(count)) for reason, count in reasons.most_common(10))]
    return Section("What was spent", tuple(sentences), tuple(rows) if reasons else ())


def _row(name: str, trial: Trial) -> tuple[str, ...]:
    numbers = (100 * (trial.accuracy or 0), trial.latency_ms or 0, trial.params / 1e6, trial.madds / 1e6)
    shown = (f"{numbers[0]:.2f}", f"{numbers[1]:.3f}", f"{numbers[2]:.3f}", f"{numbers[3]:.1f}")
    return (name, *shown, f"{trial.reward:.4f}")


def _figures(trial: Trial) -> str:
    return f"{100 * (trial.accuracy or 0):.2f} %, {trial.latency_ms:.3g} ms, {trial.params / 1e6:.2f} M parameters"
