"""What validation found, and how it is written down: a table, JSON, CSV, COCO's results file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindcv_mnasnet.detection.evaluation import NAMES
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.files import replace_file, unwritable
from mindcv_mnasnet.inference.verdict import Verdict
from mindcv_mnasnet.train.box_evaluation import BoxCounts
from mindcv_mnasnet.train.metrics import Counts


@dataclass(frozen=True)
class Result:
    """One checkpoint's accuracy, or a detector's average precisions."""

    checkpoint: str
    weights: str  # "ema" or "raw"
    model: str
    counts: Counts | BoxCounts
    skipped: int
    images_per_second: float
    verdict: Verdict
    backend: str = "mindspore"
    quantization: str | None = None
    notes: tuple[str, ...] = ()  # sentences about the data

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; accuracies and precisions in percent."""
        return {
            "checkpoint": self.checkpoint,
            "weights": self.weights,
            "model": self.model,
            "backend": self.backend,
            "quantization": self.quantization,
            **self.counts.to_dict(),
            "skipped": self.skipped,
            "notes": list(self.notes),
            "images_per_second": round(self.images_per_second, 1),
            "reported": self.verdict.to_dict(),
        }

    def columns(self) -> dict[str, str]:
        """A table's row by its headings."""
        counts = self.counts
        if isinstance(counts, BoxCounts):
            found = counts.to_dict()
            numbers = {name.replace("_", " ").upper(): percent(found[name]) for name in NAMES}
        else:
            numbers = {"top-1 %": f"{counts.top1:.3f}", "top-5 %": f"{counts.top5:.3f}"}
            numbers["loss"] = f"{counts.mean_loss:.4f}"
        return {
            "checkpoint": self.checkpoint,
            "weights": self.weights,
            "backend": " ".join(filter(None, (self.backend, self.quantization))),
            **numbers,
            "images": f"{counts.seen}",
            "images/s": f"{self.images_per_second:.0f}",
        }


def percent(value: float | None) -> str:
    """A precision with two digits; a dash where there is nothing to find."""
    return "-" if value is None else f"{value:.2f}"


def format_results(results: Sequence[Result]) -> str:
    """A text table, one row per checkpoint, with the verdict on each below it; detectors have a table of their own."""
    lines = []
    for kind in (Counts, BoxCounts):
        lines += _table([one.columns() for one in results if isinstance(one.counts, kind)])
    for one in results:
        if isinstance(one.counts, BoxCounts):
            by_class = ", ".join(f"{name} {percent(value)}" for name, value in one.counts.ap50_of().items())
            lines.append(f"{one.checkpoint}: AP50 of {by_class}")
    verdicts = [f"{r.checkpoint}: {r.verdict}" if len(results) > 1 else str(r.verdict) for r in results]
    skipped = [f"{r.checkpoint}: {r.skipped} broken images skipped" for r in results if r.skipped]
    notes = dict.fromkeys(note for r in results for note in r.notes)
    return "\n".join([*lines, *skipped, *notes, *verdicts])


def _table(rows: Sequence[dict[str, str]]) -> list[str]:
    if not rows:
        return []
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    whole = [dict(zip(widths, widths, strict=True)), *rows]
    return ["  ".join(row[name].ljust(width) for name, width in widths.items()) for row in whole]


def append_csv(path: Path, results: Sequence[Result]) -> None:
    """Append one line per result to a CSV file, with a header where it is new; AP50 by class is JSON in one column.

    Raises:
        UserError: the file has other columns, or the results are of classifiers and detectors.
        JobError: it cannot be written.
    """
    rows = [{**r.to_dict(), **{f"reported_{k}": v for k, v in r.verdict.to_dict().items()}} for r in results]
    for row in rows:
        del row["reported"], row["notes"]
        if "ap50_of" in row:
            row["ap50_of"] = json.dumps(row["ap50_of"])
        if row.keys() != rows[0].keys():
            raise UserError("csv: classifiers and detectors have other columns; validate them in turn")
    before = csv_text(path)
    header = before.splitlines()[:1]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    if not header:
        writer.writeheader()
    elif next(csv.reader(header)) != list(rows[0]):
        raise UserError(f"csv: {path} has other columns than {','.join(rows[0])}; name another file")
    elif not before.endswith("\n"):  # an editor's last line
        text.write("\r\n")
    writer.writerows(rows)
    try:
        with path.open("a", newline="", encoding="utf-8") as file:
            file.write(text.getvalue())
    except OSError as error:
        raise unwritable(path, error) from None


def csv_text(path: Path) -> str:
    """What a CSV file holds already; nothing where there is none, or what leads to a device or a pipe.

    Raises:
        UserError: it is no text, or cannot be read.
    """
    if not path.is_file():
        return ""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"csv: {path} cannot be read as text ({error}); name another file") from None


def write_detections(path: Path, results: Sequence[Result]) -> None:
    """Write a detector's answers to the whole data set as COCO's results file.

    Raises:
        UserError: the result is not one of a single detector.
        JobError: it cannot be written.
    """
    counts = [one.counts for one in results]
    if len(counts) != 1 or not isinstance(counts[0], BoxCounts):
        raise UserError("results: COCO's results file is of one detector; name one checkpoint")
    replace_file(path, json.dumps(counts[0].detections).encode())


def require_reported(results: Sequence[Result]) -> None:
    """Fail unless every result is comparable with a published one and inside the tolerance.

    Raises:
        JobError: naming the first that is not.
    """
    for result in results:
        if not result.verdict.inside:
            raise JobError(f"{result.checkpoint} does not reproduce a reported result: {result.verdict}")
