"""Checkpoints run by another runtime than MindSpore, which is often faster on a CPU."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.export.artifact import SUFFIXES, Artifact, open_artifact
from mindcv_mnasnet.export.metadata import ModelMetadata, folded_as
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.run.checkpoint import Checkpoint

BACKENDS = ("mindspore", "onnxruntime", "litert")


def through_backend(
    checkpoint: Checkpoint, backend: str, ema: bool | None = None, recipe: Recipe | None = None
) -> Artifact | None:
    """A checkpoint as an artifact of any batch size, exported to a temporary file; None for MindSpore itself.

    Images are prepared as ``recipe`` says (None: the checkpoint's own).

    Raises:
        UserError: an unknown backend, or one whose extra is not installed.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend: {backend!r} is unknown; it can be {', '.join(BACKENDS)}")
    if backend == "mindspore":
        return None
    metadata = ModelMetadata.of(checkpoint, recipe, ema=ema, batch=None)
    folded = folded_as(metadata, checkpoint.weights(ema))
    suffix = next(suffix for suffix, runtime in SUFFIXES.items() if runtime == backend)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"network{suffix}"
        if backend == "onnxruntime":
            from mindcv_mnasnet.export.onnx_writer import write_onnx

            write_onnx(folded, path, metadata)
        else:
            from mindcv_mnasnet.export.tflite import write_tflite

            write_tflite(folded, path, metadata)
        return open_artifact(path)


def described(artifact: Artifact) -> Checkpoint:
    """What an exported file knows of its checkpoint; the tensors stay where they are."""
    metadata = artifact.metadata
    meta: dict[str, Any] = {
        "recipe": metadata.recipe,
        "network": metadata.network,
        "class_names": metadata.class_names,
        "source": metadata.source,
        "data": metadata.data,
    }
    if metadata.detector is not None:
        meta |= {"detector": metadata.detector["description"], "category_ids": metadata.detector["category_ids"]}
    return Checkpoint(artifact.path, {}, meta)
