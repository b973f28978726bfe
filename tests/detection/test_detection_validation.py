"""Detectors validated by the command: numbers, results file, CSV; commands for classifiers refuse them by name."""

from __future__ import annotations

import csv
import json

import pytest
from coco_files import colored_data_set
from processes import cli, refused
from tiny_detector import BACKBONE, recipe, stored, words

import validate
from mindcv_mnasnet.commands import convert, export, predict
from mindcv_mnasnet.detection.evaluation import NAMES
from mindcv_mnasnet.run.curves import draw_curves
from mindcv_mnasnet.train.engine import fit


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cpu):
    """(data set, folder of a run, its summary) of a detector that has learned something."""
    folder = tmp_path_factory.mktemp("trained")
    data = colored_data_set(folder / "data")
    return data, folder, fit(recipe(data, folder, epoch_size=40, val_interval=40, bn_momentum=0.5, lr=0.1))


def test_validation_gives_the_numbers_of_training_and_those_of_the_judge(trained, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    data, folder, summary = trained
    path = stored(folder, 120).path
    found, detections, table = tmp_path / "a.json", tmp_path / "detections.json", tmp_path / "a.csv"
    given = ("--ckpt_path", path, "--json", found, "--results", detections, "--csv", table)
    assert cli(*given, program=validate) == 0
    assert cli(*given, "--val_batch_size", 3, program=validate) == 0
    (row,) = json.loads(found.read_text())
    assert row["ap"] == summary["ap"] > 0
    assert row["images"] == 4
    assert set(row["ap50_of"]) == {"class 1", "class 2"}
    truth = coco.COCO(str(data / "annotations" / "instances_val.json"))
    judge = COCOeval(truth, truth.loadRes(str(detections)), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    expected = [100 * value if value >= 0 else None for value in judge.stats]
    assert [row[name] for name in NAMES] == [None if one is None else pytest.approx(one, abs=1e-4) for one in expected]
    first, second = csv.DictReader(table.read_text().splitlines())
    assert {name: first[name] for name in NAMES} == {name: second[name] for name in NAMES}
    assert row["reported"]["comparable"] is False


def test_keys_of_boxes_count_in_validation_and_a_classifiers_are_refused(trained, tmp_path, capsys):
    path = stored(trained[1], 120).path
    found = tmp_path / "few.json"
    assert cli("--ckpt_path", path, "--max_boxes", 1, "--results", found, program=validate) == 0
    images = [one["image_id"] for one in json.loads(found.read_text())]
    assert len(images) == len(set(images)) > 0
    assert "crop_pct: 0.5" in refused(capsys, "--ckpt_path", path, "--crop_pct", 0.5, program=validate)


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (predict, ("{model}", "{image}")),
        (export, ("{model}", "--format", "onnx", "--output", "{folder}/a.onnx")),
        (convert, ("{model}", "{folder}/a.pth", "--to", "timm")),
    ],
    ids=["predict", "export", "convert"],
)
def test_commands_for_classifiers_refuse_a_detector_by_name(program, arguments, trained, tmp_path, capsys):
    data, folder, _ = trained
    known = {"model": str(stored(folder, 120).path), "image": str(data / "val" / "0.png"), "folder": str(tmp_path)}
    sentence = refused(capsys, *(one.format(**known) for one in arguments), program=program)
    assert f"{known['model']} is a detector" in sentence


def test_a_classifier_does_not_start_from_a_detector(trained, digits, tmp_path, capsys):
    places = {"dataset": "digits", "data_dir": digits, "ckpt_save_dir": tmp_path, "image_resize": 32}
    start = ("--init_from", stored(trained[1], 120).path)
    assert "is a detector" in refused(capsys, *words(BACKBONE | places), *start)


def test_curves_show_the_precision(trained, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    titles = []
    monkeypatch.setattr(Axes, "set_ylabel", lambda self, text, **_: titles.append(text))
    records = [{"kind": "epoch", "step": step, "val_ap": 1.0 * step} for step in (1, 2)]
    draw_curves(records, tmp_path / "curves.png")
    assert "AP (%)" in titles
