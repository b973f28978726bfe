"""tools/check_dataset.py finds every broken image, at any depth, and nothing else."""

from __future__ import annotations

import json

import pytest
from image_files import encode, flat, make_folder, scene
from PIL import Image

from mindcv_mnasnet.commands import check_dataset
from mindcv_mnasnet.data.decoder import decode_whole
from mindcv_mnasnet.data.index import list_folder
from mindcv_mnasnet.errors import run_cli

SOUND = {
    "train/a/1.jpg": encode(scene(), "JPEG"),
    "train/b/cmyk.jpg": encode(scene().convert("CMYK"), "JPEG"),
    "x.txt": b"",
}
BROKEN = {"train/a/cut.jpg": encode(scene(), "JPEG")[:-20], "val/empty.png": b"", "val/page.JPEG": b"<html>"}


def check(*arguments):
    return run_cli(lambda: check_dataset.main([str(argument) for argument in arguments]))


def test_sound_images_pass(tmp_path, capsys):
    make_folder(tmp_path, SOUND)
    assert check(tmp_path, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["images"], result["bad"], result["refusal"]) == (2, [], None)
    assert ".txt (1)" in result["notes"][0]


def test_every_broken_image_is_listed_with_a_reason(tmp_path, capsys):
    make_folder(tmp_path, SOUND | BROKEN)
    assert check(tmp_path, "--json") == 1
    result = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in result["bad"]] == sorted(BROKEN)
    assert all(one["reason"] for one in result["bad"])
    assert check(tmp_path) == 1
    printed = capsys.readouterr().out
    assert all(name in printed for name in BROKEN)


@pytest.mark.parametrize("workers", ["1", "0"])
def test_wrong_use_is_told_apart_from_broken_images(tmp_path, workers):
    assert check(tmp_path / "nowhere") == 2
    assert check(tmp_path) == 2
    make_folder(tmp_path, {"1.png": flat(1)})
    assert check(tmp_path, "--workers", workers) == (0 if workers == "1" else 2)


@pytest.mark.parametrize(
    "images",
    [
        {"train/a/1.png": flat(1), "train/b/notes.txt": b""},  # a class without images
        {"train/a/1.png": flat(1)},  # one class
        {"train/a/1.png": flat(1), "train/b/1.png": flat(1), "val/c/1.png": flat(1)},  # a class of its own in val
        {"train/a/1.png": flat(1), "train/b/1.png": flat(1), "val/1.png": flat(1)},  # labels that nobody gave
        {"a/1.png": flat(1), "b/deeper/1.png": flat(1)},
    ],
)
def test_what_training_refuses_is_not_called_sound(images, tmp_path, capsys):
    make_folder(tmp_path, images)
    assert check(tmp_path, "--json") == 1
    result = json.loads(capsys.readouterr().out)
    assert result["refusal"]
    assert result["bad"] == []


def test_the_verdict_on_an_image_is_that_of_training_not_of_pillows_limit(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # as a photograph of 200 megapixels is to the true limit
    make_folder(tmp_path, {"train/a/1.jpg": SOUND["train/a/1.jpg"], "train/b/2.jpg": encode(scene(), "JPEG")})
    index = list_folder(tmp_path / "train")
    assert all(decode_whole(index.read(number), "").shape == (30, 40, 3) for number in range(2))
    assert check(tmp_path) == 0
    assert "all 2 images" in capsys.readouterr().out


def test_labels_of_a_flat_folder_and_what_is_left_out_are_looked_at(tmp_path, capsys):
    make_folder(
        tmp_path, {"train/a/1.png": flat(1), "train/b/1.png": flat(1), "train/b/x.txt": b"", "val/1.png": flat(1)}
    )
    (tmp_path / "labels.txt").write_text("1.png b\n")
    assert check(tmp_path, "--val_labels", tmp_path / "labels.txt") == 0
    assert "1 files that are not images: .txt (1)" in capsys.readouterr().out


def test_a_pack_is_named_as_one(tmp_path, capsys):
    make_folder(tmp_path, {"train/dataset.json": b'{"format": 1, "classes": [], "shards": []}'})
    assert check(tmp_path) == 2
    assert "--verify" in capsys.readouterr().err
