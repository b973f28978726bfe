"""Published results of other implementations: the rows of ``reported.yaml`` with their sources and misprints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mindcv_mnasnet.networks.network import Network, known_names, resolve

A1 = ("tf", "mnasnet-a1")


@dataclass(frozen=True)
class Reported:
    """One published result; None is what its source does not say.

    ``top1``, ``top5`` and ``mean_ap`` (COCO's AP over IoU 0.5 to 0.95) are per cent, ``params_m`` and ``madds_m``
    millions as published (what they count differs by source and is in ``notes``), ``latency_ms`` is on one core of a
    Pixel 1. ``printed`` pairs fields with what the source prints where ``misprint`` says that it is wrong.
    """

    source: str
    model: str
    url: str
    width_mult: float
    image_size: int
    dataset: str = "imagenet"
    checkpoint: str | None = None
    top1: float | None = None
    top5: float | None = None
    mean_ap: float | None = None
    eval_crop: str | None = None
    val_resize: int | None = None
    interpolation: str | None = None
    padding: str | None = None
    bn_eps: float | None = None
    params_m: float | None = None
    madds_m: float | None = None
    latency_ms: float | None = None
    notes: str | None = None
    printed: tuple[tuple[str, float], ...] = ()
    misprint: str | None = None

    @property
    def label(self) -> str:
        """How a sentence names this result."""
        size = f" at {self.image_size} px" if self.source == "tf" else ""
        scaled = f" x {self.width_mult:g}" if self.source == "tf" else ""
        return f"{self.source} {self.checkpoint or self.model}{scaled}{size}"

    def describe_misprint(self) -> str | None:
        """One sentence on what the source misprints here, if anything."""
        if self.misprint is None:
            return None
        wrong = ", ".join(f"{key} {value:g}" for key, value in self.printed)
        return f"printed {wrong}: {self.misprint}" if wrong else self.misprint

    def describe_evaluation(self) -> str:
        """Crop, interpolation, padding and BN epsilon in a few words."""
        if self.eval_crop is None:
            return "not stated"
        crop = "square size/(size+32)" if self.eval_crop == "tf_square" else f"resize {self.val_resize}, center"
        return f"{crop}, {self.interpolation}, {self.padding} padding, eps {self.bn_eps:g}"

    def network(self) -> Network | None:
        """The network measured; None where the source published no description of it."""
        if self.model not in known_names():
            return None
        return resolve(self.model, width_mult=self.width_mult, image_size=self.image_size)


@cache
def load_reported() -> tuple[Reported, ...]:
    """All published results, in the order of the data file."""
    groups = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return tuple(entry for group in groups for entry in _expand(group))


def authors_grid() -> list[tuple[Reported, Network]]:
    """The sizes and widths of MnasNet-A1 in the authors' table, with the networks."""
    entries = [(entry, entry.network()) for entry in load_reported() if (entry.source, entry.model) == A1]
    return [(entry, network) for entry, network in entries if network is not None]


def _expand(group: dict[str, Any]) -> Iterator[Reported]:
    columns, rows, misprints = group.pop("columns"), group.pop("rows"), group.pop("misprints", [])
    for row in rows:
        entry = Reported(**{**group, **dict(zip(columns, row, strict=True))})
        for misprint in misprints:
            if all(getattr(entry, key) == value for key, value in misprint["where"].items()):
                entry = replace(entry, printed=tuple(misprint["printed"].items()), misprint=misprint["why"])
        yield entry


def format_table(entries: Sequence[Reported] | None = None) -> str:
    """The results (all of them by default) as a text table, notes and misprints numbered below it."""
    entries = load_reported() if entries is None else entries
    notes: list[str] = []
    header = (
        "source",
        "model",
        "width",
        "px",
        "top-1",
        "top-5",
        "mAP",
        "evaluation",
        "params M",
        "madds M",
        "ms",
        "notes",
    )
    lines = [header, *(_row(entry, notes) for entry in entries)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join(
        [table[0], "-" * len(table[0]), *table[1:], "", *(f"[{n}] {note}" for n, note in enumerate(notes, 1))]
    )


def _row(entry: Reported, notes: list[str]) -> tuple[str, ...]:
    marks = []
    for note in (entry.notes, entry.describe_misprint()):
        if note:
            notes.extend([note] if note not in notes else [])
            marks.append(str(notes.index(note) + 1))
    values = (entry.top1, entry.top5, entry.mean_ap, entry.params_m, entry.madds_m, entry.latency_ms)
    top1, top5, mean_ap, params, madds, latency = ("-" if value is None else str(value) for value in values)
    model = entry.checkpoint or entry.model
    if not model.startswith(entry.model):
        model = f"{entry.model} ({model})"
    where = (entry.source, model, f"{entry.width_mult:g}", str(entry.image_size))
    return (*where, top1, top5, mean_ap, entry.describe_evaluation(), params, madds, latency, ",".join(marks))
