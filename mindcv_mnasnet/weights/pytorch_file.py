"""PyTorch's files: read without running what they hold, and written for ``load_state_dict``."""

from __future__ import annotations

import argparse
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path, PosixPath
from typing import Any

import numpy as np

from mindcv_mnasnet.errors import UserError, first_line, require_extra

_WRAPPERS = (
    *("state_dict", "model", "model_state_dict", "model_state", "net", "network", "module", "weights", "params"),
    "model_weights",
)
_DEPTH = 4  # levels of mappings around the weights
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema")


def read_pytorch(path: Path, raw: bool) -> tuple[dict[str, np.ndarray], str | None]:
    """The tensors of a file by name, and a sentence on where in a training checkpoint they stood.

    Raises:
        UserError: it is damaged, has anything but tensors and settings in it, or no mapping of tensors.
    """
    torch = require_extra("torch", "torch")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()), path.open("rb") as file:
            warnings.simplefilter("ignore")  # advice on pickles that torch did not write
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile file makes of the unpickler, which runs nothing
        raise UserError(_complaint(path, error)) from None
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, no weights by name")
    state, note = _state_dict(content, raw)
    if odd := [name for name, value in state.items() if not isinstance(value, torch.Tensor)]:
        raise UserError(f"{path} holds no plain weights: {odd[0]} is a {type(state[odd[0]]).__name__}, not a tensor")
    return {str(name): _array(torch, value) for name, value in state.items()}, note


def _array(torch: Any, value: Any) -> np.ndarray:
    """A tensor of any layout and kind of numbers; what NumPy has no kind for, such as bfloat16, becomes float32."""
    value = value.dequantize() if value.is_quantized else value.to_dense()
    known = (torch.float16, torch.float32, torch.float64)
    return np.asarray((value.float() if value.is_floating_point() and value.dtype not in known else value).detach())


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
    said = first_line(error).split(". ")[0]
    why = "" if said.startswith("Weights only") else f" ({said})"
    return f"{path} is damaged, or no file of torch.save with nothing but tensors, and is not opened{why}"


def _state_dict(content: Mapping[Any, Any], raw: bool) -> tuple[Mapping[Any, Any], str | None]:
    """The mapping of tensors in what a training script saved around it, under a usual key or in the only mapping.

    Mappings without tensors, such as the settings of an average, are passed over.
    """
    found: list[str] = []
    for _ in range(_DEPTH):
        inner = [key for key, value in content.items() if isinstance(value, Mapping) and _has_tensors(value)]
        usual = [key for key in (*(() if raw else _AVERAGED), *_WRAPPERS) if key in inner]
        alone = inner if len(inner) == 1 and not any(hasattr(value, "shape") for value in content.values()) else []
        if not (usual or alone):
            break
        found.append(repr((usual or alone)[0]))
        content = content[(usual or alone)[0]]
    return content, f"taken from {' in '.join(reversed(found))} of a training checkpoint" if found else None


def _has_tensors(content: Mapping[Any, Any], depth: int = _DEPTH) -> bool:
    found = (isinstance(value, Mapping) and depth > 1 and _has_tensors(value, depth - 1) for value in content.values())
    return any(hasattr(value, "shape") for value in content.values()) or any(found)


def pytorch_bytes(values: Mapping[str, np.ndarray], version: int | None) -> bytes:
    """The content of a .pth file; ``version`` of the module is kept in the ``_metadata`` that torchvision asks for."""
    torch = require_extra("torch", "torch")
    state: OrderedDict[str, Any] = OrderedDict((n, torch.from_numpy(v.copy())) for n, v in values.items())
    if version is not None:
        state._metadata = OrderedDict({"": {"version": version}})  # type: ignore[attr-defined]
    buffer = BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
