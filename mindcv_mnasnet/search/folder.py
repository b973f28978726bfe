"""The folder of a search and what is where in it."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import replace_file, unwritable
from mindcv_mnasnet.search.anchor import anchored
from mindcv_mnasnet.search.settings import Settings, load_settings


class SearchFolder:
    """``search.yaml``, ``trials.jsonl``, ``state.safetensors``, ``trials/``, ``report.html``, ``winners/``, ..."""

    def __init__(self, path: Path):
        self.path = path
        self.settings = path / "search.yaml"
        self.trials = path / "trials.jsonl"
        self.state = path / "state.safetensors"
        self.winners = path / "winners"
        self.again = path / "measured_again.json"
        self._lock: IO[str] | None = None

    @classmethod
    def create(cls, settings: Settings) -> SearchFolder:
        """A new folder below ``search_dir``, named ``run_name`` or after the file (with a number where taken).

        Raises:
            UserError: ``run_name`` is taken.
            JobError: it cannot be made.
        """
        root = Path(settings.search_dir).expanduser()
        name, number = settings.run_name or f"search_{settings.origin.stem}", 1
        path = root / name
        try:
            root.mkdir(parents=True, exist_ok=True)
            while True:
                try:
                    path.mkdir()
                    break
                except FileExistsError:
                    if settings.run_name:
                        raise UserError(
                            f"run_name: {path} exists; --resume {path} goes on with it, another name starts anew"
                        ) from None
                    number += 1
                    path = root / f"{name}-{number}"
        except OSError as error:
            raise unwritable(path, error) from None
        folder = cls(path)
        replace_file(folder.settings, settings.dump().encode())
        return folder

    @classmethod
    def open(cls, path: str | Path) -> SearchFolder:
        """An existing folder.

        Raises:
            UserError: it is none.
        """
        folder = cls(Path(path).expanduser())
        if not folder.settings.is_file():
            raise UserError(f"{folder.path} is not a search folder (it has no search.yaml)")
        return folder

    def stored_settings(self, **overrides: object) -> Settings:
        """The settings that the search was begun with, and what may be changed since."""
        return anchored(load_settings(self.settings, overrides), self.path)

    def lock(self) -> None:
        """Keep other searches out until this process ends.

        Raises:
            UserError: another search is at work here.
        """
        try:
            self._lock = (self.path / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another search is at work in {self.path}; wait for it, or start one elsewhere") from None
        except OSError as error:
            raise unwritable(self.path / ".lock", error) from None
