"""Rows of the benchmark for input pipelines: ours from files and from packs; bench_rows.py dispatches to them."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mindcv_mnasnet.data.index import ImageIndex, list_folder
from mindcv_mnasnet.data.pack_writer import write_pack
from mindcv_mnasnet.data.packs import open_pack
from mindcv_mnasnet.data.pipeline import eval_batches, train_stream
from mindcv_mnasnet.data.scaling import Scaling
from mindcv_mnasnet.data.sets import open_train_val
from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import Recipe

LEAST_PASSES = 4
_COMPARED_BATCHES = 8  # of validation images, whose pixels are compared

Settings = dict[str, Any]
Result = dict[str, Any]


def passes(settings: Settings) -> int:
    """How often a pipeline goes through the images: four times, or more where they are few."""
    images = sum(1 for path in (Path(settings["data_dir"]) / "train").rglob("*") if path.is_file())
    return max(LEAST_PASSES, -(-LEAST_PASSES * settings["images"] // max(images, 1)))


def pipeline(settings: Settings, recipe: Recipe) -> Result:
    """The input pipeline of train.py alone: nothing trains, batches are thrown away."""
    return _timed(open_train_val(recipe)[0], recipe, passes(settings))


def packed_pipeline(settings: Settings, recipe: Recipe, short_side: int | None) -> Result:
    """The same from a pack of the same images, scaled down to ``short_side``; packing itself is not timed.

    ``validation_difference`` is the mean difference between validation images from the pack and from the files, in
    levels of 255, ``bytes_per_image`` the size of a packed image.
    """
    files = list_folder(Path(settings["data_dir"]) / "train")
    with TemporaryDirectory() as folder:
        scaling = None if short_side is None else Scaling(short_side)
        write_pack(files, Path(folder), 1, scaling=scaling)
        packed = open_pack(Path(folder))
        assert packed.spans is not None
        return {
            **_timed(packed, recipe, passes(settings)),
            "validation_difference": _difference(files, packed, recipe),
            "bytes_per_image": float(packed.spans[:, 2].mean()),
        }


def _timed(images: ImageIndex, recipe: Recipe, times: int) -> Result:
    plan = Plan.make(recipe, len(images), 0, cores=runtime.usable_cores())
    batches = iter(train_stream(images, recipe, plan, 0, times))
    next(batches)
    start = time.perf_counter()
    count = sum(1 for _ in batches)
    rate = count * plan.device_batch / (time.perf_counter() - start)
    return {"images_per_second": rate, "workers": plan.workers, "images": len(images)}


def _difference(files: ImageIndex, packed: ImageIndex, recipe: Recipe) -> float:
    plan = Plan.make(recipe, None, len(files), cores=runtime.usable_cores())
    both = zip(eval_batches(files, recipe, plan), eval_batches(packed, recipe, plan), strict=True)
    found = [
        np.abs(one.asnumpy().astype(np.int16) - other.asnumpy().astype(np.int16)).mean()
        for (one, _), (other, _) in islice(both, _COMPARED_BATCHES)
    ]
    return float(np.mean(found))
