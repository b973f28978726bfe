"""Validation images drawn by name: a folder that grows keeps what it had, and old runs keep their split."""

from __future__ import annotations

import json

import numpy as np
from image_files import numbered_folder

from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.sets import open_train_val
from mindcv_mnasnet.data.splits import split_by_name
from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe
from mindcv_mnasnet.run.resume import merged


def index_of(images: int, classes: int) -> ImageIndex:
    labels = np.sort(np.arange(images) % classes).astype(np.int32)
    return ImageIndex("", tuple(f"c{label}/{n}.png" for n, label in enumerate(labels)), labels, ("c",) * classes)


def test_no_image_of_the_training_part_is_validated_after_others_came():
    whole = index_of(2000, 4)
    kept = whole.subset(np.flatnonzero(np.arange(2000) % 3 > 0))
    before, _ = split_by_name(kept, 0.1, 0)
    _, after = split_by_name(whole, 0.1, 0)
    assert not set(before.paths) & set(after.paths)


def test_about_the_share_is_set_apart_and_another_seed_sets_others_apart():
    first, second = (split_by_name(index_of(5000, 5), 0.2, seed)[1] for seed in (0, 1))
    assert abs(len(first) / 5000 - 0.2) < 0.03
    assert set(first.paths) != set(second.paths)


def test_every_class_of_a_few_images_is_trained_on_and_validated():
    train, val = split_by_name(index_of(200, 50), 0.1, 0)
    assert set(train.labels) == set(val.labels) == set(range(50))
    assert len(train) + len(val) == 200


def test_new_jobs_draw_by_name_and_stored_ones_as_they_did(tmp_path):
    numbered_folder(tmp_path, 60)
    keys = {"data_dir": str(tmp_path), "val_fraction": 0.2}
    new, old = load_recipe(overrides=keys), Recipe.from_dict(keys)
    assert (new.split_by, old.split_by) == ("name", "position")
    assert Recipe.from_dict(json.loads(json.dumps(new.to_dict()))).split_by == "name"
    assert len(open_train_val(old)[1]) == 12
    assert open_train_val(new)[1].paths != open_train_val(old)[1].paths
    resumed = merged(load_recipe(overrides={"resume": "run", **keys}), old)
    assert open_train_val(resumed)[1].paths == open_train_val(old)[1].paths
