"""Checkpoints with random weights and batch norms as after training, to export, predict with and average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindcv_mnasnet.networks.network import Network, resolve
from mindcv_mnasnet.run.checkpoint import read_checkpoint, write_checkpoint
from mindcv_mnasnet.weights.conventions import recipe_for
from mindcv_mnasnet.weights.name_maps import shapes

NEEDS = {"onnx": ("onnx", "onnxruntime"), "tflite": ("tensorflow", "ai_edge_litert"), "mindir": ()}
CLASSES = tuple("0123456789")
# Compiles fast, for tests about something else: four reductions, squeeze and excitation, a shortcut.
TINY = {
    "blocks": "r1_k3_s22_e1_o8 r1_k3_s22_e1_o16 r1_k3_s22_e1_o16 r1_k3_s11_e3_o16_se0.25",
    "stem": 8,
    "width_mult": None,
}


def tensors(network: Network, seed: int = 0) -> dict[str, np.ndarray]:
    """Values by name under which logits differ from image to image."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in shapes(network).items():
        if name.endswith(("gamma", "moving_variance")):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            value = rng.normal(0, 0.2, shape)
        else:
            value = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        found[name] = value.astype(np.float32)
    return found


def write(path: Path, data_dir: Path, family: str = "small", seed: int = 0, **fields: Any) -> Path:
    """A checkpoint that classifies the digits; the family "tiny" is none of the published ones."""
    size = TINY if family == "tiny" else {"width_mult": 0.35}
    values = {**size, "image_size": 24, "num_classes": len(CLASSES), "head": 64, **fields}
    network = resolve(None if family == "tiny" else family, **values)
    own = recipe_for("own", network, None).to_dict()
    recipe = {**own, "dataset": "digits", "data_dir": str(data_dir), "batch_size": 64, "crop_pct": 1.0}
    write_checkpoint(
        path,
        tensors(network, seed),
        {"recipe": recipe, "network": network.to_dict(), "class_names": list(CLASSES), "source": None},
    )
    return path


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The model tensors of a checkpoint."""
    return read_checkpoint(path).weights()


def need(form: str) -> None:
    """Skip the test where a format's libraries are missing."""
    for module in NEEDS[form]:
        pytest.importorskip(module)
