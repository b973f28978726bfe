"""The folder of a search and what is where in it."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import lock_folder, new_folder, replace_file, with_home
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
        name = settings.run_name or f"search_{settings.origin.stem}"
        folder = cls(new_folder(with_home(settings.search_dir), name, exact=bool(settings.run_name)))
        replace_file(folder.settings, settings.dump().encode())
        return folder

    @classmethod
    def open(cls, path: str | Path) -> SearchFolder:
        """An existing folder.

        Raises:
            UserError: the folder is not a search's.
        """
        folder = cls(with_home(path))
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
        self._lock = lock_folder(self.path, "another search is at work")
