"""Checkpoints: safetensors files that carry tensors, recipe, network, class names and a checksum.

A training checkpoint holds the whole training state; every file is written beside its final name and renamed, so that
a name never stands for half a file. ``safetensors`` (or NumPy) reads them without this package. Which of a run's is
the best is decided in :mod:`mindcv_mnasnet.run.scores`.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import replace_file
from mindcv_mnasnet.networks.detector import Detector
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.run.scores import score_of

SUFFIX = ".safetensors"
_KEY = "mindcv_mnasnet"
_FORMAT = 2  # 1 spelled two groups of tensors the British way
_FORMER_GROUPS = {
    "optimiser.": "optimizer.",
    "quantisation.": "quantization.",
    "ema.quantisation.": "ema.quantization.",
}
_NOT_MODEL = ("ema.", "optimizer.", "state.")


class BrokenCheckpointError(UserError):
    """A checkpoint that is truncated, changed, or not one of ours."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: ``tensors`` by parameter name and ``meta`` as it was written."""

    path: Path
    tensors: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]

    @property
    def recipe(self) -> Recipe:
        """The recipe that it was trained with."""
        return Recipe.from_dict(self.meta["recipe"], f"the recipe in {self.path}")

    @property
    def network(self) -> Network:
        """Its network."""
        return Network.from_dict(self.meta["network"])

    @property
    def detector(self) -> Detector | None:
        """What is on the network if it detects objects; None for classifiers."""
        stored = self.meta.get("detector")
        return None if stored is None else Detector.from_dict(self.network, stored)

    def require_classifier(self, command: str) -> None:
        """Refuse a detector where ``command`` is for classifiers alone.

        Raises:
            UserError: naming the file.
        """
        if self.meta.get("detector") is not None:
            raise UserError(f"{self.path} is a detector; {command} takes classifiers alone")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return tuple(self.meta["class_names"])

    @property
    def has_ema(self) -> bool:
        """Whether averaged weights are there beside the raw ones."""
        return any(name.startswith("ema.") for name in self.tensors)

    def chosen(self, ema: bool | None = None) -> str:
        """``ema`` or ``raw``, whatever ``ema`` asks for; None means averaged ones where they are.

        Where the run's last validation found its raw weights to be better, it means those: an average over more steps
        than there were still holds much of the first weights.
        """
        if ema is None:
            ema = self.has_ema and self.meta.get("better_weights", "ema") == "ema"
        return "ema" if ema else "raw"

    def weights(self, ema: bool | None = None) -> dict[str, np.ndarray]:
        """The model's tensors by name: averaged or raw ones; None takes those that :meth:`chosen` names.

        Raises:
            UserError: averaged weights are asked for and there are none.
        """
        if ema and not self.has_ema:
            raise UserError(f"{self.path} has no averaged (EMA) weights; its run had ema: False")
        raw = {name: value for name, value in self.tensors.items() if not name.startswith(_NOT_MODEL)}
        return {name: self.tensors[f"ema.{name}"] for name in raw} if self.chosen(ema) == "ema" else raw


def write_checkpoint(path: Path, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        JobError: it cannot be written (full disk, no permission); what stood at ``path`` is untouched.
    """
    described = json.dumps({"format": _FORMAT, **meta}, sort_keys=True)
    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    stored = {_KEY: described, "checksum": _checksum(arrays, described)}
    replace_file(path, _settled(save(arrays, stored)))


def _settled(content: bytes) -> bytes:
    """The file with the entries of its description in order: safetensors writes them in another one every time."""
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(content)[begin:]))


def read_checkpoint(path: str | Path, only_meta: bool = False) -> Checkpoint:
    """Read a checkpoint and check it against its checksum; ``only_meta`` reads the header alone, unchecked.

    Raises:
        UserError: there is no such file.
        BrokenCheckpointError: it is truncated, changed since it was written, or no checkpoint of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint {path}")
    try:
        with safetensors.safe_open(path, "np") as file:
            stored = file.metadata() or {}
            if _KEY not in stored:
                raise BrokenCheckpointError(f"{path} is not a checkpoint of mindcv_mnasnet")
            names = [] if only_meta else list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
    except (safetensors.SafetensorError, OSError, UnicodeDecodeError) as error:
        raise BrokenCheckpointError(f"{path} is truncated or not a safetensors file ({error})") from None
    if not only_meta and stored.get("checksum") != _checksum(tensors, stored[_KEY]):
        raise BrokenCheckpointError(f"{path} is damaged: its content does not match its checksum")
    try:
        meta = json.loads(stored[_KEY])
        form = int(meta["format"])
    except (ValueError, TypeError, KeyError):
        raise BrokenCheckpointError(f"{path} is damaged: its description cannot be read") from None
    if form > _FORMAT:
        raise UserError(f"{path} was written by a newer version (format {form}, known is {_FORMAT})")
    if form < 2:
        tensors = {_renamed(name): value for name, value in tensors.items()}
    return Checkpoint(path, tensors, meta)


def _renamed(name: str) -> str:
    """Today's name of a tensor in a checkpoint of format 1."""
    for former, group in _FORMER_GROUPS.items():
        if name.startswith(former):
            return group + name.removeprefix(former)
    return name


def checkpoints_in(folder: Path) -> list[Path]:
    """Training checkpoints of a folder, newest first: by ``serial``, then ``batches``; unreadable ones come last."""

    def position(path: Path) -> tuple[int, int]:
        with suppress(UserError, ValueError, TypeError, KeyError):
            meta = read_checkpoint(path, only_meta=True).meta
            return int(meta.get("serial", 0)), int(meta["batches"])
        return -1, -1

    return sorted((path for path in folder.glob(f"step_*{SUFFIX}")), key=position, reverse=True)


def next_serial(folder: Path) -> int:
    """A number above the ``serial`` of every training checkpoint in a folder.

    It tells which of them is the newest, where counting batches would not: after a resume from an older one, or with
    batches of another size.
    """
    for newest in checkpoints_in(folder)[:1]:
        with suppress(BrokenCheckpointError):  # then there is no readable one
            return 1 + int(read_checkpoint(newest, only_meta=True).meta.get("serial", 0))
    return 1


def newest_intact(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint of a folder that is whole, and a sentence about each one found broken on the way to it.

    Raises:
        UserError: one was written by a newer version, whose progress an older one would undo.
    """
    newest, complaints = None, []
    for path in checkpoints_in(folder):
        try:
            if newest is None:
                newest = read_checkpoint(path)
            else:
                read_checkpoint(path, only_meta=True)  # how new an unreadable one is cannot be known
        except BrokenCheckpointError as error:
            complaints.append(f"{error}; it is passed over")
    return newest, complaints


def prune(folder: Path, keep: int, policy: str = "latest_k") -> None:
    """Delete training checkpoints but ``keep``: the newest (latest_k), or the newest one and the best (top_k)."""
    newest_first = checkpoints_in(folder)
    if policy == "top_k":
        newest_first[1:] = sorted(newest_first[1:], key=_score, reverse=True)
    for path in newest_first[keep:]:
        path.unlink(missing_ok=True)


def _score(path: Path) -> float:
    with suppress(UserError):
        metrics = read_checkpoint(path, only_meta=True).meta.get("metrics", {})
        score = score_of(metrics)
        return -1.0 if score is None else score
    return -1.0


def publish(path: Path, name: str) -> None:
    """Make ``name`` beside ``path`` stand for the same checkpoint, atomically, without a second copy where it can."""
    fresh = path.with_name(f"{name}.partial")
    fresh.unlink(missing_ok=True)
    try:
        os.link(path, fresh)
    except OSError:
        replace_file(path.with_name(name), path.read_bytes())
        return
    fresh.replace(path.with_name(name))


def _checksum(tensors: Mapping[str, np.ndarray], described: str) -> str:
    crc = zlib.crc32(described.encode())
    for name in sorted(tensors):
        value = np.asarray(tensors[name], order="C")
        crc = zlib.crc32(f"{name} {value.dtype} {value.shape}".encode(), crc)
        crc = zlib.crc32(value.reshape(-1).view(np.uint8).data, crc)
    return f"crc32:{crc:08x}"
