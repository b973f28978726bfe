"""Detectors with random weights, batch norms as after training, to export and predict with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.detection.network import create_detector
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.run.checkpoint import write_checkpoint

BACKBONE = "r1_k3_s22_e1_o8 r1_k3_s22_e1_o8 r1_k3_s22_e3_o8_se0.25 r1_k3_s22_e3_o8"
KEYS: dict[str, Any] = {
    "task": "detect",
    "blocks": BACKBONE,
    "stem": 8,
    "head": 16,
    "extras_out_channels": [16, 16, 16, 8],
    "image_resize": 64,
    "val_batch_size": 2,
    "num_parallel_workers": 1,
}
CLASSES = ("class 1", "class 2")  # as in ``coco_files.colored_data_set``
CATEGORY_IDS = (10, 20)


def write(path: Path, data_dir: Path, seed: int = 0, **keys: Any) -> Path:
    """A checkpoint that finds things in ``coco_files.colored_data_set``, if not the right ones."""
    recipe = load_recipe(overrides={**KEYS, "data_dir": str(data_dir), **keys})
    network = recipe.network(len(CLASSES))
    detector = recipe.detector(network)
    rng = np.random.default_rng(seed)
    tensors = {}
    for parameter in create_detector(detector, seed=seed, kernels=False).get_parameters():
        value = parameter.asnumpy()
        if parameter.name.endswith(("gamma", "moving_variance")):
            value = rng.uniform(0.5, 1.5, value.shape)
        elif parameter.name.endswith("output.weight"):
            value = 0.1 * value  # scores that are no ties at 1
        elif value.ndim == 1:
            value = rng.normal(0, 0.2, value.shape)
        tensors[parameter.name] = value.astype(np.float32)
    meta = {
        "recipe": recipe.to_dict(),
        "network": network.to_dict(),
        "detector": detector.to_dict(),
        "category_ids": list(CATEGORY_IDS),
        "class_names": list(CLASSES),
        "source": None,
    }
    write_checkpoint(path, tensors, meta)
    return path
