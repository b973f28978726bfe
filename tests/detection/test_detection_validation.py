"""Detectors validated by the command: numbers, results file, CSV, and those of exported files."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
from coco_files import colored_data_set
from processes import cli, refused
from tiny_detector import BACKBONE, recipe, stored, words

import validate
from mindcv_mnasnet.commands import convert
from mindcv_mnasnet.detection.evaluation import NAMES
from mindcv_mnasnet.export.export import Options, export
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


def test_a_skipped_image_counts_neither_for_nor_against_a_detector(trained, tmp_path):
    data, folder, _ = trained
    copies = [shutil.copytree(data, tmp_path / name) for name in ("less", "broken")]
    file = copies[0] / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    gone = content["images"].pop(1)
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != gone["id"]]
    file.write_text(json.dumps(content))
    (copies[1] / "val" / gone["file_name"]).write_bytes(b"broken")
    rows = []
    for copy in copies:
        given = ("--ckpt_path", stored(folder, 120).path, "--data_dir", copy, "--on_bad_image", "skip")
        assert cli(*given, "--json", tmp_path / "a.json", program=validate) == 0
        rows += json.loads((tmp_path / "a.json").read_text())
    assert [(row["images"], row["skipped"]) for row in rows] == [(3, 0), (3, 1)]
    assert {name: rows[0][name] for name in NAMES} == {name: rows[1][name] for name in NAMES}


def test_keys_of_boxes_count_in_validation_and_a_classifiers_are_refused(trained, tmp_path, capsys):
    path = stored(trained[1], 120).path
    found = tmp_path / "few.json"
    assert cli("--ckpt_path", path, "--max_boxes", 1, "--results", found, program=validate) == 0
    images = [one["image_id"] for one in json.loads(found.read_text())]
    assert len(images) == len(set(images)) > 0
    assert "crop_pct: 0.5" in refused(capsys, "--ckpt_path", path, "--crop_pct", 0.5, program=validate)


def test_a_conversion_refuses_a_detector_by_name(trained, tmp_path, capsys):
    path = stored(trained[1], 120).path
    assert f"{path} is a detector" in refused(capsys, path, tmp_path / "a.pth", "--to", "timm", program=convert)


@pytest.mark.parametrize(
    ("form", "nms"), [("mindir", False), ("onnx", False), ("onnx", True), ("tflite", False), ("tflite", True)]
)
def test_an_exported_file_has_the_precision_of_its_checkpoint(form, nms, trained, tmp_path, capsys):
    for module in {"onnx": ("onnx", "onnxruntime"), "tflite": ("tensorflow", "ai_edge_litert")}.get(form, ()):
        pytest.importorskip(module)
    data, folder, summary = trained
    file, found = tmp_path / f"a.{form}", tmp_path / "a.json"
    export(stored(folder, 120).path, file, Options(form, nms=nms, data_dir=str(data)))
    assert cli(file, "--data_dir", data, "--json", found, program=validate) == 0
    (row,) = json.loads(found.read_text())
    assert abs(row["ap"] - summary["ap"]) < 0.1
    assert row["images"] == 4
    if nms:
        assert "max_boxes: " in refused(capsys, file, "--data_dir", data, "--max_boxes", 1, program=validate)


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
