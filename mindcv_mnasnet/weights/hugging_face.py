"""What a ``config.json`` of timm on Hugging Face, beside weights, says of their evaluation and classes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mindcv_mnasnet.errors import UserError

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_RESAMPLING = {"bicubic": "pilcubic", "bilinear": "pilbilinear"}  # Pillow's, in the words of a recipe
_UNUSED = ("test_input_size", "test_crop_pct", "label_descriptions")  # of evaluation, and without a place here


@dataclass(frozen=True)
class HubConfig:
    """Recipe keys and class names that were found, and sentences on what was used and what was not."""

    evaluation: Mapping[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_config(path: Path) -> tuple[Path, HubConfig]:
    """The weight file that ``path`` (itself, or a folder with it) means, and what its ``config.json`` says, if any.

    Raises:
        UserError: a ``config.json`` that cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None) if path.is_dir() else path
    beside = folder / "config.json"
    if weights is None or weights.name not in _WEIGHTS or not beside.is_file():
        return weights or path, HubConfig()
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
        return weights, _understood(beside, content)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{beside} cannot be read ({error}); move it away to do without") from None


def _understood(beside: Path, content: Mapping[str, Any]) -> HubConfig:
    settings = {**content, **(content.get("pretrained_cfg") or {})}
    evaluation: dict[str, Any] = {}
    unused = [name for name in _UNUSED if settings.get(name) is not None]
    for name in ("mean", "std"):
        if settings.get(name) is not None:  # of pixels from 0 to 1
            evaluation[name] = [round(255 * float(value), 6) for value in settings[name]]
    if settings.get("crop_pct") is not None:
        evaluation["crop_pct"] = float(settings["crop_pct"])
    if settings.get("interpolation") in _RESAMPLING:
        evaluation["val_interpolation"] = _RESAMPLING[settings["interpolation"]]
    elif settings.get("interpolation") is not None:
        unused.append("interpolation")
    if settings.get("crop_mode", "center") != "center":
        unused.append("crop_mode")
    if settings.get("input_size") is not None:
        _, height, width = settings["input_size"]
        if height != width:
            raise UserError(f"{beside}: input_size is {height} x {width}, and images are square here; say --image_size")
        evaluation["image_resize"] = int(height)
    numbered = settings.get("id2label") or {}  # of the library transformers
    names = settings.get("label_names") or [str(numbered[key]) for key in sorted(numbered, key=int)]
    names = [] if all(re.fullmatch(r"LABEL_\d+", name) for name in names) else names
    used = [*evaluation, *(["class names"] if names else [])]
    notes = [f"{beside}: {', '.join(used) or 'nothing'} taken from it"]
    if unused:
        notes.append(f"{beside}: {', '.join(unused)} not used")
    return HubConfig(evaluation, tuple(map(str, names)), tuple(notes))
