"""The folder of a search and what is where in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import lock_folder, new_folder, replace_file, with_home
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.recipe.yaml_files import read_layers, to_yaml
from mindcv_mnasnet.run.folder import storable
from mindcv_mnasnet.search.anchor import anchored
from mindcv_mnasnet.search.settings import Settings, changed, load_settings


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
        folder.keep(folder._with_copies(settings))
        return folder

    def keep(self, settings: Settings) -> None:
        """Write ``search.yaml``."""
        replace_file(self.settings, settings.dump(self.path).encode())

    def _with_copies(self, settings: Settings) -> Settings:
        """The settings with copies of the recipe and the space here: what is edited later changes no search."""
        copies = {}
        if settings.recipe is not None:
            copies["recipe"] = self.path / "recipe.yaml"
            replace_file(copies["recipe"], _whole_recipe(settings.beside(settings.recipe)).encode())
        space = settings.beside(settings.space)
        if "." in settings.space and space.is_file():
            copies["space"] = self.path / "space" / space.name
            copies["space"].parent.mkdir()
            replace_file(copies["space"], space.read_bytes())
        return changed(settings, **{name: str(path.resolve()) for name, path in copies.items()})

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
        begun = load_settings(self.settings, stored=True)
        return anchored(load_settings(self.settings, begun.settled() | overrides, stored=True), self.path)

    def lock(self) -> None:
        """Keep other searches out until this process ends.

        Raises:
            UserError: another search is at work here.
        """
        self._lock = lock_folder(self.path, "another search is at work")

    def remove_unused(self) -> None:
        """Delete the folder if nothing was measured or tried in it yet; somebody may have deleted it already."""
        if not self.path.is_dir():
            return
        names = {path.name for path in self.path.iterdir()}
        if names <= {self.settings.name, ".lock", "recipe.yaml", "space"}:
            shutil.rmtree(self.path, ignore_errors=True)


def _whole_recipe(path: Path) -> str:
    """A recipe's file and what it builds on, as one file whose places mean the same from every folder."""
    raw = {name: value for name, (value, _) in read_layers(path).items()}
    recipe = storable(load_recipe(path))
    for name in ("data_dir", "val_labels", "init_from", "ckpt_path"):
        if name == "data_dir" or name in raw:
            raw[name] = getattr(recipe, name)
    return to_yaml(raw)
