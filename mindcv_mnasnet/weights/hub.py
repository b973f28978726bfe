"""Published weights by model name: found in ``registry.yaml``, fetched once, checked, converted once, kept."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache as remember
from pathlib import Path
from typing import Any

import yaml

from mindcv_mnasnet.devices.environment import cache_folder
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.files import unwritable
from mindcv_mnasnet.networks.families import NAMES
from mindcv_mnasnet.networks.reported import Reported, load_reported
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.run.checkpoint import BrokenCheckpointError, read_checkpoint
from mindcv_mnasnet.weights.convert import convert
from mindcv_mnasnet.weights.download import Patience, check_file, download

#: Folder of the cache; its number rises when a conversion writes other words, so that older files are not taken.
CONVERTED = "converted-2"


@dataclass(frozen=True)
class Published:
    """One published weight file; the fields are explained in ``registry.yaml``.

    ``url`` None: the address is not known and the file has to be fetched by hand from ``page``. ``sha256`` may be the
    beginning of a digest; None where none is published.
    """

    source: str
    model: str
    file: str
    page: str
    url: str | None = None
    checkpoint: str | None = None
    sha256: str | None = None
    bytes: tuple[int, int] | None = None
    image_size: int = 224
    width_mult: float = 1.0

    def reported(self) -> Reported:
        """The published result of these weights."""
        same = [entry for entry in load_reported() if (entry.source, entry.model) == (self.source, self.model)]
        named = [entry for entry in same if entry.checkpoint == (self.checkpoint or self.file)]
        sized = [entry for entry in same if (entry.width_mult, entry.image_size) == (self.width_mult, self.image_size)]
        (entry,) = named if self.source != "tf" else sized
        return entry


@remember
def load_registry() -> tuple[Published, ...]:
    """All published files, in the order of the data file."""
    groups = yaml.safe_load(Path(__file__).with_name("registry.yaml").read_text(encoding="utf-8"))
    return tuple(entry for group in groups for entry in _expand(group))


def _expand(group: dict[str, Any]) -> Iterator[Published]:
    columns, rows = group.pop("columns"), group.pop("rows")
    for row in rows:
        values = {**group, **dict(zip(columns, row, strict=True))}
        values.setdefault("width_mult", NAMES[values["model"]].width_mult)
        if values["url"] is not None:
            values["url"] = values["url"].format(**values)
        if "bytes" in values:
            values["bytes"] = tuple(values["bytes"])
        yield Published(**values)


def find(name: str, width_mult: float | None = None, image_size: int | None = None) -> Published:
    """The published file for a model name of any source, or for a file's own name.

    Args:
        width_mult: a width other than the name's own; it has to be published.
        image_size: pixels. The authors trained weights for several sizes, and those of the nearest (the larger of two)
            are taken; other weights serve any size. None is the name's own size.
    Raises:
        UserError: nothing is published for it; the sentence names what is.
    """
    registry = load_registry()
    for entry in registry:
        if entry.file == name:
            return entry
    meant = NAMES.get(name)
    if meant is None:
        raise UserError(f"no published weights for {name!r}; there are some for {_listed(registry)}")
    same = [entry for entry in registry if _kind(entry.model) == (meant.family, meant.source)]
    width = meant.width_mult if width_mult is None else width_mult
    fitting = [entry for entry in same if entry.width_mult == width]
    if not fitting:
        there = (
            f"{meant.source} published widths {_widths(same)}" if same else f"there are some for {_listed(registry)}"
        )
        raise UserError(f"no published weights for {name} at width {width}; {there}")
    size = meant.image_size if image_size is None else image_size
    return min(fitting, key=lambda entry: (abs(entry.image_size - size), -entry.image_size))


def _kind(model: str) -> tuple[str, str]:
    return NAMES[model].family, NAMES[model].source


def _widths(entries: Sequence[Published]) -> str:
    return ", ".join(f"{width:g}" for width in sorted({entry.width_mult for entry in entries}))


def _listed(entries: Sequence[Published]) -> str:
    return ", ".join(dict.fromkeys(entry.model for entry in entries))


def pretrained(
    name: str,
    cache: str | Path | None = None,
    *,
    width_mult: float | None = None,
    image_size: int | None = None,
    patience: Patience | None = None,
) -> Path:
    """A checkpoint of ours with the published weights of a model, from the cache or else from the network.

    A file that was put into the cache by hand under its name is used instead of a download. With the environment
    variable ``MNASNET_OFFLINE`` set to anything but 0, nothing is downloaded. Processes that ask at once wait for the
    first of them.

    Args:
        name, width_mult, image_size: as for ``find``.
        cache: as for ``environment.cache_folder``.
    Raises:
        UserError: nothing is published for the name; a file in the cache is not the published one; or it is missing
            and must not or cannot be fetched from here. The sentence says which file to put where.
        JobError: the download failed, or the cache cannot be written.
    """
    entry = find(name, width_mult, image_size)
    folder = cache_folder(cache)
    converted = folder / CONVERTED / f"{entry.file}.safetensors"
    if _intact(converted):
        return converted
    with _alone(folder, entry.file):
        if not _intact(converted):
            source = folder / entry.file
            _provide(entry, source, patience)
            convert(
                source,
                converted,
                source=entry.source,
                model=entry.model,
                image_size=entry.image_size,
                width_mult=entry.width_mult,
                overwrite=True,
            )
    return converted


def pretrained_for(recipe: Recipe) -> Path:
    """``pretrained`` for a recipe's model, width and image size."""
    return pretrained(recipe.model, width_mult=recipe.width_mult, image_size=recipe.image_resize)


def _intact(path: Path) -> bool:
    if path.is_file():
        with suppress(BrokenCheckpointError):
            read_checkpoint(path)
            return True
    return False


def _provide(entry: Published, source: Path, patience: Patience | None) -> None:
    """Have the published file in the cache, as it was published."""
    by_hand = f"fetch it elsewhere ({entry.url or f'the table on {entry.page}'}) and save it as {source}"
    if source.is_file():
        try:
            check_file(source, entry.sha256, entry.bytes)
        except UserError as error:
            raise UserError(f"{source} is damaged or another file: {error}; delete it, or {by_hand}") from None
        return
    if entry.url is None:
        raise UserError(f"the address of the {entry.source} file for {entry.model} is not known here; {by_hand}")
    if os.environ.get("MNASNET_OFFLINE", "0") not in ("", "0"):
        raise UserError(f"MNASNET_OFFLINE is set and {source} is not there; unset it, or {by_hand}")
    try:
        download(entry.url, source, entry.sha256, entry.bytes, patience)
    except JobError as error:
        raise JobError(f"{error}; if it stays so, fetch it elsewhere and save it as {source}") from None


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Within it, other processes that want the same file wait; a process that dies lets them in."""
    path = folder / f".{name}.lock"
    try:
        (folder / CONVERTED).mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise unwritable(path, error) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
