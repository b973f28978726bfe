"""The recipes under configs/ as they are shipped, brought to a few steps on random images in one process or several."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from PIL import Image

from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.train.job import Job, prepare
from mindcv_mnasnet.train.random_inputs import draw_inputs
from mindcv_mnasnet.train.step import Accumulate

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(path for kind in ("mnasnet", "cifar10", "digits") for path in (ROOT / "configs" / kind).glob("*.yaml"))
BATCH = 2


def write_images(root: Path) -> Path:
    """A data set of two classes, enough for a few steps; recipes keep the number of classes that they name."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 2)):
        for label in ("a", "b"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                image = Image.fromarray(rng.integers(0, 256, (48, 48, 3), np.uint8))
                image.save(folder / f"{index}.jpg")
    return root


def bring(path: Path, data: Path, runs: Path, **overrides: Any) -> Job:
    """The job of a recipe at its own network, image size and optimizer, on the CPU with two images a batch."""
    keys = {"device_target": "CPU", "batch_size": BATCH, "num_parallel_workers": 1, "distribute": None}
    places = {"data_dir": str(data), "val_split": "val", "val_fraction": None, "ckpt_save_dir": str(runs)}
    return prepare(load_recipe(path, overrides=keys | places | overrides))


def batch(job: Job, number: int) -> tuple[Any, ...]:
    """Random images, labels and random inputs: the same for a number, whatever process asks."""
    size = job.recipe.image_resize
    rng = np.random.default_rng(number)
    images = rng.integers(0, 256, (BATCH, size, size, 3), np.uint8)
    labels = rng.integers(0, job.network.num_classes, BATCH).astype(np.int32)
    drawn = draw_inputs(job.layout, BATCH, 7, number, 0) if job.layout.columns else None
    return ms.Tensor(images), ms.Tensor(labels), None if drawn is None else ms.Tensor(drawn)


def take_steps(job: Job, steps: int) -> list[float]:
    """The losses of so many steps; each takes the same batches over all processes, however many there are."""
    micro, rank, world = job.plan.accumulation, job.runtime.rank, job.runtime.world
    first = Accumulate(job.step) if micro > 1 else None
    losses = []
    for step in range(steps):
        for index in range(micro):
            cell = job.step if first is None or index == micro - 1 else first
            loss = cell(*batch(job, (step * world + rank) * micro + index))
        losses.append(float(loss.asnumpy()))
    return losses


def main(words: list[str]) -> None:
    """What a process of a group does: ``STEPS OVERRIDES RECIPE...``; leaves losses and states in its folder."""
    steps, overrides = int(words[0]), json.loads(words[1])
    for path in map(Path, words[2:]):
        with ExitStack() as stack:
            runs = Path.cwd() / "runs" / path.stem
            job = stack.enter_context(bring(path, Path("images"), runs, distribute=True, **overrides))
            losses = take_steps(job, steps)
            np.savez(f"{path.stem}_rank_{job.runtime.rank}.npz", losses=np.array(losses), **job.step.state())


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("MNASNET_CACHE", str(ROOT / ".pytest_cache" / "compiled"))
    main(sys.argv[1:])
