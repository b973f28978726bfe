"""The job of a dry run, in a process of its own: python -m mindcv_mnasnet.dry_run.job REQUEST, which is JSON.

It prints marks between the lines of MindSpore's log, so that the reader knows which graph's kernels it sees.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from PIL import Image

from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.devices.runtime import Runtime
from mindcv_mnasnet.dry_run.report import MARK
from mindcv_mnasnet.errors import run_cli
from mindcv_mnasnet.export.metadata import ModelMetadata
from mindcv_mnasnet.export.mindir import write_mindir
from mindcv_mnasnet.export.mindspore_runtime import MindIRSession
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.search.settings import Settings, load_settings
from mindcv_mnasnet.search.supernet.evaluator import open_supernet
from mindcv_mnasnet.search.supernet.training import SuperTrainer, SuperTraining
from mindcv_mnasnet.train.engine import fit
from mindcv_mnasnet.train.job import build_step
from mindcv_mnasnet.train.random_inputs import draw_inputs
from mindcv_mnasnet.train.schedule import learning_rates
from mindcv_mnasnet.train.step import Accumulate
from mindcv_mnasnet.train.task import task_of


def main(argv: list[str]) -> int:
    """Compile the phases that the request names."""
    request = json.loads(argv[0])
    recipe = Recipe.from_dict(request["recipe"], "the dry run's recipe")
    machine = runtime.start("Ascend", None, recipe.jit_level, recipe.deterministic)
    _mark(facts={"MindSpore": runtime.describe()["mindspore"], "batch": recipe.batch_size})
    for name in request["phases"]:
        if name == "supernet":
            Path("search.yaml").write_text(request["search"], encoding="utf-8")
            _supernet(recipe, load_settings("search.yaml"))
        else:
            _PHASES[name](recipe, request["classes"], machine)
    return 0


def _train(recipe: Recipe, classes: int, machine: Runtime) -> None:
    images = recipe.batch_size * machine.world * recipe.gradient_accumulation_steps * 2
    plan = Plan.make(recipe, images, 0, machine.world, runtime.usable_cores())
    network = recipe.network(classes)
    step, layout = build_step(recipe, machine, network, plan, learning_rates(recipe, plan))
    shape = (recipe.batch_size, recipe.image_resize, recipe.image_resize, recipe.in_channels)
    labels = task_of(recipe).no_labels(recipe, network)
    batch: list[Any] = [ms.Tensor(np.zeros(shape, np.uint8)), ms.Tensor(labels)]
    drawn = draw_inputs(layout, recipe.batch_size, recipe.seed, 0, 0) if layout.columns else None
    batch.append(None if drawn is None else ms.Tensor(drawn))
    if plan.accumulation > 1:
        with phase("accumulate"):
            Accumulate(step)(*batch)
    with phase("train", 4 * sum(step.shared_sizes) if machine.world > 1 else 0):
        step(*batch)


def _validate(recipe: Recipe, classes: int, machine: Runtime) -> None:
    evaluator = task_of(recipe).evaluator(recipe, recipe.network(classes), machine)
    size = recipe.image_resize
    images = np.zeros((recipe.val_batch_size or recipe.batch_size, size, size, recipe.in_channels), np.uint8)
    with phase("validate"):
        evaluator.answer(images)


def _export(recipe: Recipe, classes: int, machine: Runtime) -> None:
    """A MindIR file of the network, written, loaded and run on one image."""
    network = recipe.network(classes)
    model, path = create_model(network, kernels=False), Path("network.mindir")
    tensors = {parameter.name: parameter.asnumpy() for parameter in model.get_parameters()}
    with phase("export"):
        write_mindir(tensors, path, ModelMetadata.blank(network))
        MindIRSession(path).run(np.zeros((1, network.in_channels, *(network.image_size,) * 2), np.float32))


def _supernet(recipe: Recipe, settings: Settings) -> None:
    """Gradients of the largest candidate, and the update of the weights that all candidates share."""
    supernet = open_supernet(settings, recipe, settings.open_space()).set_train()
    largest = supernet.choices.largest
    trainer = SuperTrainer(supernet, lambda _: [], SuperTraining(2), *recipe.pixel_statistics())
    shape = (recipe.batch_size, largest.image_size, largest.image_size, largest.in_channels)
    images, labels = ms.Tensor(np.zeros(shape, np.uint8)), ms.Tensor(np.zeros(recipe.batch_size, np.int32))
    masks, rate = supernet.masks(largest), ms.Tensor(recipe.lr, ms.float32)
    with phase("gradients"):
        trainer.step(images, labels, *masks)
    with phase("update"):
        trainer.update(rate)


def _loop(recipe: Recipe, classes: int, machine: Runtime) -> None:
    """The whole job on random images: input pipeline, queue, two steps, validation, checkpoint."""
    began = time.perf_counter()
    global_batch = recipe.batch_size * machine.world * recipe.gradient_accumulation_steps
    written = _write_boxes if recipe.task == "detect" else _write_images
    written(Path("data/train"), classes, 2 * global_batch)
    written(Path("data/val"), classes, machine.world)
    here: dict[str, Any] = {
        "dataset": "",
        "data_dir": "data",
        "train_split": "train",
        "val_split": "val",
        "val_fraction": None,
    }
    here |= {"val_labels": None, "num_samples": None, "num_classes": None, "ckpt_save_dir": "runs", "run_name": "dry"}
    short: dict[str, Any] = {"epoch_size": 1, "val_while_train": True, "tensorboard": False, "keep_checkpoint_max": 1}
    fit(replace(recipe, **here, **short))
    _mark(facts={"loop_seconds": time.perf_counter() - began})


def _write_images(folder: Path, classes: int, count: int) -> None:
    """At least ``count`` images of noise, and one per class: links to one file."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    first = folder.parent / f"{folder.name}.jpg"
    Image.fromarray(noise).save(first)
    for number in range(max(count, classes)):
        target = folder / f"{number % classes:05d}" / f"{number}.jpg"
        target.parent.mkdir(exist_ok=True)
        os.link(first, target)


def _write_boxes(folder: Path, classes: int, count: int) -> None:
    """``count`` images of noise with a box each, and an annotation file."""
    _write_images(folder.with_name(f"{folder.name}-classes"), 1, count)
    folder.with_name(f"{folder.name}-classes").joinpath("00000").rename(folder)
    numbers = range(count)
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 128, "height": 96} for n in numbers],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1 + n % classes, "bbox": [8, 8, 64, 64], "area": 4096, "iscrowd": 0}
            for n in numbers
        ],
        "categories": [{"id": 1 + label, "name": f"class {label}"} for label in range(classes)],
    }
    annotations = folder.parent / "annotations"
    annotations.mkdir(exist_ok=True)
    (annotations / f"instances_{folder.name}.json").write_text(json.dumps(content), encoding="utf-8")


_PHASES: dict[str, Callable[[Recipe, int, Runtime], None]] = {
    "train": _train,
    "validate": _validate,
    "export": _export,
    "loop": _loop,
}


@contextmanager
def phase(name: str, collective_bytes: int = 0) -> Iterator[None]:
    """What is compiled meanwhile is a phase of the report that reads this process's log."""
    ms.runtime.synchronize()
    _mark(begin=name)
    began = time.perf_counter()
    yield
    ms.runtime.synchronize()
    _mark(end=time.perf_counter() - began, collective_bytes=collective_bytes)


def _mark(**content: Any) -> None:
    print(MARK + json.dumps(content), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(run_cli(lambda: main(sys.argv[1:])))
