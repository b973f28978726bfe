"""Training a detector: recipe to checkpoint, resume, processes, start from a classifier, refusals."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from coco_files import annotation, colored_data_set, document, write
from processes import ROOT, msrun, run, run_until, unequal
from tiny_detector import BACKBONE, KEYS, recipe, stored, words

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.run.log import read_log
from mindcv_mnasnet.train.averaging import average
from mindcv_mnasnet.train.engine import fit


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return colored_data_set(tmp_path_factory.mktemp("boxes") / "data")


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory, cpu):
    """A folder with a run of six steps, and its summary."""
    folder = tmp_path_factory.mktemp("straight")
    return folder, fit(recipe(data, folder))


def test_a_run_is_summed_up_and_ranked_by_its_average_precision(straight):
    folder, summary = straight
    assert summary["ap"] is not None
    assert set(summary["best"]) == {"ap", "epoch", "weights"}
    epochs = [record for record in read_log(folder / "run" / "log.jsonl") if record["kind"] == "epoch"]
    assert summary["best"]["ap"] == max(record["val_ap"] for record in epochs)
    assert {"train_loss", "train_class_loss", "train_box_loss", "val_ap50", "val_ap50_of"} <= set(epochs[0])
    total, parts = epochs[0]["train_loss"], epochs[0]["train_class_loss"] + epochs[0]["train_box_loss"]
    assert total == pytest.approx(parts, rel=1e-5)
    checkpoint = stored(folder)
    assert checkpoint.detector is not None
    assert checkpoint.meta["category_ids"] == [10, 20]


def test_a_killed_run_goes_on_to_the_same_bits(straight, data, tmp_path):
    keys = KEYS | {"data_dir": data, "ckpt_save_dir": tmp_path, "run_name": "run"}
    keys |= {"ckpt_save_steps": 1, "log_interval": 1}
    killed = run_until("step:5:SIGKILL", *words(keys), cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    ended = run("--resume", tmp_path / "run", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert unequal(dict(stored(tmp_path).tensors), dict(stored(straight[0]).tensors)) == []


def test_two_processes_agree_and_score_every_image_once(data, tmp_path):
    keys = KEYS | {"data_dir": data, "ckpt_save_dir": tmp_path, "run_name": "run", "batch_size": 1, "distribute": True}
    ended = msrun(ROOT / "train.py", *words(keys), cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert metrics["val_images"] == 4
    assert stored(tmp_path).meta["world"] == 2


def test_averages_accumulation_and_a_frozen_backbone_go_together(straight, data, tmp_path):
    folder, _ = straight
    start = stored(folder)
    keys = {"ema": True, "gradient_accumulation_steps": 3, "freeze": "backbone", "epoch_size": 1}
    summary = fit(recipe(data, tmp_path, **keys, init_from=str(start.path)))
    ended = stored(tmp_path, 1)
    moved = {name for name, value in ended.weights(ema=False).items() if (value != start.tensors[name]).any()}
    assert moved
    assert all(name.startswith(("extras.", "predictors.")) for name in moved)
    assert summary["best"]["weights"] == "ema"


def test_a_classifier_gives_its_backbone_and_its_head(data, digits, tmp_path, cpu):
    one = {"epoch_size": 1, "num_samples": 4, "image_resize": 32, "in_channels": 3, "dataset": "digits"}
    places = {"data_dir": str(digits), "ckpt_save_dir": str(tmp_path / "classifier"), "run_name": "run"}
    fit(load_recipe(overrides={**BACKBONE, **one, **places}))
    start = stored(tmp_path / "classifier", 2)
    keys = {"epoch_size": 1, "num_samples": 2, "lr": 1e-12, "min_lr": 0.0, "init_from": str(start.path)}
    fit(recipe(data, tmp_path / "detector", **keys))
    ended = stored(tmp_path / "detector", 1)
    shared = [name for name in start.weights() if name.endswith("weight") and not name.startswith("classifier")]
    assert any(name.startswith("head.") for name in shared)
    for name in shared:
        np.testing.assert_allclose(ended.tensors[name], start.tensors[name], atol=1e-9, err_msg=name)


def test_an_average_of_detectors_is_one(straight, data, tmp_path):
    first, last = stored(straight[0], 3), stored(straight[0])
    average([first.path, last.path], tmp_path / "mean.safetensors", data_dir=str(data), batches=2)
    from mindcv_mnasnet.run.checkpoint import read_checkpoint

    mean = read_checkpoint(tmp_path / "mean.safetensors")
    assert (mean.detector, mean.meta["category_ids"]) == (last.detector, [10, 20])
    name = "predictors.0.boxes.output.weight"
    expected = (first.tensors[name].astype(np.float64) + last.tensors[name]) / 2
    np.testing.assert_allclose(mean.tensors[name], expected, atol=1e-7)


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"mixup": 0.2}, "mixup"),
        ({"label_smoothing": 0.1}, "label_smoothing"),
        ({"crop_pct": 0.9}, "crop_pct"),
        ({"quantize": True}, "quantize"),
        ({"task": "classify"}, "extras_out_channels"),
    ],
)
def test_keys_of_the_other_task_are_refused_by_name(keys, word):
    with pytest.raises(UserError, match=f"{word}: .* means nothing with task"):
        load_recipe(overrides={**KEYS, **keys})


def test_the_background_is_no_class(data, tmp_path):
    with pytest.raises(UserError, match=r"num_classes: 3, .* background is not counted"):
        fit(recipe(data, tmp_path, num_classes=3))


def test_missing_images_are_named(tmp_path):
    write(
        tmp_path / "annotations" / "instances_train.json",
        document([(1, 64, 64), (2, 64, 64)], [annotation(1, 1, [0, 0, 9, 9])]),
    )
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"lacks 2 of 2 images: image id 1"):
        fit(recipe(tmp_path, tmp_path))
