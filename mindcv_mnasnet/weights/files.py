"""Weight files of other sources as named tensors: .pth, .safetensors and .ckpt, read without running what they hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

from mindcv_mnasnet.errors import UserError, require_extra
from mindcv_mnasnet.files import replace_file
from mindcv_mnasnet.weights.mindspore_file import read_ckpt, write_ckpt

PYTORCH = (".pth", ".pt", ".bin", ".tar")
READABLE = (*PYTORCH, ".safetensors", ".ckpt")
_COUNTER = ".num_batches_tracked"
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_AVERAGED = ("state_dict_ema", "model_ema")


@dataclass(frozen=True)
class Stored:
    """The content of a weight file: float32 ``tensors`` and batch ``counters`` by the names in the file."""

    tensors: Mapping[str, np.ndarray]
    counters: Mapping[str, int] = field(default_factory=dict)
    note: str | None = None


def read_stored(path: Path, raw: bool = False) -> Stored:
    """Read a weight file by its suffix; of a training checkpoint the averaged weights where they are, unless ``raw``.

    Raises:
        UserError: no such file or suffix; a damaged file, one with code in it, or one that holds no float32 tensors.
    """
    if not path.is_file():
        raise UserError(f"no weight file {path}")
    note = None
    if path.suffix in PYTORCH:
        values, note = _read_pytorch(path, raw)
    elif path.suffix == ".safetensors":
        values = _read_safetensors(path)
    elif path.suffix == ".ckpt":
        try:
            values = read_ckpt(path.read_bytes())
        except ValueError as error:  # UnicodeDecodeError is one
            raise UserError(f"{path} is damaged or not a checkpoint of MindSpore: {error}") from None
    else:
        raise UserError(f"{path} has an unknown suffix; weights are read from {', '.join(READABLE)} and TensorFlow's")
    counters = {name: int(value) for name, value in values.items() if name.endswith(_COUNTER) and value.size == 1}
    tensors = {name: value for name, value in values.items() if name not in counters}
    if odd := [name for name, value in tensors.items() if value.dtype != np.float32]:
        raise UserError(f"{path}: {odd[0]} is {tensors[odd[0]].dtype}, not float32")
    if not tensors:
        raise UserError(f"{path} holds no tensors")
    return Stored(tensors, counters, note)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safetensors.safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (safetensors.SafetensorError, OSError, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged or not a safetensors file ({error})") from None


def _read_pytorch(path: Path, raw: bool) -> tuple[dict[str, np.ndarray], str | None]:
    torch = require_extra("torch", "torch")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile file makes of the unpickler, which runs nothing
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{path} is damaged, or holds more than tensors and is not opened ({reason[:150]})") from None
    content, note = _state_dict(content, raw)
    values = {str(name).removeprefix("module."): value for name, value in content.items()}
    if odd := [name for name, value in values.items() if not isinstance(value, torch.Tensor)]:
        raise UserError(f"{path} holds no plain weights: {odd[0]} is not a tensor")
    wide = {name: value.float() if value.dtype == torch.bfloat16 else value for name, value in values.items()}
    return {name: value.detach().numpy() for name, value in wide.items()}, note


def _state_dict(content: Any, raw: bool) -> tuple[Mapping[Any, Any], str | None]:
    """The mapping of tensors in what a training script saved around it."""
    for key in (*(() if raw else _AVERAGED), *_WRAPPERS):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return content[key], f"taken from {key!r} of a training checkpoint"
    return (content if isinstance(content, Mapping) else {}), None


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
    if path.suffix == ".safetensors":
        content = save(values)
    elif path.suffix == ".ckpt":
        content = write_ckpt(stored.tensors)
    elif path.suffix in PYTORCH:
        torch = require_extra("torch", "torch")
        state: OrderedDict[str, Any] = OrderedDict((n, torch.from_numpy(v.copy())) for n, v in values.items())
        if version is not None:
            state._metadata = OrderedDict({"": {"version": version}})  # type: ignore[attr-defined]
        buffer = BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
    else:
        raise UserError(
            f"{path} has an unknown suffix; weights are written as .pth, .safetensors, .ckpt or TensorFlow's"
        )
    replace_file(path, content)
