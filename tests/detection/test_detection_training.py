"""Training a detector: recipe to checkpoint, resume, start from a classifier, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from coco_files import annotation, colored_data_set, document, write

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.run.checkpoint import read_checkpoint
from mindcv_mnasnet.train.engine import fit

KEYS = {
    "task": "detect",
    "blocks": "r1_k3_s11_e1_o8 r1_k3_s22_e3_o8 r1_k3_s22_e3_o8 r1_k3_s22_e3_o8 r1_k3_s22_e3_o8",
    "stem": 8,
    "head": 16,
    "extras_out_channels": "16,16,16,8",
    "image_resize": 64,
    "run_name": "run",
    "batch_size": 2,
    "epoch_size": 2,
    "opt": "sgd",
    "lr": 0.01,
    "warmup_epochs": 0,
    "compile_cache": False,
    "num_parallel_workers": 1,
    "val_while_train": True,
    "deterministic": True,
    "device_target": "CPU",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return colored_data_set(tmp_path_factory.mktemp("boxes") / "data")


def recipe(data, folder, **keys):
    return load_recipe(overrides={**KEYS, "data_dir": str(data), "ckpt_save_dir": str(folder), **keys})


def newest(folder, steps):
    return read_checkpoint(folder / "checkpoints" / f"step_{steps:08d}.safetensors")


def test_a_resumed_run_ends_as_one_without_a_stop(data, tmp_path, cpu):
    summary = fit(recipe(data, tmp_path / "straight"))
    assert summary["ap"] is not None
    assert set(summary["best"]) == {"ap", "epoch", "weights"}
    straight = newest(tmp_path / "straight" / "run", 6)
    fit(recipe(data, tmp_path / "halves", ckpt_save_steps=2))
    for path in (tmp_path / "halves" / "run" / "checkpoints").glob("*"):
        if path.name != "step_00000002.safetensors":
            path.unlink()
    (tmp_path / "halves" / "run" / "summary.json").unlink()
    fit(load_recipe(overrides={"resume": str(tmp_path / "halves" / "run")}))
    resumed = newest(tmp_path / "halves" / "run", 6)
    assert resumed.tensors.keys() == straight.tensors.keys()
    for name, value in straight.tensors.items():
        np.testing.assert_array_equal(resumed.tensors[name], value, err_msg=name)
    assert straight.detector is not None
    assert straight.meta["category_ids"] == [10, 20]


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
