"""Jobs on folders of a few images."""

from __future__ import annotations

from pathlib import Path

from image_files import encode, scene
from processes import PLAIN, write_recipe


def images(split: str, count: int, classes: int = 2, form: str = "PNG") -> dict[str, bytes]:
    return {f"{split}/c{n % classes}/{n}.{form.lower()}": encode(scene(20, 18, n), form) for n in range(count)}


def job_on(folder: Path, tmp_path: Path, *words: str, **keys: object) -> tuple:
    values = {"dataset": "own", "data_dir": str(folder), "num_samples": None, "batch_size": 4, **keys}
    return ("-c", write_recipe(tmp_path, PLAIN, **values), "--ckpt_save_dir", tmp_path, "--run_name", "run", *words)
