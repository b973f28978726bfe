"""The folder of a run: what lies in it, and that one job at a time writes it.

How a taken name is numbered and a folder locked is in :mod:`mindcv_mnasnet.files`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from mindcv_mnasnet.data.sets import with_absolute_places
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import lock_folder, matching, new_folder, quoted, replace_file, unwritable, with_home
from mindcv_mnasnet.recipe.recipe import Recipe, load_stored_recipe
from mindcv_mnasnet.run.checkpoint import SUFFIX, newest_intact, next_serial, prune, publish, write_checkpoint

BEST = f"best{SUFFIX}"


class RunFolder:
    """What a run keeps: ``checkpoints/``, ``recipe.yaml``, ``log.jsonl``, ``curves.png`` and several ``.json`` files.

    These are ``data``, ``environment`` and ``summary``.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def quoted(self) -> str:
        """Its path as a shell takes it."""
        return quoted(self.path)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints: ``step_<steps>`` for the newest ones, and ``best``."""
        return self.path / "checkpoints"

    @classmethod
    def create(cls, recipe: Recipe) -> RunFolder:
        """A new folder below ``ckpt_save_dir``, named ``run_name`` or after the model (with a number where taken).

        Raises:
            UserError: ``run_name`` is taken.
            JobError: the folder cannot be made.
        """
        path = new_folder(with_home(recipe.ckpt_save_dir), recipe.run_name or recipe.model, exact=bool(recipe.run_name))
        folder = cls(path)
        try:
            folder.checkpoints.mkdir()
        except OSError as error:
            raise unwritable(path, error) from None
        replace_file(path / "recipe.yaml", recipe.dump().encode())
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run folder.

        Raises:
            UserError: it is not a run folder.
        """
        path = with_home(path)
        if not (path / "recipe.yaml").is_file():
            raise UserError(f"{path} is not a run folder (it has no recipe.yaml)")
        return cls(path)

    def lock(self) -> None:
        """Keep other jobs out until this process ends or ``unlock`` is called.

        Raises:
            UserError: another job is at work in this folder.
        """
        self._lock = lock_folder(self.path, "another job is training")

    def unlock(self) -> None:
        """Let others in."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def note_session(self, environment: Mapping[str, Any]) -> None:
        """Add this start of the job to ``environment.json``, a list of all starts."""
        path = self.path / "environment.json"
        sessions = _read_json(path) if path.is_file() else []
        self._write_json(path, [*sessions, dict(environment)])

    def data(self) -> dict[str, Any] | None:
        """The identities of the run's images (``data.known``); None for runs of before they were kept."""
        path = self.path / "data.json"
        return _read_json(path) if path.is_file() else None

    def write_data(self, known: Mapping[str, Any]) -> None:
        """Keep the identities of the run's images."""
        self._write_json(self.path / "data.json", known)

    def write_summary(self, summary: Mapping[str, Any]) -> Path:
        """Write ``summary.json`` and return its path."""
        path = self.path / "summary.json"
        self._write_json(path, dict(summary))
        return path

    def recipe(self) -> Recipe:
        """The recipe that the run was begun with."""
        return load_stored_recipe(self.path / "recipe.yaml")

    def has_summary(self) -> bool:
        """Whether the run has ever come to an end or an orderly stop."""
        return (self.path / "summary.json").is_file()

    def finished_summary(self) -> dict[str, Any] | None:
        """What a run that came to its end is summed up in; None for others."""
        summary = _read_json(self.path / "summary.json") if self.has_summary() else None
        return summary if summary and not summary["stopped"] else None

    def save(
        self, name: str, tensors: Mapping[str, Any], meta: Mapping[str, Any], keep: int, policy: str, best: bool
    ) -> Path:
        """Write a checkpoint, keep ``keep`` of them by ``policy``, and make it ``best`` on request."""
        path = self.checkpoints / f"{name}{SUFFIX}"
        write_checkpoint(path, tensors, {**meta, "serial": next_serial(self.checkpoints)})
        if best:
            publish(path, BEST)
        prune(self.checkpoints, keep, policy)
        return path

    def _write_json(self, path: Path, content: Any) -> None:
        replace_file(path, (json.dumps(content, indent=2) + "\n").encode())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}); the run goes on without it once it is moved away") from None


def find_checkpoints(names: Sequence[str]) -> list[Path]:
    """Files for paths, glob patterns and run folders (their best checkpoint, or else their newest intact one).

    Raises:
        UserError: a name that stands for nothing.
    """
    found: list[Path] = []
    for name in names:
        matches = matching(name)
        files = [file for match in matches for file in checkpoint_at(match)]
        if not files:
            what = "neither a checkpoint nor a run folder" if matches else "not there"
            raise UserError(f"ckpt_path: {name} is {what}")
        found += files
    if not found:
        raise UserError("validation needs a checkpoint: --ckpt_path FILE, a glob, or a run folder")
    return found


def checkpoint_at(path: Path) -> list[Path]:
    """The checkpoint that a path stands for: itself, or a run folder's best or else newest intact one; or none."""
    if not (path / "recipe.yaml").is_file():
        return [path] if path.is_file() else []
    best = path / "checkpoints" / BEST
    if best.is_file():
        return [best]
    newest, complaints = newest_intact(path / "checkpoints")
    if newest is None:
        raise UserError(f"run folder {path} has no checkpoint{''.join(f'; {text}' for text in complaints)}")
    return [newest.path]


def storable(recipe: Recipe) -> Recipe:
    """The recipe as a run keeps it: without what was said for one start only, with places that hold everywhere."""
    starts: dict[str, Any] = {name: _from_everywhere(getattr(recipe, name)) for name in ("init_from", "ckpt_path")}
    return with_absolute_places(replace(recipe, resume=None, allow_changes=(), **starts))


def _from_everywhere(name: str | None) -> str | None:
    """The whole path of what is there; other names, such as those of published weights, as they are."""
    return str(with_home(name).absolute()) if name and with_home(name).exists() else name
