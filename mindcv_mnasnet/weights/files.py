"""Weight files of other sources as named tensors: .pth, .safetensors and .ckpt, read without running what they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import replace_file
from mindcv_mnasnet.weights.mindspore_file import read_ckpt, widened, write_ckpt
from mindcv_mnasnet.weights.pytorch_file import pytorch_bytes, read_pytorch
from mindcv_mnasnet.weights.recognize import PYTORCH, kind_of

_COUNTER = ".num_batches_tracked"
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "_backbone.", "backbone.", "net.", "encoder.", "student.")
_FLOATS = ("F16", "F32", "F64", "BF16")  # of safetensors
_AVERAGE = "ema."  # MindCV's, beside the raw weights


@dataclass(frozen=True)
class Stored:
    """The content of a weight file: float32 ``tensors`` and batch ``counters`` by the names in the file."""

    tensors: Mapping[str, np.ndarray]
    counters: Mapping[str, int] = field(default_factory=dict)
    note: str | None = None


def read_stored(path: Path, raw: bool = False) -> Stored:
    """Read a weight file; of a training checkpoint the averaged weights where they are, unless ``raw``.

    Numbers of 16 and 64 bits become float32; optimizer states and the counts of a training are left aside.

    Raises:
        UserError: no such file or kind of file; a damaged file, one with code in it, or one that holds no weights.
    """
    kind, note = kind_of(path), None
    if kind == "pytorch":
        values, note = read_pytorch(path, raw)
    elif kind == "safetensors":
        values = _read_safetensors(path)
    else:
        try:
            values = read_ckpt(path.read_bytes())
        except ValueError as error:  # UnicodeDecodeError is one
            raise UserError(f"{path} is damaged or not a checkpoint of MindSpore: {error}") from None
    return _cleaned(path, values, raw, note)


def _cleaned(path: Path, values: Mapping[str, np.ndarray], raw: bool, note: str | None) -> Stored:
    notes = [note] if note else []
    values = _without_prefixes(path, values)
    counters = {name: int(value) for name, value in values.items() if name.endswith(_COUNTER) and value.size == 1}
    tensors = {name: value for name, value in values.items() if name not in counters}
    averaged = {name.removeprefix(_AVERAGE): name for name in tensors if name.startswith(_AVERAGE)}
    if averaged:
        chosen = {} if raw else {name: tensors[theirs] for name, theirs in averaged.items() if name in tensors}
        tensors = {name: value for name, value in tensors.items() if not name.startswith(_AVERAGE)} | chosen
        notes.append(f"{'raw' if raw else 'averaged (EMA)'} weights of a checkpoint that has both")
    aside = [name for name in tensors if _is_state(name, tensors)]
    if aside:
        notes.append(f"left aside: {len(aside)} tensors of a training's state ({', '.join(aside[:3])})")
    tensors = {name: value for name, value in tensors.items() if name not in set(aside)}
    if odd := [name for name, value in tensors.items() if value.dtype.kind != "f"]:
        raise UserError(f"{path}: {odd[0]} is {tensors[odd[0]].dtype}, and weights are floating-point numbers")
    if not tensors:
        raise UserError(f"{path} holds no tensors")
    if kinds := sorted({str(value.dtype) for value in tensors.values()} - {"float32"}):
        notes.append(f"{' and '.join(kinds)} became float32")
    return Stored({n: v.astype(np.float32) for n, v in tensors.items()}, counters, "; ".join(notes) or None)


def _is_state(name: str, others: Mapping[str, np.ndarray]) -> bool:
    """Whether a tensor is an optimizer's slot (``moments.`` before another's name), or a training's count or rates.

    Those have names of one part, such as MindSpore's ``learning_rate``, which holds the rate of every step; weights
    never do.
    """
    return "." not in name or name.partition(".")[2] in others


def _without_prefixes(path: Path, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, value in values.items():
        clean = name
        while clean.startswith(_PREFIXES):
            clean = clean.partition(".")[2]
        if clean in found:
            raise UserError(f"{path} has {clean} twice, under different prefixes ({name}); which is meant is unknown")
        found[clean] = value
    return found


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safetensors.safe_open(path, "np") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118, it is no mapping
            if odd := [kind for kind in kinds.values() if kind not in _FLOATS and kind[0] not in "IUB"]:
                raise UserError(f"{path} holds numbers of kind {odd[0]}; weights are read in 16, 32 and 64 bits")
            plain = {name: file.get_tensor(name) for name, kind in kinds.items() if kind != "BF16"}
    except (safetensors.SafetensorError, OSError, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged or not a safetensors file ({error})") from None
    if len(plain) == len(kinds):
        return plain
    content = path.read_bytes()  # NumPy has no bfloat16
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    for name in kinds.keys() - plain.keys():
        at, end = header[name]["data_offsets"]
        plain[name] = widened(content[begin + at : begin + end]).reshape(header[name]["shape"])
    return {name: plain[name] for name in kinds}


def write_stored(path: Path, stored: Stored, version: int | None = None) -> None:
    """Write a weight file by its suffix, whole or not at all.

    Args:
        version: of a PyTorch module, kept in the ``_metadata`` that torchvision asks for.
    Raises:
        UserError: unknown suffix, or no torch here for a .pth file.
        JobError: it cannot be written.
    """
    counters = {name: np.array(value, np.int64) for name, value in stored.counters.items()}
    values = {name: np.array(value, order="C") for name, value in stored.tensors.items()} | counters
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        content = save(values)
    elif suffix == ".ckpt":
        content = write_ckpt(stored.tensors)
    elif suffix in PYTORCH:
        content = pytorch_bytes(values, version)
    else:
        raise UserError(
            f"{path} has an unknown suffix; weights are written as .pth, .safetensors, .ckpt or TensorFlow's"
        )
    replace_file(path, content)
