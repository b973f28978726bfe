"""tools/check_dataset.py finds every broken image, at any depth, and nothing else."""

from __future__ import annotations

import json

import pytest
from image_files import encode, flat, make_folder, scene

from mindcv_mnasnet.commands import check_dataset
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
    assert json.loads(capsys.readouterr().out) == {"pictures": 2, "bad": []}


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
