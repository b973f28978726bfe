"""MindCV's eight MnasNet recipes, as they are, train and validate on a folder laid out as ImageNet."""

from __future__ import annotations

import json

import pytest
import yaml
from image_files import encode, make_folder, scene
from mindcv_facts import MINDCV
from processes import cli, steps

import validate

pytestmark = pytest.mark.slow
IMAGES = 199  # a prime number: no batch divides it


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A folder as ImageNet's with 1000 classes in training and photographs of many sizes, of which 199 validate."""
    files = {f"train/n{c:08d}/{c}.JPEG": encode(scene(64, 48, c), "JPEG") for c in range(1000)}
    files |= {f"val/n{c:08d}/{c}.JPEG": encode(scene(300 + c, 260, c), "JPEG") for c in range(IMAGES)}
    return make_folder(tmp_path_factory.mktemp("imagenet"), files)


@pytest.mark.parametrize("name", MINDCV)
def test_a_recipe_of_mindcv_trains_two_steps_and_validates(name, imagenet, tmp_path):
    path = tmp_path / name
    path.write_text(yaml.safe_dump(MINDCV[name]))
    assert yaml.safe_load(path.read_text())["weight_decay"] == "1e-5"  # text to YAML 1.1, a number to us
    small = ("--epoch_size", "1", "--num_samples", "16", "--batch_size", "8")
    words = ("--config", path, "--data_dir", imagenet, *small, "--distribute", "False")
    assert cli(*words, "--ckpt_save_dir", tmp_path, "--run_name", "run", "--log_interval", "1") == 0
    assert [step for step, *_ in steps(tmp_path / "run")] == [1, 2]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["metrics"]["val_images"] == IMAGES
    found = tmp_path / "validated.json"
    checkpoint = tmp_path / "run" / "checkpoints" / "step_00000002.safetensors"
    given = ("--config", path, "--data_dir", imagenet, "--ckpt_path", checkpoint, "--distribute", "False")
    assert cli(*given, "--batch_size", "50", "--json", found, program=validate) == 0
    (row,) = json.loads(found.read_text())
    assert (row["images"], row["top1"], row["top5"]) == (IMAGES, summary["top1"], summary["top5"])
