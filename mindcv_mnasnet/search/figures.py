"""The report's images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.search.results import expected_best, front, measured, running_best
from mindcv_mnasnet.search.trials import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DPI = 110
_ALL, _FRONT, _REFERENCE, _RANDOM = "#9aa5b1", "#1f6f8b", "#c8553d", "#d9a441"
_GROUPS = (_FRONT, _REFERENCE, _RANDOM, _ALL)


def _axes(width: float = 7.0, height: float = 4.2) -> Axes:
    from matplotlib.figure import Figure

    axes: Axes = Figure(figsize=(width, height), layout="constrained").subplots()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _save(axes: Axes, path: Path) -> Path:
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.savefig(path, dpi=_DPI)
    return path


def draw_front(trials: Sequence[Trial], references: Sequence[Trial], target_ms: float, path: Path) -> Path:
    """Accuracy against latency of all trials, their front, and what there was before."""
    axes = _axes()
    points = measured(trials)
    axes.scatter(_ms(points), _percent(points), s=12, color=_ALL, label="tried")
    best = front(trials)
    axes.plot(_ms(best), _percent(best), "o-", ms=5, color=_FRONT, label="front")
    known = [one for one in references if one.ok]
    if known:
        axes.scatter(_ms(known), _percent(known), marker="s", color=_REFERENCE, label="published")
    for one in known:
        axes.annotate(one.label, (one.latency_ms, 100 * (one.accuracy or 0)), textcoords="offset points", xytext=(5, 4))
    axes.axvline(target_ms, color="black", lw=0.8, ls=":")
    axes.set(xlabel="latency, ms", ylabel="accuracy, %")
    axes.legend(frameon=False)
    return _save(axes, path)


def draw_latencies(groups: dict[str, Sequence[Trial]], target_ms: float, path: Path) -> Path:
    """Histograms of latency; the dotted line is the target. Figure 6 of the paper for two searches."""
    axes = _axes()
    values = {name: np.array([t.latency_ms for t in trials if t.ok]) for name, trials in groups.items()}
    every = np.concatenate(list(values.values()))
    bins = np.linspace(every.min(), np.percentile(every, 99.5), 41).tolist() if len(every) else 10
    for (name, one), color in zip(values.items(), _GROUPS, strict=False):
        axes.hist(one, bins=bins, alpha=0.6, color=color, label=name)
    axes.axvline(target_ms, color="black", lw=0.8, ls=":")
    axes.set(xlabel="latency, ms", ylabel="trials")
    if len(groups) > 1:
        axes.legend(frameon=False)
    return _save(axes, path)


def draw_rewards(trials: Sequence[Trial], random: Sequence[float], path: Path) -> Path:
    """The reward of every trial, the best so far, and what random search would have expected."""
    axes = _axes()
    rewards = [trial.reward for trial in trials]
    axes.scatter(range(1, len(rewards) + 1), rewards, s=8, color=_ALL, label="trials")
    axes.plot(range(1, len(rewards) + 1), running_best(trials), color=_FRONT, label="best so far")
    if random:
        expected = expected_best(random, min(len(random), len(rewards)))
        axes.plot(range(1, len(expected) + 1), expected, color=_RANDOM, label="random search, expected")
    positive = [reward for reward in rewards if reward > 0]
    if positive:
        axes.set_ylim(bottom=float(np.percentile(positive, 1)) * 0.98)
    axes.set(xlabel="trial", ylabel="reward")
    axes.legend(frameon=False)
    return _save(axes, path)


def draw_learning(groups: dict[str, Sequence[Trial]], path: Path) -> Path:
    """The mean reward of every fiftieth of a search, and its best so far (dashed)."""
    axes = _axes()
    for (name, trials), color in zip(groups.items(), _GROUPS, strict=False):
        parts = [part for part in np.array_split([trial.reward for trial in trials], 50) if len(part)]
        axes.plot(np.cumsum([len(part) for part in parts]), [part.mean() for part in parts], color=color, label=name)
        axes.plot(range(1, len(trials) + 1), running_best(trials), color=color, lw=0.8, ls="--")
    axes.set(xlabel="trial", ylabel="reward")
    axes.legend(frameon=False)
    return _save(axes, path)


def draw_network(network: Network, title: str, path: Path) -> Path:
    """A network layer by layer, from left to right: height is the output's width, color the operator (figure 7)."""
    colors = {"conv": "#b07aa1", "e1": "#edc948", "e3": "#76b7b2", "e6": "#4e79a7"}
    axes = _axes(9.0, 3.0)
    axes.grid(visible=False)
    layers = network.layers()
    madds = {one.name: one.madds for one in network_cost(network).layers}
    for index, layer in enumerate(layers):
        kind = "conv" if layer.conv else f"e{layer.expand}"
        axes.bar(index, layer.out_width, color=colors.get(kind, "#bab0ac"), width=0.85)
        own = sum(value for name, value in madds.items() if name.startswith(f"blocks.{index}."))
        words = f"{kind} k{layer.kernel}{' SE' if layer.se_width else ''}{' /2' if layer.stride == 2 else ''}"
        shortcut = " pool" if layer.pool else " +" if layer.residual else ""
        axes.annotate(
            f"{words}{shortcut}\n{layer.out_width}, {own / 1e6:.1f} M",
            (index, layer.out_width),
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=6.5,
        )
    axes.set_ylim(0, max(layer.out_width for layer in layers) * 1.9)
    axes.set(xticks=[], ylabel="channels", title=title)
    return _save(axes, path)


def _ms(trials: Sequence[Trial]) -> list[float]:
    return [trial.latency_ms or 0.0 for trial in trials]


def _percent(trials: Sequence[Trial]) -> list[float]:
    return [100 * (trial.accuracy or 0.0) for trial in trials]
