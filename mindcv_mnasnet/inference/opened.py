"""A model of any task as a checkpoint or an exported file has it, and images as it takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.pipeline import Preparation, sound_batches
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.export.artifact import SUFFIXES, Artifact, open_artifact
from mindcv_mnasnet.export.backend import described, through_backend
from mindcv_mnasnet.inference.settings import require_honored
from mindcv_mnasnet.recipe.recipe import Recipe, with_evaluation
from mindcv_mnasnet.run.checkpoint import Checkpoint
from mindcv_mnasnet.run.folder import find_checkpoints
from mindcv_mnasnet.weights.convert import open_weights
from mindcv_mnasnet.weights.sound import require_sound


@dataclass(frozen=True)
class OpenedModel:
    """A checkpoint, or what an exported file knows of its own, with the recipe that images are prepared by.

    ``artifact`` runs it, or MindSpore where there is none. ``ema`` and ``batch_size`` are those asked for.
    """

    checkpoint: Checkpoint
    artifact: Artifact | None
    recipe: Recipe
    ema: bool | None
    batch_size: int | None

    def batches(
        self, paths: Sequence[str], preparation: Preparation | None = None
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """Images as the network sees them, uint8 (N, H, W, C), each batch with the numbers of its paths."""
        numbers = np.arange(len(paths), dtype=np.int32)
        image_index = ImageIndex(".", tuple(paths), numbers, self.checkpoint.class_names)
        for images, labels in sound_batches(image_index, self.recipe, preparation):
            yield labels.tolist(), images


def open_model(
    name: str,
    backend: str | None = None,
    ema: bool | None = None,
    batch_size: int | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> OpenedModel:
    """Open a model of any task; the arguments are those of ``open_classifier``.

    Raises:
        UserError: what ``open_classifier`` raises it for, except the task.
    """
    path, *others = find_checkpoints([name])
    if others:
        raise UserError(f"{name} stands for {1 + len(others)} files; name one")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size: {batch_size} is impossible; it is 1 or more")
    exported = open_artifact(path) if path.suffix.lower() in SUFFIXES else None
    checkpoint = open_weights(path) if exported is None else described(exported)
    recipe = with_evaluation(checkpoint.recipe, evaluation or {})
    if exported is not None:
        require_honored(exported, recipe, evaluation or {}, ema, backend)
    else:
        require_sound(checkpoint.weights(ema), str(path))
        exported = None if backend is None else through_backend(checkpoint, backend, ema, recipe)
    recipe = replace(recipe, on_bad_image="skip", val_batch_size=batch_size or recipe.val_batch_size)
    return OpenedModel(checkpoint, exported, recipe, ema, batch_size)
