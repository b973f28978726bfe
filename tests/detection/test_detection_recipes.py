"""The recipes under configs/detection: the detectors that they claim to be, and that they train."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from coco_files import colored_data_set
from libraries_images import SHARED
from processes import ROOT

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.cost import detector_cost
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.run.log import read_log
from mindcv_mnasnet.search.settings import load_settings
from mindcv_mnasnet.train.engine import fit
from mindcv_mnasnet.train.job import prepare

RECIPES = sorted((ROOT / "configs" / "detection").glob("*.yaml"))
BCCD = ROOT / "configs" / "detection" / "mnasnet_small_bccd_cpu.yaml"
DATA = SHARED / "data" / "detection"
# Parameters and multiply-adds with 91 slots at 320 pixels, counted apart from this code; see test_detector.py.
COUNTS = {
    ("a1", 1.0): (4_912_181, 837_819_232),
    ("a1", 0.5): (1_690_173, 290_408_224),
    ("a1", 0.35): (1_032_335, 177_387_738),
    ("small", 1.0): (2_908_047, 283_427_840),
}


def test_the_promised_recipes_are_there():
    names = {path.stem for path in RECIPES}
    assert {"mnasnet_a1_ssdlite320_ascend", "mnasnet_a1_ssdlite320_tensorflow", "mnasnet_small_bccd_cpu"} <= names
    assert {f"mnasnet_a1_{width}_ssdlite320_tensorflow" for width in ("0.5", "0.35")} <= names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_the_detector_it_claims_to_be(path):
    recipe = load_recipe(path)
    detector = recipe.detector(replace(recipe.network(90), num_classes=90))
    if detector.network.family == "small":  # for small images of small objects: back to what was counted
        network = replace(detector.network, image_size=320)
        detector = replace(detector, network=network, extras=(512, 256, 256, 128), reduced_first_map=True)
    cost = detector_cost(detector)
    assert (cost.params, cost.madds) == COUNTS[(detector.network.family, detector.network.width_mult)]


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_step_of_every_recipe(path, tmp_path, cpu):
    data = colored_data_set(tmp_path / "data")
    keys = {"data_dir": str(data), "train_split": "train", "val_split": "val", "num_classes": 2, "distribute": None}
    keys |= {"ckpt_save_dir": str(tmp_path), "batch_size": 2, "num_parallel_workers": 1, "device_target": "CPU"}
    with prepare(load_recipe(path, overrides=keys)) as job:
        size, anchors = job.recipe.image_resize, job.recipe.detector(job.network).anchor_count(job.recipe.image_resize)
        rng = np.random.default_rng(0)
        targets = np.zeros((2, anchors, 5), np.float32)
        targets[:, ::97, 4] = 1
        images = ms.Tensor(rng.integers(0, 256, (2, size, size, 3), np.uint8))
        assert np.isfinite(job.step(images, ms.Tensor(targets)).asnumpy())
        assert all(np.isfinite(value).all() for value in job.step.state().values())


def subset(source: Path, root: Path, count: int) -> Path:
    """The first images of a data set that show all of its classes, for training and for validation."""
    stored = json.loads((source / "annotations" / "instances_train.json").read_text())
    kinds: dict[int, set[int]] = {}
    for one in stored["annotations"]:
        kinds.setdefault(one["image_id"], set()).add(one["category_id"])
    chosen = [image for image in stored["images"] if len(kinds[image["id"]]) == len(stored["categories"])][:count]
    ids = {image["id"] for image in chosen}
    boxes = [one for one in stored["annotations"] if one["image_id"] in ids]
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / split).symlink_to(source / "train")
        text = json.dumps({**stored, "images": chosen, "annotations": boxes})
        (root / "annotations" / f"instances_{split}.json").write_text(text)
    return root


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "bccd").is_dir(), reason="the photographs of blood cells are not here")
def test_eight_images_are_learned_by_heart(tmp_path, cpu):
    keys = {"epoch_size": 200, "batch_size": 8, "image_resize": 160, "crop_overlaps": "1.0", "hflip": 0.0}
    keys |= {"color_jitter": 0.0, "ema": False, "weight_decay": 0.0, "val_interval": 200, "num_parallel_workers": 1}
    keys |= {"vflip": 0.0}
    places = {"data_dir": str(subset(DATA / "bccd", tmp_path / "data", 8)), "ckpt_save_dir": str(tmp_path)}
    summary = fit(load_recipe(BCCD, overrides=keys | places | {"ckpt_save_interval": 200}))
    assert summary["steps"] == 200
    assert summary["ap50"] >= 90


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "coco_mini").is_dir(), reason="the images of COCO are not here")
def test_crowds_and_images_without_boxes_are_counted_and_left_out(tmp_path, cpu):
    places = {"data_dir": str(DATA / "coco_mini"), "ckpt_save_dir": str(tmp_path), "run_name": "run"}
    keys = {"epoch_size": 1, "image_resize": 96, "num_parallel_workers": 1}
    summary = fit(load_recipe(BCCD, overrides=keys | places))
    assert summary["metrics"]["val_images"] == 177
    texts = [record["text"] for record in read_log(tmp_path / "run" / "log.jsonl") if record["kind"] == "message"]
    assert any("11 crowds" in text for text in texts)


def test_a_search_is_for_classifiers():
    with pytest.raises(UserError, match="is of a detector"):
        load_settings(ROOT / "configs" / "search" / "digits_cpu.yaml", {"recipe": str(BCCD)})
