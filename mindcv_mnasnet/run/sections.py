"""Sections of a run's log: within each of them all steps take equally many images.

Where a run goes on with other batches, its steps are counted anew, from the whole epochs that are done. The message
that says so begins a section. Besides its ``text`` it holds ``images_per_step``, ``images_per_step_before`` and
``steps_before``, the steps that were done by the count of before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Records = Sequence[dict[str, Any]]
_MARK = "images_per_step_before"


@dataclass(frozen=True)
class Position:
    """Where a run stands: steps done, and images per step. A step of None images is in the first section of a log."""

    step: int
    images_per_step: int | None = None


def beginning(before: Position, now: Position) -> dict[str, Any]:
    """What the message that begins a section holds."""
    text = f"images per step: {now.images_per_step}, were {before.images_per_step}; epoch starts again"
    return {
        "text": text,
        "images_per_step": now.images_per_step,
        _MARK: before.images_per_step,
        "steps_before": before.step,
    }


def kept(records: Records, position: Position) -> list[bool]:
    """Whether each record was written at or before a position."""
    marks = [at for at, record in enumerate(records) if _MARK in record]
    chosen = 0  # the last section of such steps that begins at or before the position
    for number, at in enumerate(marks, 1):
        mark = records[at]
        if mark["images_per_step"] == position.images_per_step and mark["step"] <= position.step:
            chosen = number
    bounds = [0, *marks, len(records)]
    begin, end = bounds[chosen], bounds[chosen + 1]
    return [at < begin or (at < end and record["step"] <= position.step) for at, record in enumerate(records)]


def in_one_count(records: Records) -> list[dict[str, Any]]:
    """The records with ``step`` counting all steps that were taken, of any size."""
    found, taken = [], 0
    for record in records:
        if _MARK in record:
            taken += record["steps_before"] - record["step"]
        found.append({**record, "step": record["step"] + taken})
    return found
