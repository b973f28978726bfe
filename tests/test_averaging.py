"""Averaged checkpoints: the mean of the weights, statistics that belong to it, and no mixing of networks."""

from __future__ import annotations

import shutil

import exported
import numpy as np
import pytest
from processes import refused

from mindcv_mnasnet.commands import average as average_command
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.run.checkpoint import read_checkpoint, write_checkpoint
from mindcv_mnasnet.train.averaging import average, choose, statistics

pytestmark = pytest.mark.usefixtures("cpu")


@pytest.fixture
def three(tmp_path, digits):
    return [exported.write(tmp_path / f"{seed}.safetensors", digits, "tiny", seed=seed) for seed in range(3)]


def test_it_is_the_mean_of_every_tensor(tmp_path, three):
    average(three, tmp_path / "mean.safetensors")
    mean = read_checkpoint(tmp_path / "mean.safetensors")
    each = [read_checkpoint(path).tensors for path in three]
    for name, value in mean.tensors.items():
        np.testing.assert_allclose(value, sum(one[name] for one in each) / 3, rtol=1e-6, atol=1e-7)
    assert mean.meta["average"]["of"] == ["0.safetensors", "1.safetensors", "2.safetensors"]
    assert mean.class_names == exported.CLASSES


def test_statistics_are_those_of_the_training_images(three):
    """Equal to a second estimate from the same batches, and such that a first batch norm gives variance 1."""
    checkpoint = read_checkpoint(three[0])
    first = statistics(checkpoint, checkpoint.tensors, None, 3)
    wrong = {**checkpoint.tensors, **{name: value + 5 for name, value in first.items()}}
    second = statistics(checkpoint, wrong, None, 3)
    assert set(first) == {name for name in checkpoint.tensors if "moving_" in name}
    assert all(np.allclose(first[name], second[name], rtol=1e-5) for name in first)


def test_new_statistics_reach_the_file(tmp_path, three):
    average(three[:2], tmp_path / "plain.safetensors")
    average(three[:2], tmp_path / "fitted.safetensors", batches=2)
    plain, fitted = (read_checkpoint(tmp_path / f"{name}.safetensors").tensors for name in ("plain", "fitted"))
    changed = {name for name in plain if not np.array_equal(plain[name], fitted[name])}
    assert changed == {name for name in plain if "moving_" in name}


def test_different_networks_are_refused(tmp_path, three, digits):
    other = exported.write(tmp_path / "other.safetensors", digits, "b1")
    with pytest.raises(UserError, match="another network"):
        average([three[0], other], tmp_path / "mean.safetensors")
    with pytest.raises(UserError, match="two checkpoints"):
        average(three[:1], tmp_path / "mean.safetensors")
    with pytest.raises(UserError, match="named twice"):
        average([three[0], three[1], three[0]], tmp_path / "mean.safetensors")
    shutil.copy(three[0], tmp_path / "best.safetensors")
    with pytest.raises(UserError, match="hold the same weights"):
        average([tmp_path / "best.safetensors", *three], tmp_path / "mean.safetensors")
    with pytest.raises(UserError, match=r"end in \.safetensors"):
        average(three, tmp_path / "mean.pth")
    stored = read_checkpoint(three[1])
    for key, value in (("crop_pct", 0.9), ("mean", [1, 2, 3])):
        meta = {**stored.meta, "recipe": {**stored.meta["recipe"], key: value}}
        write_checkpoint(tmp_path / "odd.safetensors", stored.tensors, meta)
        with pytest.raises(UserError, match=key):
            average([three[0], tmp_path / "odd.safetensors"], tmp_path / "mean.safetensors")
    assert not (tmp_path / "mean.safetensors").exists()


@pytest.mark.parametrize("option", [("--bn_batches", "5"), ("--data_dir", "nowhere")])
def test_images_are_for_new_statistics_alone(tmp_path, three, option, capsys):
    sentence = refused(capsys, *three, "-o", tmp_path / "mean.safetensors", *option, program=average_command)
    assert "--reestimate_bn" in sentence


def test_the_newest_and_the_best_are_chosen(tmp_path, three):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    stored = read_checkpoint(three[0])
    for number, score in enumerate((50.0, 70.0, 60.0)):
        meta = {**stored.meta, "batches": number, "serial": number, "metrics": {"val_top1_ema": score}}
        write_checkpoint(folder / f"step_{number}.safetensors", stored.tensors, meta)
    assert [path.stem for path in choose(tmp_path / "run", last=2)] == ["step_2", "step_1"]
    assert [path.stem for path in choose(tmp_path / "run", best=2)] == ["step_1", "step_2"]
    with pytest.raises(UserError, match="4 checkpoints are asked for"):
        choose(tmp_path / "run", last=4)
