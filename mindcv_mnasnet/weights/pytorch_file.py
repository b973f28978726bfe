"""PyTorch's files: read without running what they hold, and written for ``load_state_dict``."""

from __future__ import annotations

import argparse
import re
from collections import OrderedDict
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path, PosixPath
from typing import Any

import numpy as np

from mindcv_mnasnet.errors import UserError, first_line, require_extra

_WRAPPERS = (
    *("state_dict", "model", "model_state_dict", "net", "network", "module", "weights", "params", "model_weights"),
)
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema")


def read_pytorch(path: Path, raw: bool) -> tuple[dict[str, np.ndarray], str | None]:
    """The tensors of a file by name, and a sentence on where in a training checkpoint they stood.

    Raises:
        UserError: it is damaged, has anything but tensors and settings in it, or no mapping of tensors.
    """
    torch = require_extra("torch", "torch")
    try:
        with torch.serialization.safe_globals(_harmless()), path.open("rb") as file:  # a name would be judged by suffix
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile file makes of the unpickler, which runs nothing
        raise UserError(_complaint(path, error)) from None
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, no weights by name")
    state, note = _state_dict(content, raw)
    if odd := [name for name, value in state.items() if not isinstance(value, torch.Tensor)]:
        raise UserError(f"{path} holds no plain weights: {odd[0]} is a {type(state[odd[0]]).__name__}, not a tensor")
    wide = {str(name): value.float() if value.dtype == torch.bfloat16 else value for name, value in state.items()}
    return {name: value.detach().numpy() for name, value in wide.items()}, note


def _harmless() -> list[Any]:
    """What training scripts put beside weights: settings and NumPy numbers, whose making runs no code of the file."""
    kinds = [np.dtype(code) for code in ("f4", "f8", "i4", "i8", "?")]
    found: list[Any] = [argparse.Namespace, PosixPath, np.dtype, np.ndarray, *(type(kind) for kind in kinds)]
    scalar, array = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
    for place in ("numpy.core.multiarray", "numpy._core.multiarray"):
        found += [(scalar, f"{place}.scalar"), (array, f"{place}._reconstruct")]
    return found


def _complaint(path: Path, error: Exception) -> str:
    pickled = re.search(r"(?:Unsupported global: GLOBAL|Unsupported class|Trying to instantiate) (\S+)", str(error))
    if pickled is None:
        pickled = re.search(r"GLOBAL (\S+)", str(error))
    if pickled:
        return (
            f"{path} holds more than tensors, a pickled {pickled[1]}, and is not opened; "
            "save the state_dict() of the model instead"
        )
    return f"{path} is damaged, or holds more than tensors and is not opened ({first_line(error).split('. ')[0]})"


def _state_dict(content: Mapping[Any, Any], raw: bool) -> tuple[Mapping[Any, Any], str | None]:
    """The mapping of tensors in what a training script saved around it, at most two levels deep."""
    found: list[str] = []
    for _ in range(2):
        for key in (*(() if raw else _AVERAGED), *_WRAPPERS):
            if isinstance(content.get(key), Mapping) and content[key]:
                content = content[key]
                found.append(repr(key))
                break
    return content, f"taken from {' in '.join(reversed(found))} of a training checkpoint" if found else None


def pytorch_bytes(values: Mapping[str, np.ndarray], version: int | None) -> bytes:
    """The content of a .pth file; ``version`` of the module is kept in the ``_metadata`` that torchvision asks for."""
    torch = require_extra("torch", "torch")
    state: OrderedDict[str, Any] = OrderedDict((n, torch.from_numpy(v.copy())) for n, v in values.items())
    if version is not None:
        state._metadata = OrderedDict({"": {"version": version}})  # type: ignore[attr-defined]
    buffer = BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
