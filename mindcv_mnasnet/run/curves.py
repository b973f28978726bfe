"""``curves.png``: loss, learning rate and accuracy of a run over its steps."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mindcv_mnasnet.files import replace_file
from mindcv_mnasnet.run.scores import TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Records = Sequence[dict[str, Any]]

INK, GRID = "#333333", "#e3e3e3"
LOSS, LR = "#1f5fa8", "#a0a0a0"
ACCURACIES = {  # key of an epoch's record, with the score's name in it: label, color
    "train_{}": ("training", "#9aa5b1"),
    "val_{}": ("validation", "#d1731f"),
    "val_{}_ema": ("validation, EMA weights", "#1a7f5a"),
}


def draw_curves(records: Records, path: Path) -> None:
    """Draw the ``step`` and ``epoch`` records of a log into the PNG file ``path``, replacing it in one move.

    Raises:
        JobError: the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(9, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    _draw_loss(above, [record for record in records if record["kind"] == "step"])
    _draw_accuracy(below, [record for record in records if record["kind"] == "epoch"])
    below.set_xlabel("step", color=INK)
    below.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    image = BytesIO()
    figure.savefig(image, dpi=120, format="png")
    replace_file(path, image.getvalue())


def _series(records: Records, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the records that hold ``key``; a ``null`` in the log is a gap (NaN) in the curve."""
    held = [record for record in records if key in record]
    values = [np.nan if record[key] is None else float(record[key]) for record in held]
    return np.array([record["step"] for record in held]), np.array(values)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centered running mean over at most ``window`` values, over fewer at the ends; NaN is left out of the means."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    position = np.arange(len(values))
    start, stop = np.maximum(position - window // 2, 0), np.minimum(position + window // 2 + 1, len(values))
    number = counts[stop] - counts[start]
    return np.where(number > 0, (sums[stop] - sums[start]) / np.maximum(number, 1), np.nan)


def _draw_loss(axes: Axes, records: Records) -> None:
    _style(axes, "training loss")
    steps, loss = _series(records, "loss")
    axes.plot(steps, loss, color=LOSS, alpha=0.25, linewidth=0.8)
    axes.plot(steps, smooth(loss, max(1, len(loss) // 50)), color=LOSS, linewidth=1.8, label="loss")
    rates = axes.twinx()
    rates.plot(*_series(records, "lr"), color=LR, linewidth=1.2, linestyle="--", label="learning rate")
    rates.set_ylabel("learning rate", color=INK)
    rates.set_ylim(bottom=0)
    rates.tick_params(colors=INK, length=0)
    rates.spines[:].set_visible(False)
    axes.legend(handles=[*axes.get_lines()[1:], *rates.get_lines()], frameon=False, loc="upper right")


def _draw_accuracy(axes: Axes, records: Records) -> None:
    held = {key for record in records for key in record}
    score = next((name for name in TITLES if {f"val_{name}", f"val_{name}_ema"} & held), "top1")
    _style(axes, f"{TITLES[score]} (%)")
    for key, (label, color) in ACCURACIES.items():
        steps, values = _series(records, key.format(score))
        if len(steps):
            best = f", best {np.nanmax(values):.2f}" if key.startswith("val") and np.isfinite(values).any() else ""
            axes.plot(steps, values, color=color, linewidth=1.8, marker=".", markersize=5, label=label + best)
    if axes.get_lines():
        axes.legend(frameon=False, loc="lower right")


def _style(axes: Axes, title: str) -> None:
    axes.set_ylabel(title, color=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
