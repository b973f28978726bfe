"""A run keeps what data it has: validated elsewhere, moved or resumed from another folder, it counts what it should."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import PLAIN, cli, refused, write_recipe

import validate
from mindcv_mnasnet.run.checkpoint import checkpoints_in, read_checkpoint, write_checkpoint
from mindcv_mnasnet.run.folder import RunFolder

LONGER = ("--epoch_size", "2", "--allow_changes", "epoch_size")


def images(root: Path, count: int, name: str = "") -> Path:
    rng = np.random.default_rng(len(name))
    for number in range(count):
        path = root / "ab"[number % 2] / f"{name}{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with ``set``, and a run that was trained there, told only so, on 54 of 60 images; three copies of it."""
    place = tmp_path_factory.mktemp("place")
    images(place / "set", 60)
    images(place / "elsewhere" / "set", 60, "other-")
    keys = {"dataset": "imagenet", "num_samples": 32, "val_fraction": 0.1, "data_dir": "set"}
    path = write_recipe(place, PLAIN, **keys, val_while_train=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert cli("-c", path, "--run_name", "one") == 0
    for name in ("two", "three"):
        shutil.copytree(place / "runs" / "one", place / "runs" / name)
    return place


def rows(place, *words):
    path = place / "rows.json"
    assert cli(*words, "--json", path, program=validate) == 0
    return json.loads(path.read_text())


def test_validated_on_another_folder_all_of_its_images_count_and_it_is_said(place):
    run = place / "runs" / "one"
    (own,) = rows(place, run)
    assert own["images"] < 20
    assert not any("val_fraction" in note for note in own["notes"])
    (other,) = rows(place, run, "--data_dir", place / "elsewhere" / "set")
    assert other["images"] == 60
    assert any("val_fraction" in note for note in other["notes"])
    (asked,) = rows(place, run, "--data_dir", place / "elsewhere" / "set", "--val_fraction", "0.1")
    assert asked["images"] < 20


def test_a_run_goes_on_with_its_images_from_any_folder(place, monkeypatch):
    run = place / "runs" / "one"
    monkeypatch.chdir(place / "elsewhere")  # where `set` is another one
    assert cli("--resume", run, *LONGER) == 0
    assert RunFolder.open(run).recipe().data_dir == str(place / "set")
    newest = checkpoints_in(run / "checkpoints")[0]
    assert read_checkpoint(newest, only_meta=True).meta["data"] == RunFolder.open(run).data()


def test_a_run_does_not_go_on_with_as_many_other_images(place, capsys):
    run, there = place / "runs" / "two", place / "elsewhere" / "set"
    assert "other images" in refused(capsys, "--resume", run, "--data_dir", there, *LONGER)
    assert cli("--resume", run, "--data_dir", there, *LONGER[:3], "epoch_size,data_dir") == 0


def test_a_run_of_before_data_were_kept_goes_on_and_keeps_them_from_then(place):
    run = place / "runs" / "three"
    (run / "data.json").unlink()
    path = checkpoints_in(run / "checkpoints")[0]
    checkpoint = read_checkpoint(path)
    meta = {key: value for key, value in checkpoint.meta.items() if key != "data"}
    write_checkpoint(path, checkpoint.tensors, meta)
    assert cli("--resume", run, *LONGER) == 0
    assert RunFolder.open(run).data()["train"]["images"] == 32
