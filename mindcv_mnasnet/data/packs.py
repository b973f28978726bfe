"""Data sets packed into MindRecord shards: few large files instead of a million small ones.

A pack is a folder with shards (columns ``image``, ``label``, ``name``; any MindRecord reader opens them), beside each
shard an index, and ``dataset.json`` with the class names, written last. The index says where each image lies in
the shard, so that images are read in any order straight from the file, as quickly as from a folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.data.classes import label_of_folder
from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.scaling import scaling_of
from mindcv_mnasnet.errors import UserError

FORMAT = 1
CONTENTS = "dataset.json"


def is_pack(directory: Path) -> bool:
    """Whether ``directory`` holds a pack; another program's ``dataset.json`` makes none.

    Raises:
        UserError: there are shards of a packing that did not finish.
    """
    shards = next(directory.glob("shard-*.mindrecord"), None)
    if (directory / CONTENTS).is_file():
        return shards is not None or {"format", "classes", "shards"} <= _keys(directory / CONTENTS)
    if shards is not None:
        raise UserError(f"the pack {directory} is not finished; give the same mnasnet pack command again")
    return False


def _keys(path: Path) -> set[str]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return set()
    return set(content) if isinstance(content, dict) else set()


def open_pack(directory: Path, class_names: Sequence[str] | None = None) -> ImageIndex:
    """The images of a pack in the order of the folder it was made from; labels follow ``class_names`` if given.

    Raises:
        UserError: a shard is missing, a class is not in ``class_names``, or the files are damaged.
    """
    contents = read_json(directory / CONTENTS)
    if contents.get("format") != FORMAT:
        raise UserError(f"{directory / CONTENTS} is not the contents of a pack that this version reads")
    own, shards = (_texts(directory / CONTENTS, contents.get(key)) for key in ("classes", "shards"))
    for shard in shards:
        if Path(shard).name != shard:
            raise _damaged(directory / CONTENTS)
        if not (directory / shard).is_file():
            raise UserError(f"the pack {directory} lacks its shard {shard}; pack again, finished shards are kept")
    indices = [_read_index(index_path(directory, shard), len(own)) for shard in shards]
    names = tuple(name for index, _ in indices for name in index)
    labels = np.concatenate([numbers[0] for _, numbers in indices]).astype(np.int32)
    if class_names is not None:
        numbers, _ = label_of_folder(own, class_names, str(directory))
        labels = np.array([numbers[name] for name in own], np.int32)[labels]
    spans = [
        np.column_stack([np.full(len(index), number), numbers[1], numbers[2]])
        for number, (index, numbers) in enumerate(indices)
    ]
    try:
        scaling = scaling_of(contents)
    except TypeError:
        raise _damaged(directory / CONTENTS) from None
    return ImageIndex(
        root=str(directory),
        paths=names,
        labels=labels,
        class_names=tuple(own if class_names is None else class_names),
        kind="mindrecord",
        notes=() if scaling is None else (f"{directory}: its images were scaled down to {scaling}",),
        scaling=scaling,
        shards=tuple(shards),
        spans=np.concatenate(spans).astype(np.int64),
    )


def index_path(directory: Path, shard: str) -> Path:
    return directory / f"{shard}.index.json"


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise _damaged(path)
    return content


def _read_index(path: Path, classes: int) -> tuple[list[str], np.ndarray]:
    """Names of a shard's images, and their labels, offsets and lengths, int64 (3, images)."""
    index = read_json(path)
    names = _texts(path, index.get("names"))
    try:
        numbers = np.array([index.get(key) for key in ("labels", "offsets", "lengths")], np.int64)
    except (TypeError, ValueError, OverflowError):
        raise _damaged(path) from None
    if numbers.shape != (3, len(names)) or (numbers < 0).any() or (numbers[0] >= classes).any():
        raise _damaged(path)
    return names, numbers


def _texts(path: Path, content: Any) -> list[str]:
    if not isinstance(content, list) or not content or not all(isinstance(one, str) for one in content):
        raise _damaged(path)
    return content


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged: it is not as it was packed; pack again, other shards are kept")
