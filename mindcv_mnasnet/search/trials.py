"""Trials: what was tried, how it went, and the one file that a search appends them to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import unwritable
from mindcv_mnasnet.recipe.recipe import RECIPE_SUFFIXES, split_width

SCHEMA = 2
_READ = (1, 2)  # schema 1 had neither rungs nor losses
#: ``ok``; the device could not tell a latency; the training failed, ran out of time or memory, or diverged.
STATUSES = ("ok", "unmeasured", "failed", "timeout", "memory", "diverged")
#: States that say something about the network; the others are failures of a device or a machine.
INFORMATIVE = ("ok", "timeout", "diverged")


@dataclass(frozen=True)
class Trial:
    """One network that was tried: a line of ``trials.jsonl``.

    ``accuracy`` in [0, 1] is the evaluator's, on images held out of the training set. ``latency`` is a record of
    ``latency.Latency``; ``latency_ms`` its median. ``reason`` says why a trial is not ``ok``. ``seconds`` is what it
    cost, of one that was cut off the time since. ``name`` is a reference's, whose number is negative. ``repeats`` is
    the number of the earlier trial of the same network, whose results these are. ``rung`` counts longer trainings of
    the same network, of the same number; ``loss`` is the mean cross entropy on the ``images`` images of ``accuracy``.
    """

    number: int
    generation: int
    tokens: tuple[int, ...]
    blocks: tuple[str, ...]
    status: str
    seed: int
    params: int
    madds: int
    accuracy: float | None = None
    latency_ms: float | None = None
    reward: float = 0.0
    seconds: float = 0.0
    reason: str = ""
    latency: dict[str, Any] = field(default_factory=dict)
    evaluator: str = ""
    name: str = ""
    repeats: int | None = None
    rung: int = 0
    loss: float | None = None
    images: int | None = None
    schema: int = SCHEMA

    @property
    def ok(self) -> bool:
        """Whether there are an accuracy and a latency."""
        return self.status == "ok"

    @property
    def label(self) -> str:
        """What reports call it: a reference's name, of a recipe's file its stem, or the number."""
        model, width = split_width(self.name)
        if not model.endswith(RECIPE_SUFFIXES):
            return self.name or f"trial {self.number}"
        return Path(model).stem + (f"@{width}" if width else "")

    def to_json(self) -> str:
        """One line of the file; ``from_dict`` of what it reads as is the inverse."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], origin: str) -> Trial:
        """A stored trial.

        Raises:
            UserError: another schema, or keys that are missing or unknown.
        """
        if stored.get("schema") not in _READ:
            raise UserError(f"{origin} has schema {stored.get('schema')!r}; this version reads {SCHEMA}")
        if stored["schema"] == 1:
            stored = {**stored, "rung": 0, "loss": None, "images": None, "schema": SCHEMA}
        if odd := sorted({one.name for one in fields(cls)}.symmetric_difference(stored)):
            raise UserError(f"{origin} has missing or unknown keys: {', '.join(odd)}")
        if stored["status"] not in STATUSES:
            raise UserError(f"{origin} has the unknown status {stored['status']!r}")
        return cls(**{**stored, "tokens": tuple(stored["tokens"]), "blocks": tuple(stored["blocks"])})


class TrialLog:
    """``trials.jsonl``: appended to, one line per trial, on disk when ``append`` returns."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, *trials: Trial) -> None:
        """Add trials.

        Raises:
            JobError: the file cannot be written.
        """
        try:
            with self.path.open("ab") as file:
                file.write(b"".join(trial.to_json().encode() + b"\n" for trial in trials))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from error

    def read(self, repair: bool = False) -> list[Trial]:
        """All trials, in the order in which they ended.

        A last line that is not whole yet is left out. A crash cut it short if the search is at work here: ``repair``
        drops it from the file too, and its trial is made again.

        Raises:
            UserError: any other line that cannot be read.
        """
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if repair and len(whole) < len(content):
            try:
                with self.path.open("r+b") as file:
                    file.truncate(len(whole))
            except OSError as error:
                raise unwritable(self.path, error) from error
        trials = []
        for number, line in enumerate(whole.splitlines(), start=1):
            origin = f"{self.path}, line {number}"
            try:
                stored = json.loads(line)
            except ValueError:
                raise UserError(f"{origin} is not JSON; the file is damaged") from None
            if not isinstance(stored, dict):
                raise UserError(f"{origin} is not a trial")
            trials.append(Trial.from_dict(stored, origin))
        return trials
