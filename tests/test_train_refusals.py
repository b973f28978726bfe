"""What training refuses, in one sentence and before it leaves anything behind."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from image_files import make_folder
from processes import PLAIN, cli, refused, write_recipe
from small_jobs import images, job_on

from mindcv_mnasnet.errors import interrupts_wait, run_cli


@pytest.fixture
def recipe(tmp_path, digits):
    """Arguments of a small job: four steps of 16 digits, validation on 360."""
    path = write_recipe(tmp_path, PLAIN, data_dir=str(digits))
    return ("-c", path, "--ckpt_save_dir", tmp_path, "--run_name", "run")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--batchsize", "8"), "batch_size"),
        (("--lr", "-1"), "lr"),
        (("--scheduler", "cosine"), "cosine_decay"),
        (("--opt", "adam"), "does not exist here"),
        (("--aug_splits", "2"), "aug_splits"),
        (("--model", "mnasnet_10"), "mnasnet_100"),
        (("--batch_size", "65"), "64 training images do not fill one step of 65"),
        (("--num_classes", "5"), "num_classes"),
        (("--freeze", "3"), "freeze"),
        (("--in_channels", "2"), "in_channels"),
        (("--auto_augment", "randaug-x1"), "auto_augment"),
        (("--data_dir", ""), "data_dir"),
        (("--init_from", "no such.safetensors"), "no such.safetensors"),
        (("--device_target", "GPU"), "device_target"),
        (("--config", "no such.yaml"), "no such.yaml"),
        (("--config", "."), "."),
        (("--config", ""), "is empty"),
        (("--val_split", "test"), "val_split"),
        (("--epoch_size", "1e9"), "epoch_size"),
        (("--resume", "recipe of a test.yaml"), "recipe.yaml"),
        (("stray.yaml",), "stray.yaml"),
        (("--run_name", "a/b"), "run_name"),
        (("--min_lr", "1"), "min_lr"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes_are_one_sentence_and_leave_nothing(recipe, tmp_path, capsys, words, says):
    assert says in refused(capsys, *recipe, *words)
    assert not (tmp_path / "run").exists()


def test_an_npu_that_is_not_there_is_reported(recipe, capsys):
    if Path("/dev/davinci_manager").exists():
        pytest.skip("there is one")
    assert cli(*recipe, "--device_target", "Ascend") == 2
    assert "--device_target CPU" in capsys.readouterr().err.splitlines()[-1]  # MindSpore warns first, of CANN


def test_a_data_set_that_is_none_is_reported(tmp_path, digits, capsys):
    for folder, says in (
        (digits / "train", "no folder 'train'"),
        (digits / "train" / "3", "no folder 'train'"),
        (digits.parent, "no folder 'train'"),
        (tmp_path / "nowhere", "nowhere"),
        (make_folder(tmp_path / "one class", images("train", 3, classes=1)), "single class"),
        (make_folder(tmp_path / "other classes", images("train", 4) | images("val", 6, classes=3)), "c2"),
        (make_folder(tmp_path / "no images", {"train/a/x.txt": b"", "train/b/y.txt": b""}), "no images"),
    ):
        assert says in refused(capsys, *job_on(folder, tmp_path))


def test_a_place_that_cannot_be_written_is_reported(recipe, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert str(file) in refused(capsys, *recipe, "--ckpt_save_dir", file, code=1)


def test_missing_tensorboard_is_told_before_a_run_folder_is_made(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert "pip install" in refused(capsys, *recipe, "--tensorboard", "True")
    assert not (tmp_path / "run").exists()


def test_a_python_without_mindspore_is_reported(capsys, recipe, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("mindcv_mnasnet.train.engine")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mindspore", None)
    with suppress(AttributeError):
        monkeypatch.delattr("mindcv_mnasnet.train.engine")
    monkeypatch.delitem(sys.modules, "mindcv_mnasnet.devices.runtime", raising=False)
    sentence = refused(capsys, *recipe)
    assert "mindspore" in sentence
    assert sys.executable in sentence


def test_ctrl_c_waits_for_an_import_and_then_counts(capsys):
    def imports() -> int:
        nonlocal arrived
        with interrupts_wait():
            signal.raise_signal(signal.SIGINT)
            arrived = True
        return 0

    arrived, before = False, signal.getsignal(signal.SIGINT)
    assert run_cli(imports) == 130
    assert arrived
    assert signal.getsignal(signal.SIGINT) == before
    assert capsys.readouterr().err == "interrupted\n"


def test_spaces_and_letters_beyond_ascii_in_every_path(tmp_path):
    home = tmp_path / "Übung nº 1"
    folder = make_folder(home / "データ", images("train", 8) | images("val", 4))
    assert cli(*job_on(folder, home), "--run_name", "naïve 走") == 0
    assert cli("--resume", home / "naïve 走") == 0
    assert (home / "naïve 走" / "summary.json").is_file()
    assert os.fspath(folder) in (home / "naïve 走" / "recipe.yaml").read_text()
