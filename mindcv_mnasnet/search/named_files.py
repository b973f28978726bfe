"""Files that the keys of a search name: which keys do, and from where their paths start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mindcv_mnasnet.files import with_home
from mindcv_mnasnet.recipe.recipe import split_width

#: Keys that name a file, or a preset by a word without a suffix.
FILES = ("recipe", "latency_table", "accuracy_table", "space")


def from_here(name: str, value: Any) -> Any:
    """A value of the command line, where paths start at the working directory."""
    if name == "references":
        return tuple(from_here("target_network", one) for one in value)
    if name not in (*FILES, "target_network") or value is None:
        return value
    model, width = split_width(value) if name == "target_network" else (value, "")
    path = with_home(model)
    return str(path.absolute()) + (f"@{width}" if width else "") if is_file(name, path) else value


def is_file(name: str, path: Path) -> bool:
    """Whether a key's path is one of a file; what is called like a preset or a model is none."""
    return path.is_file() and (name not in ("space", "target_network") or bool(path.suffix))


def from_folder(path: Path, folder: Path | None) -> Path:
    """A whole path as it is found from ``folder`` if it is below it."""
    if folder is None or folder.resolve() not in path.parents:
        return path
    return path.relative_to(folder.resolve())
