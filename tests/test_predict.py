"""Predictions are validation's, for any model file, and a bad image stops nothing."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys

import exported
import numpy as np
import pytest
from PIL import Image
from processes import ROOT, captured

from mindcv_mnasnet.commands import predict as command
from mindcv_mnasnet.data.decoder import decode_whole
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.export.export import Options, export
from mindcv_mnasnet.inference import image_paths, predict, validation
from mindcv_mnasnet.inference.contact_sheet import contact_sheet
from mindcv_mnasnet.inference.evaluate import validate
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.run.checkpoint import read_checkpoint, write_checkpoint

pytestmark = pytest.mark.usefixtures("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory, digits):
    return exported.write(tmp_path_factory.mktemp("model") / "net.safetensors", digits, "tiny")


def process(*words, **options):
    program = [sys.executable, str(ROOT / "tools" / "predict.py"), *map(str, words)]
    return subprocess.run(program, capture_output=True, text=True, check=False, **options)


def tool(*words):
    """The same in this process."""
    return captured(*words, program=command)


def test_they_are_right_as_often_as_validation_says(model, digits):
    (result,), _ = validation.validate([model], None, {})
    classifier = predict.open_classifier(str(model), batch_size=7)
    paths = image_paths.find_images([str(digits / "val")])
    right = seen = 0
    for numbers, images in classifier.opened.batches(paths):
        for number, logits in zip(numbers, classifier.logits(images), strict=True):
            (best,) = predict.best_classes(classifier, paths[number], logits, 1).classes
            right += best == paths[number].split("/")[-2]
            seen += 1
    assert seen == result.counts.seen == 360
    assert right == result.counts.top1_hits


def test_every_image_has_its_classes_and_a_bad_one_is_reported(model, digits, tmp_path):
    (tmp_path / "bad.png").write_text("no image")
    Image.new("L", (300, 20)).save(tmp_path / "gray.png")
    Image.new("CMYK", (20, 300)).save(tmp_path / "cmyk.jpg")
    done = tool(model, tmp_path, digits / "val" / "3", "--format", "jsonl", "--top", 3)
    assert done.returncode == 1
    assert "bad.png" in done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 2 + len(list((digits / "val" / "3").iterdir()))
    for row in rows:
        shares = [one["probability"] for one in row["top"]]
        assert len(shares) == 3
        assert shares == sorted(shares, reverse=True)


def test_names_come_from_standard_input_and_a_table_goes_to_a_file(model, digits, tmp_path):
    names = sorted(str(path) for path in (digits / "val" / "5").iterdir())[:3]
    words = (model, "-", "--format", "csv", "--top", 2, "--output", tmp_path / "out.csv")
    done = process(*words, "--contact_sheet", tmp_path / "sheet.png", input="\n".join(names))
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [row["path"] for row in rows] == [name for name in names for _ in range(2)]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 160


def test_a_name_of_nothing_on_standard_input_ends_only_itself(model, digits):
    name = sorted(str(path) for path in (digits / "val" / "5").iterdir())[0]
    done = process(model, "-", "--format", "jsonl", input=f"nowhere.png\n{name}\n")
    assert done.returncode == 1
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == [name]
    assert "failed: nowhere.png" in done.stderr


def test_a_closed_standard_input_has_no_names(model, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="standard input has no names"):
        command.main([str(model), "-"])


def test_names_that_are_no_utf8_are_escaped_in_files(model, digits, tmp_path):
    image = os.fsdecode(os.fsencode(tmp_path) + b"/gr\xf6\xdfe.png")
    shutil.copy(next((digits / "val" / "5").iterdir()), image)
    assert tool(model, image, "--output", tmp_path / "out.txt").returncode == 0
    assert r"gr\udcf6\udcdfe.png" in (tmp_path / "out.txt").read_text()


def test_a_network_of_two_channels_answers_no_images(tmp_path, digits, monkeypatch):
    """MindSpore would compile it, fail in many lines, and leave a folder behind."""
    monkeypatch.chdir(tmp_path)
    path = exported.write(tmp_path / "two.safetensors", digits, "tiny", in_channels=2, image_size=16)
    create_model(read_checkpoint(path).network)
    image = str(next((digits / "val").rglob("*.png")))
    with pytest.raises(UserError, match="in_channels: 2; images are read as 3"):
        predict.open_classifier(str(path)).predict([image])
    with pytest.raises(UserError, match="in_channels: 2; images are read as 3"):
        validate(path, data_dir=str(digits))
    with pytest.raises(UserError, match="in_channels: 2; images are read as 3"):
        export(path, tmp_path / "two.mindir", Options("mindir"))
    assert [one.name for one in tmp_path.iterdir()] == ["two.safetensors"]


def test_the_contact_sheet_shows_what_the_network_saw_in_the_format_of_its_suffix(tmp_path):
    seen = np.full((24, 24, 3), (200, 10, 10), np.uint8)
    assert contact_sheet(tmp_path / "sheet.jpg", [(seen, "cat.png\ncat\n99.0 %"), (seen[..., :1], "gray")]) == 2
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.format == "JPEG"
        assert np.abs(np.array(sheet)[50, 50].astype(int) - (200, 10, 10)).max() < 8
    with pytest.raises(UserError, match="contact_sheet"):
        contact_sheet(tmp_path / "sheet.txt", [])


def test_images_can_be_prepared_otherwise(model, digits):
    paths = image_paths.find_images([str(digits / "val" / "2")])
    first = {}
    for keys in ({}, {"mean": [0, 0, 0]}, {"crop_pct": 0.6}):
        ((one, *_), _), *_ = predict.open_classifier(str(model), evaluation=keys).predictions(paths, 10)
        first[str(keys)] = one.probabilities
    assert len(set(first.values())) == 3


def test_gray_images_of_16_bits_keep_their_upper_8(tmp_path):
    ramp = np.arange(64 * 64).reshape(64, 64).astype(np.uint16) * 16
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray((ramp >> 8).astype(np.uint8)).save(tmp_path / "plain.png")
    deep, plain = (decode_whole((tmp_path / name).read_bytes(), name) for name in ("deep.png", "plain.png"))
    assert np.array_equal(deep, plain)


def test_a_checkpoint_with_another_number_of_names_than_answers_is_refused(model, tmp_path):
    stored = read_checkpoint(model)
    write_checkpoint(tmp_path / "net.safetensors", stored.tensors, {**stored.meta, "class_names": ["a", "b"]})
    with pytest.raises(UserError, match="names 2 classes and answers 10"):
        predict.open_classifier(str(tmp_path / "net.safetensors"))


def test_weights_that_are_not_finite_are_no_answer(model, tmp_path):
    stored = read_checkpoint(model)
    broken = {**stored.tensors, "classifier.bias": np.full(10, np.nan, np.float32)}
    write_checkpoint(tmp_path / "net.safetensors", broken, stored.meta)
    with pytest.raises(UserError, match=r"classifier\.bias has values that are not finite"):
        predict.open_classifier(str(tmp_path / "net.safetensors"))
    with pytest.raises(UserError, match=r"classifier\.bias has values that are not finite"):
        validation.validate([tmp_path / "net.safetensors"], None, {})
    with pytest.raises(JobError, match="not finite"):
        predict.best_classes(predict.open_classifier(str(model)), "x.png", np.full(10, np.nan), 1)


def test_weights_of_another_library_are_used_as_they_are(model, digits, tmp_path):
    from mindcv_mnasnet.weights.convert import convert

    names = list("0123456789")
    stored = exported.write(tmp_path / "b1.safetensors", digits, "b1", width_mult=0.5, head=1280, bn_eps=1e-3)
    convert(stored, tmp_path / "x.ckpt")
    (row,), _ = validation.validate([tmp_path / "x.ckpt"], None, {"dataset": "digits", "data_dir": str(digits)})
    assert row.counts.seen == 360
    classifier = predict.open_classifier(str(tmp_path / "x.ckpt"))
    assert classifier.class_names == tuple(names)


def test_features_are_what_the_classifier_sees(model, digits, tmp_path):
    done = tool(model, digits / "val" / "0", "--features", tmp_path / "f.npz", "--format", "jsonl", "--top", 10)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "f.npz")
    weights = exported.read_weights(model)
    logits = found["features"] @ weights["classifier.weight"].T + weights["classifier.bias"]
    best = [json.loads(line)["top"][0]["class"] for line in done.stdout.splitlines()]
    assert [str(row.argmax()) for row in logits] == best
    assert len(found["names"]) == len(best)


def test_rows_of_features_have_names_where_their_file_has_no_room_for_them(model, digits, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(digits / "val" / "0", folder)
    broken = sorted(folder.iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:40])
    assert tool(model, folder, "--features", tmp_path / "f.npy").returncode == 1
    names = json.loads((tmp_path / "f.names.json").read_text())
    assert len(names) == len(np.load(tmp_path / "f.npy")) == len(list(folder.iterdir())) - 1
    assert str(broken) not in names


def test_feature_maps_have_the_reductions_of_the_network(model, digits, tmp_path):
    done = tool(model, digits / "val" / "0", "--features", tmp_path / "m.npz", "--feature_maps")
    assert done.returncode == 0, done.stderr
    maps = np.load(tmp_path / "m.npz")
    sides = [maps[f"map_{number}"].shape[-1] for number in range(len(maps) - 1)]
    assert sides == [12, 6, 3, 2, 1][: len(sides)]
    assert len(sides) >= 4


@pytest.mark.parametrize("backend", ["onnxruntime", "litert"])
def test_other_runtimes_predict_the_same(model, digits, backend):
    for module in {"onnxruntime": ("onnx", "onnxruntime"), "litert": ("tensorflow", "ai_edge_litert")}[backend]:
        pytest.importorskip(module)
    paths = image_paths.find_images([str(digits / "val" / "1")])
    ours, theirs = predict.open_classifier(str(model)), predict.open_classifier(str(model), backend)
    for _, images in ours.opened.batches(paths):
        np.testing.assert_allclose(theirs.logits(images), ours.logits(images), rtol=1e-3, atol=1e-4)
    (row,), _ = validation.validate([model], None, {}, backend=backend)
    (own,), _ = validation.validate([model], None, {})
    assert (row.backend, row.counts.top1_hits) == (backend, own.counts.top1_hits)


def test_an_exported_file_is_validated_itself(model, tmp_path, digits):
    report = export(model, tmp_path / "net.mindir", Options("mindir", batch=7, check_images=5))
    rows, _ = validation.validate([model, report.path], None, {})
    assert [row.counts.seen for row in rows] == [360, 360]
    assert rows[0].counts.top1_hits == rows[1].counts.top1_hits
    for keys, said in (({"mean": [1, 2, 3]}, "mean"), ({"quantize": True}, "quantize")):
        with pytest.raises(UserError, match=said):
            validation.validate([report.path], None, keys)
    with pytest.raises(UserError, match="weights: ema ones"):
        validation.validate([report.path], None, {}, ema=True)
    with pytest.raises(UserError, match="backend: litert"):
        validation.validate([report.path], None, {}, backend="litert")
    with pytest.raises(UserError, match="std"):
        predict.open_classifier(str(report.path), evaluation={"std": [1, 2, 3]})
    with pytest.raises(UserError, match="compiled already"):
        validation.validate([report.path], None, {"padding": "same"})
    with pytest.raises(UserError, match="takes images of shape"):
        validation.validate([report.path], None, {"image_resize": 32})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "nowhere"),
        (("{val}", "--top", "0"), "top"),
        (("{val}", "--features", "x.txt"), "features"),
        (("{val}", "--feature_maps"), "feature_maps"),
        (("{val}", "--backend", "abacus"), "backend"),
        (("{val}", "--batch_size", "0"), "batch_size"),
        (("{val}", "--crop_pct", "2"), "crop_pct"),
        (("{val}", "--contact_sheet", "x.txt"), "contact_sheet"),
    ],
)
def test_mistakes_are_one_sentence(model, digits, words, said):
    done = tool(model, *(word.format(val=digits / "val") for word in words))
    assert done.returncode == 2
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert said in sentence
