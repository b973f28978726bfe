"""``report.md`` and ``report.html``: what a search found, beside what there was, and what it cost."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import replace_file
from mindcv_mnasnet.networks.network import parse_blocks
from mindcv_mnasnet.run.progress import duration
from mindcv_mnasnet.search import figures
from mindcv_mnasnet.search.folder import SearchFolder
from mindcv_mnasnet.search.results import best, best_feasible, front, hypervolume, measured, proposed, write_winners
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.surrogate import LABEL
from mindcv_mnasnet.search.trials import Trial, TrialLog


@dataclass(frozen=True)
class Section:
    """A part of the report: sentences, a table (the first row is its head), images by their paths."""

    title: str
    sentences: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()
    images: tuple[Path, ...] = ()


def write_report(path: str | Path) -> Path:
    """Write the report and the winners' recipes of a search folder; returns ``report.html``.

    Raises:
        UserError: no search is there, or no trial has both accuracy and latency.
    """
    folder = SearchFolder.open(path)
    settings = folder.stored_settings()
    everything = TrialLog(folder.trials).read()
    trials = proposed(everything)
    references = [trial for trial in everything if trial.number < 0]
    if not measured(trials):
        raise UserError(f"{folder.path} has no trial with accuracy and latency yet; there is nothing to report")
    winners = write_winners(trials, settings, folder.winners)
    sections = [
        _summary(settings, trials, winners),
        _front_section(settings, trials, references, folder.path),
        _reward_section(settings, trials, folder.path),
        _best_section(settings, trials, folder.path),
        _spent(settings, everything),
    ]
    title = f"Search {folder.path.name}"
    replace_file(folder.path / "report.md", _markdown(title, sections).encode())
    report = folder.path / "report.html"
    replace_file(report, _html(title, sections).encode())
    return report


def _summary(settings: Settings, trials: Sequence[Trial], winners: Sequence[Path]) -> Section:
    top = best(trials, 1)[0]
    sentences = [
        f"{len(trials)} trials of space {settings.space} by {settings.chosen_strategy}; accuracy by "
        f"{settings.evaluator}, latency by {settings.latency} ({top.latency.get('device')}, "
        f"{settings.latency_threads} thread(s), batch {settings.latency_batch}); target {settings.target_ms:g} ms, "
        f"reward {settings.reward}."
    ]
    if settings.evaluator == "surrogate":
        sentences.append(
            f"Accuracy and latency are {LABEL}: they say how the algorithm does and nothing about networks."
        )
    sentences.append(f"The highest reward, {top.reward:.4f}, has trial {top.number}: {_figures(top)}.")
    feasible = best_feasible(trials, settings.target_ms)
    if feasible is None:
        sentences.append(f"No trial is within {settings.target_ms:g} ms.")
    else:
        sentences.append(
            f"The most accurate within {settings.target_ms:g} ms is trial {feasible.number}: {_figures(feasible)}."
        )
    sentences += [f"Train it: python train.py --config {path}" for path in winners[:1]]
    return Section("Result", tuple(sentences))


def _front_section(settings: Settings, trials: Sequence[Trial], references: Sequence[Trial], folder: Path) -> Section:
    most = 2 * settings.target_ms
    sentences = [
        f"Hypervolume {hypervolume(trials, most):.4f}: the share of accuracy 0 to 1 and latency up to {most:g} ms that "
        "the front covers."
    ]
    rows: list[tuple[str, ...]] = [
        ("network", "accuracy, %", "latency, ms", "parameters, M", "multiply-adds, M", "reward")
    ]
    rows += [_row(f"trial {trial.number}", trial) for trial in front(trials)]
    rows += [_row(trial.name, trial) for trial in references if trial.ok]
    for one in references:
        sentences.append(_against(one, trials))
    image = figures.draw_front(trials, references, settings.target_ms, folder / "front.png")
    histogram = figures.draw_latencies({"trials": trials}, settings.target_ms, folder / "latencies.png")
    return Section("Accuracy against latency", tuple(sentences), tuple(rows), (image, histogram))


def _against(reference: Trial, trials: Sequence[Trial]) -> str:
    """Whether the search found something that is no slower and no less accurate than a published network."""
    if not reference.ok or reference.latency_ms is None or reference.accuracy is None:
        return f"{reference.name} could not be tried: {reference.status}: {reference.reason}."
    rival = best_feasible(trials, reference.latency_ms)
    if rival is None or rival.accuracy is None:
        return f"Nothing as fast as {reference.name} ({reference.latency_ms:.3g} ms) was tried."
    difference = 100 * (rival.accuracy - reference.accuracy)
    verb = "more" if difference > 0 else "less"
    how = "as accurate as" if difference == 0 else f"{abs(difference):.2f} points {verb} accurate than"
    return (
        f"At the latency of {reference.name} ({reference.latency_ms:.3g} ms) the best found, trial {rival.number}, is "
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


def _best_section(settings: Settings, trials: Sequence[Trial], folder: Path) -> Section:
    space = settings.open_space()
    images = []
    rows = [("place", "trial", "accuracy, %", "latency, ms", "reward", "blocks")]
    for place, trial in enumerate(best(trials, settings.top), start=1):
        network = space.network(trial.tokens)
        assert network.blocks == parse_blocks(trial.blocks)[0]
        title = f"{place}: trial {trial.number}, {_figures(trial)}"
        images.append(figures.draw_network(network, title, folder / f"network-{place}.png"))
        values = (f"{100 * (trial.accuracy or 0):.2f}", f"{trial.latency_ms:.3f}", f"{trial.reward:.4f}")
        rows.append((str(place), str(trial.number), *values, " ".join(trial.blocks)))
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


def _markdown(title: str, sections: Sequence[Section]) -> str:
    lines = [f"# {title}", ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for sentence in section.sentences:
            lines += [sentence, ""]
        for number, row in enumerate(section.table):
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
            if number == 0:
                lines.append("|" + " --- |" * len(row))
        lines += [""] * bool(section.table)
        for image in section.images:
            lines += [f"![{section.title}]({image.name})", ""]
    return "\n".join(lines)


_STYLE = (
    "body{font-family:system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;line-height:1.5;color:#222}"
    "table{border-collapse:collapse;font-size:.85rem;display:block;overflow-x:auto}"
    "th,td{padding:.2rem .6rem;border-bottom:1px solid #ddd;text-align:left}img{max-width:100%}h2{margin-top:2.2rem}"
)


def _html(title: str, sections: Sequence[Section]) -> str:
    """One file with its images in it."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>",
    ]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts += [f"<p>{html.escape(sentence)}</p>" for sentence in section.sentences]
        if section.table:
            rows = []
            for number, row in enumerate(section.table):
                tag = "th" if number == 0 else "td"
                rows.append("<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>")
            parts.append(f"<table>{''.join(rows)}</table>")
        for image in section.images:
            data = base64.b64encode(image.read_bytes()).decode()
            parts.append(f"<p><img alt='{html.escape(section.title)}' src='data:image/png;base64,{data}'></p>")
    return "".join([*parts, "</body></html>\n"])
