"""A detector's run knows its annotation files again, as a classifier's does its images."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from coco_files import colored_data_set
from tiny_detector import recipe

from mindcv_mnasnet.data.known import described, require_same
from mindcv_mnasnet.detection.data import open_known_val, open_train_val
from mindcv_mnasnet.errors import UserError


def recipe_with(keys, **more):
    """The run's recipe with what is said for one validation."""
    return replace(keys, **more, given=frozenset(more))


def move_a_box(data, split):
    path = data / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][0] += 1
    path.write_text(json.dumps(content))


def test_other_boxes_of_the_same_images_are_said_and_for_training_refused(tmp_path):
    data = colored_data_set(tmp_path / "data")
    keys = recipe(data, tmp_path)
    train, val = open_train_val(keys)
    known = json.loads(json.dumps(described(train, val)))
    assert require_same(known, *open_train_val(keys), allowed=False) == []
    assert open_known_val(recipe_with(keys), train.class_names, known).notes == ()
    move_a_box(data, "val")
    (note,) = require_same(known, *open_train_val(keys), allowed=False)
    assert "other annotations" in note
    (note,) = open_known_val(recipe_with(keys), train.class_names, known).notes
    assert "annotations" in note
    move_a_box(data, "train")
    with pytest.raises(UserError, match="other annotations"):
        require_same(known, *open_train_val(keys), allowed=False)
    assert len(require_same(known, *open_train_val(keys), allowed=True)) == 2


def test_runs_of_before_the_boxes_were_known_go_on(tmp_path):
    data = colored_data_set(tmp_path / "data")
    keys = recipe(data, tmp_path)
    known = described(*open_train_val(keys))
    for part in known.values():
        del part["labels"]
    move_a_box(data, "train")
    assert require_same(known, *open_train_val(keys), allowed=False) == []


def test_a_share_of_the_run_is_taken_of_its_own_images_and_of_no_others(tmp_path):
    keys = recipe(colored_data_set(tmp_path / "data", train=10, val=0), tmp_path, val_fraction=0.3)
    (tmp_path / "data" / "annotations" / "instances_val.json").unlink()
    train, val = open_train_val(keys)
    known = described(train, val)
    assert open_known_val(recipe_with(keys), train.class_names, known).paths == val.paths
    other = colored_data_set(tmp_path / "other", train=4, val=6)
    for file in (other / "val").iterdir():
        file.rename(file.with_name(f"photo-{file.name}"))
    annotations = other / "annotations" / "instances_val.json"
    annotations.write_text(annotations.read_text().replace('"file_name": "', '"file_name": "photo-'))
    found = open_known_val(recipe_with(keys, data_dir=str(other)), train.class_names, known)
    assert len(found) == 6
    assert "val_fraction of the run is not applied" in found.notes[0]
