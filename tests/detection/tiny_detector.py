"""A detector that compiles and trains in seconds, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe
from mindcv_mnasnet.run.checkpoint import Checkpoint, read_checkpoint

BACKBONE: dict[str, Any] = {
    "blocks": "r1_k3_s22_e1_o8 r1_k3_s22_e1_o8 r1_k3_s22_e1_o8 r1_k3_s22_e3_o8",
    "stem": 8,
    "head": 16,
    "batch_size": 2,
    "epoch_size": 2,
    "opt": "sgd",
    "lr": 0.01,
    "warmup_epochs": 0,
    "num_parallel_workers": 1,
    "deterministic": True,
    "device_target": "CPU",
}
KEYS: dict[str, Any] = BACKBONE | {
    "task": "detect",
    "extras_out_channels": "16,16,16,8",
    "image_resize": 64,
    "val_while_train": True,
}
STEPS = 3  # of an epoch on the six images of ``coco_files.colored_data_set``


def recipe(data: Path, folder: Path, **keys: Any) -> Recipe:
    """The recipe of a run named "run" below ``folder``."""
    places = {"data_dir": str(data), "ckpt_save_dir": str(folder), "run_name": "run"}
    return load_recipe(overrides={**KEYS, **places, **keys})


def stored(folder: Path, steps: int = 2 * STEPS) -> Checkpoint:
    """The checkpoint of that run after so many steps."""
    return read_checkpoint(folder / "run" / "checkpoints" / f"step_{steps:08d}.safetensors")


def words(values: dict[str, Any]) -> list[str]:
    """Recipe keys as a command line."""
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]
