"""MindCV's eight MnasNet recipes, as they are, train and validate on real ImageNet images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from processes import cli, steps

import validate

SHARED = Path(__file__).resolve().parents[2] / "shared"
RECIPES = SHARED / "reference" / "mindcv_mnasnet_recipes.json"
SAMPLE = SHARED / "data" / "imagenet_sample" / "val"
NAMES = list(json.loads(RECIPES.read_text())) if RECIPES.is_file() and SAMPLE.is_dir() else []

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not NAMES, reason="the sample of ImageNet is not at hand")]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A folder as ImageNet's, in which the same sample serves as both splits."""
    root = tmp_path_factory.mktemp("imagenet")
    for split in ("train", "val"):
        (root / split).symlink_to(SAMPLE, target_is_directory=True)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_of_mindcv_trains_two_steps_and_validates(name, imagenet, tmp_path):
    path = tmp_path / name
    path.write_text(yaml.safe_dump(json.loads(RECIPES.read_text())[name]))
    assert yaml.safe_load(path.read_text())["weight_decay"] == "1e-5"  # text to YAML 1.1, a number to us
    small = ("--epoch_size", "1", "--num_samples", "16", "--batch_size", "8")
    words = ("--config", path, "--data_dir", imagenet, *small, "--distribute", "False")
    assert cli(*words, "--ckpt_save_dir", tmp_path, "--run_name", "run", "--log_interval", "1") == 0
    assert [step for step, *_ in steps(tmp_path / "run")] == [1, 2]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    images = sum(1 for _ in SAMPLE.glob("*/*"))
    assert summary["metrics"]["val_images"] == images
    found = tmp_path / "validated.json"
    checkpoint = tmp_path / "run" / "checkpoints" / "step_00000002.safetensors"
    given = ("--config", path, "--data_dir", imagenet, "--ckpt_path", checkpoint, "--distribute", "False")
    assert cli(*given, "--batch_size", "50", "--json", found, program=validate) == 0
    (row,) = json.loads(found.read_text())
    assert (row["images"], row["top1"], row["top5"]) == (images, summary["top1"], summary["top5"])
