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
        UserError: a shard is missing, or a class is not in ``class_names``.
    """
    contents = read_json(directory / CONTENTS)
    if contents.get("format") != FORMAT:
        raise UserError(f"{directory / CONTENTS} is not the contents of a pack that this version reads")
    own: list[str] = contents["classes"]
    indices = [read_json(index_path(directory, shard)) for shard in contents["shards"]]
    for shard in contents["shards"]:
        if not (directory / shard).is_file():
            raise UserError(f"the pack {directory} lacks its shard {shard}; pack again, finished shards are kept")
    names = tuple(name for index in indices for name in index["names"])
    labels = np.array([label for index in indices for label in index["labels"]], np.int32)
    if class_names is not None:
        numbers, _ = label_of_folder(own, class_names, str(directory))
        labels = np.array([numbers[name] for name in own], np.int32)[labels]
    spans = [
        np.column_stack([np.full(len(index["names"]), number), index["offsets"], index["lengths"]])
        for number, index in enumerate(indices)
    ]
    scaling = scaling_of(contents)
    return ImageIndex(
        root=str(directory),
        paths=names,
        labels=labels,
        class_names=tuple(own if class_names is None else class_names),
        kind="mindrecord",
        notes=() if scaling is None else (f"{directory}: its images were scaled down to {scaling}",),
        scaling=scaling,
        shards=tuple(contents["shards"]),
        spans=np.concatenate(spans).astype(np.int64),
    )


def index_path(directory: Path, shard: str) -> Path:
    return directory / f"{shard}.index.json"


def read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
