"""Training a detector: recipe to checkpoint, resume, processes, start from a classifier, refusals."""

from __future__ import annotations

import json
import shutil

import exported
import numpy as np
import pytest
from coco_files import annotation, colored_data_set, document, write
from processes import ROOT, cli, messages, msrun, unequal
from tiny_detector import BACKBONE, KEYS, recipe, stored, words

from mindcv_mnasnet.detection.data import open_val
from mindcv_mnasnet.detection.postprocess import Detections
from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.devices.runtime import Runtime
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.run.checkpoint import read_checkpoint
from mindcv_mnasnet.run.log import read_log
from mindcv_mnasnet.train.averaging import average
from mindcv_mnasnet.train.box_evaluation import score_images
from mindcv_mnasnet.train.engine import fit


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return colored_data_set(tmp_path_factory.mktemp("boxes") / "data")


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory, cpu):
    """A folder with a run of six steps, and its summary."""
    folder = tmp_path_factory.mktemp("straight")
    return folder, fit(recipe(data, folder, ckpt_save_steps=1))


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


def test_a_killed_run_goes_on_to_the_same_bits(straight, tmp_path):
    """From a folder as a kill after the fifth step leaves it; test_resume.py kills processes."""
    shutil.copytree(straight[0] / "run", tmp_path / "run")
    for name in ("summary.json", "checkpoints/best.safetensors", "checkpoints/step_00000006.safetensors"):
        (tmp_path / "run" / name).unlink()
    assert cli("--resume", tmp_path / "run") == 0
    assert "step_00000005.safetensors" in messages(tmp_path / "run")
    assert unequal(dict(stored(tmp_path).tensors), dict(stored(straight[0]).tensors)) == []


def test_two_ranks_score_every_image_once_and_as_one_does(data, tmp_path, monkeypatch):
    """Each in turn, with the sums of what both bring; what is found in an image depends on the image alone."""
    chosen = recipe(data, tmp_path, batch_size=1)
    detector, index = chosen.detector(chosen.network(2)), open_val(chosen)

    def find(images):
        sizes = 20 + images.mean((1, 2, 3))
        return [Detections(np.float32([[0, 0, s, s]]), np.float32([s / 300]), np.array([0])) for s in sizes]

    def score(rank, world):
        plan = Plan.make(chosen, 6, len(index), world)
        return score_images(find, detector, index, chosen, plan, Runtime(rank=rank, world=world))

    brought = {0: [], 1: []}
    for rank, values in brought.items():
        monkeypatch.setattr(runtime, "sum_over_ranks", lambda one, world, values=values: values.append(one) or one)
        with pytest.raises(JobError, match="2 of 4"):
            score(rank, 2)
    monkeypatch.undo()
    expected = score(0, 1)
    for rank in brought:
        sums = iter([one + other for one, other in zip(*brought.values(), strict=True)])
        monkeypatch.setattr(runtime, "sum_over_ranks", lambda one, world, sums=sums: next(sums))
        found = score(rank, 2)
        assert found.seen == expected.seen == 4
        assert found.detections == expected.detections


@pytest.mark.slow
def test_two_processes_agree_and_score_every_image_once(data, tmp_path):
    keys = KEYS | {"data_dir": data, "ckpt_save_dir": tmp_path, "run_name": "run", "batch_size": 1, "distribute": True}
    ended = msrun(ROOT / "train.py", *words(keys), cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert metrics["val_images"] == 4
    assert stored(tmp_path).meta["world"] == 2


@pytest.mark.slow
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
    fields = {name: BACKBONE[name] for name in ("blocks", "stem", "head")}
    start = read_checkpoint(exported.write(tmp_path / "net.safetensors", digits, None, width_mult=None, **fields))
    keys = {"epoch_size": 1, "num_samples": 2, "lr": 1e-12, "min_lr": 0.0, "val_while_train": False}
    fit(recipe(data, tmp_path / "detector", **keys, init_from=str(start.path)))
    ended = stored(tmp_path / "detector", 1)
    shared = [name for name in start.weights() if name.endswith("weight") and not name.startswith("classifier")]
    assert any(name.startswith("head.") for name in shared)
    for name in shared:
        np.testing.assert_allclose(ended.tensors[name], start.tensors[name], atol=1e-9, err_msg=name)


def test_an_average_of_detectors_is_one(straight, data, tmp_path):
    first, last = stored(straight[0], 3), stored(straight[0])
    average([first.path, last.path], tmp_path / "mean.safetensors", data_dir=str(data), batches=2)
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
