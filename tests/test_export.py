"""Exported files answer as their checkpoint does, by their own runtime, or are not kept."""

from __future__ import annotations

import dataclasses
import json

import exported
import numpy as np
import pytest
from exported import need
from processes import ROOT, captured, run

from mindcv_mnasnet.commands import export as command
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.export import export as exporting
from mindcv_mnasnet.export.artifact import SUFFIXES, open_artifact
from mindcv_mnasnet.export.export import Options, checkpoint_logits, export
from mindcv_mnasnet.export.folded import fold
from mindcv_mnasnet.export.metadata import ModelMetadata
from mindcv_mnasnet.latency.timing import measure
from mindcv_mnasnet.run.checkpoint import read_checkpoint, write_checkpoint

pytestmark = pytest.mark.usefixtures("cpu")
FORMATS = ("onnx", "tflite", "mindir")
NETWORKS = {
    "a1": {},
    "b1": {"padding": "same"},
    "small": {"image_size": 33},
    "d1": {"width_mult": 0.35, "image_size": 25, "padding": "same"},
}


@pytest.fixture
def checkpoint(tmp_path, digits):
    return exported.write(tmp_path / "net.safetensors", digits)


@pytest.fixture
def tiny(tmp_path, digits):
    return exported.write(tmp_path / "net.safetensors", digits, "tiny")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("family", NETWORKS)
def test_every_network_answers_as_its_checkpoint(tmp_path, digits, form, family):
    need(form)
    path = exported.write(tmp_path / "net.safetensors", digits, family, **NETWORKS[family])
    report = export(path, tmp_path / f"net.{form}", Options(form, check_images=20))
    assert report.images == 20
    assert report.difference < 1e-4
    assert report.agreement == 100


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
def test_raw_pixels_can_go_in(tmp_path, digits, form, channels):
    need(form)
    path = exported.write(tmp_path / "net.safetensors", digits, "tiny", in_channels=channels)
    report = export(path, tmp_path / f"net.{form}", Options(form, input="uint8", batch=3, check_images=10))
    assert report.difference < 1e-4
    assert open_artifact(report.path).metadata.input == "uint8"


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_the_number_of_images_can_stay_open(tmp_path, checkpoint, form):
    need(form)
    report = export(checkpoint, tmp_path / f"net.{form}", Options(form, batch=None, check_images=10))
    artifact = open_artifact(report.path, threads=1)
    images = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), np.uint8)
    assert artifact.batch is None
    one_by_one = np.concatenate([artifact.logits(image[None]) for image in images])
    np.testing.assert_allclose(artifact.logits(images), one_by_one, rtol=1e-4, atol=1e-5)


def test_an_image_size_of_its_own_takes_the_short_side_along(tmp_path, tiny):
    """What repeats size / crop_pct follows; what was given by hand stays, and is refused where it is too small."""
    stored = read_checkpoint(tiny)
    for kept, expected in ((24, 16), (30, 30)):
        meta = {**stored.meta, "recipe": {**stored.meta["recipe"], "val_resize": kept}}
        write_checkpoint(tmp_path / "other.safetensors", stored.tensors, meta)
        options = Options("mindir", image_size=16, check_images=5, overwrite=True)
        recipe = export(tmp_path / "other.safetensors", tmp_path / "net.mindir", options).metadata.own_recipe()
        assert recipe.short_side() == expected
    with pytest.raises(UserError, match="val_resize"):
        export(tmp_path / "other.safetensors", tmp_path / "net.mindir", dataclasses.replace(options, image_size=40))


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, checkpoint):
    stored = read_checkpoint(checkpoint)
    for name, value in (("head.bn.gamma", np.nan), ("stem.bn.moving_variance", -1.0)):
        broken = {**stored.tensors, name: np.full_like(stored.tensors[name], value)}
        write_checkpoint(tmp_path / "broken.safetensors", broken, stored.meta)
        with pytest.raises(UserError, match=name):
            export(tmp_path / "broken.safetensors", tmp_path / "net.mindir", Options("mindir"))


def test_files_carry_what_wordnet_ids_mean(checkpoint, tmp_path):
    stored = read_checkpoint(checkpoint)
    ids = ("n01440764", *(f"own {number}" for number in range(9)))
    metadata = ModelMetadata.of(dataclasses.replace(stored, meta={**stored.meta, "class_names": ids}))
    assert metadata.class_titles[:2] == ("tench", "own 0")
    older = {key: value for key, value in json.loads(metadata.to_json()).items() if key != "class_titles"}
    assert ModelMetadata.from_json(json.dumps(older), tmp_path).class_names == ids


@pytest.mark.parametrize("form", FORMATS)
def test_classes_may_have_names_that_are_no_utf8(tmp_path, tiny, form):
    need(form)
    stored = read_checkpoint(tiny)
    names = ["gr\udcf6\udcdfe", *stored.class_names[1:]]
    path = tmp_path / "named.safetensors"
    write_checkpoint(path, stored.tensors, {**stored.meta, "class_names": names})
    export(path, tmp_path / f"net.{form}", Options(form, check_images=4))
    assert list(open_artifact(tmp_path / f"net.{form}").metadata.class_names) == names


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_answers_otherwise_is_not_kept(tmp_path, tiny, form, monkeypatch):
    need(form)

    def wrong(*arguments):
        return checkpoint_logits(*arguments) * 1.01

    monkeypatch.setattr(exporting, "checkpoint_logits", wrong)
    with pytest.raises(JobError, match="not kept"):
        export(tiny, tmp_path / f"net.{form}", Options(form, check_images=10))
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options("onnx", quantize="fp16"), "quantize"),
        (Options("mindir", quantize="int8"), "quantize"),
        (Options("mindir", batch=None), "dynamic_batch"),
        (Options("air"), "Ascend"),
        (Options("caffe"), "format"),
        (Options("onnx", batch=0), "batch"),
        (Options("mindir", image_size=0), "image_size"),
        (Options("mindir", check_images=-3), "check_images"),
        (Options("onnx", "int8", calibration_images=0), "calibration_images"),
        (Options("mindir", min_agreement=float("nan")), "min_agreement"),
        (Options("tflite", "int8", weight_bits=7), "weight_bits"),
        (Options("mindir", evaluation={"val_resize": 20, "eval_crop": "tf_square"}), "eval_crop"),
    ],
)
def test_what_cannot_be_is_refused_with_nothing_written(tmp_path, checkpoint, options, said):
    with pytest.raises(UserError, match=said):
        export(checkpoint, tmp_path / f"net.{options.format}", options)
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_a_number_of_images_is_not_left_open_as_well(tmp_path, checkpoint):
    with pytest.raises(UserError, match="batch: --dynamic_batch leaves"):
        command.main([str(checkpoint), "--format", "onnx", "--batch", "1", "--dynamic_batch"])
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_a_file_that_is_there_is_not_overwritten_unasked(tmp_path, tiny):
    (tmp_path / "net.mindir").write_text("mine")
    with pytest.raises(UserError, match="there already"):
        export(tiny, tmp_path / "net.mindir", Options("mindir"))
    assert (tmp_path / "net.mindir").read_text() == "mine"
    export(tiny, tmp_path / "net.mindir", Options("mindir", overwrite=True, check_images=5))


@pytest.mark.parametrize("name", ["w[1]", "w *", "Wörter?"])
def test_a_name_with_marks_of_a_pattern_is_kept_as_it_is(tmp_path, tiny, name):
    (tmp_path / "w1.mindir").write_text("another")
    export(tiny, tmp_path / f"{name}.mindir", Options("mindir", check_images=5))
    kept = {f"{name}.mindir", f"{name}.mindir.json", "w1.mindir", "net.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert open_artifact(tmp_path / f"{name}.mindir").metadata.class_names == exported.CLASSES


def test_real_images_are_asked_for(tmp_path, checkpoint):
    stored = read_checkpoint(checkpoint)
    meta = {**stored.meta, "recipe": {**stored.meta["recipe"], "dataset": "imagenet"}}
    write_checkpoint(tmp_path / "imagenet.safetensors", stored.tensors, meta)
    with pytest.raises(UserError, match="data_dir"):
        export(tmp_path / "imagenet.safetensors", tmp_path / "net.mindir", Options("mindir"))


@pytest.mark.parametrize("form", FORMATS)
def test_files_name_no_place_of_the_machine_that_made_them(tmp_path, digits, checkpoint, form):
    need(form)
    stored = read_checkpoint(checkpoint)
    places = {name: str(tmp_path / name) for name in ("init_from", "ckpt_save_dir", "val_labels")}
    data = {"train": None, "val": None}
    meta = {**stored.meta, "recipe": {**stored.meta["recipe"], **places}, "data": data}
    write_checkpoint(tmp_path / "run.safetensors", stored.tensors, meta)
    options = Options(form, data_dir=str(digits), check_images=5)
    report = export(tmp_path / "run.safetensors", tmp_path / f"net.{form}", options)
    metadata = open_artifact(report.path).metadata
    assert str(tmp_path) not in metadata.to_json()
    assert str(digits) not in metadata.to_json()
    assert metadata.data == data
    for file in tmp_path.glob("net.*"):
        assert str(digits).encode() not in file.read_bytes() or file.name == "net.safetensors"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files_are_refused(tmp_path, tiny, suffix):
    need(suffix[1:])
    report = export(tiny, tmp_path / f"net{suffix}", Options(suffix[1:], check_images=5))
    whole = report.path.read_bytes()
    for keep in (0.0, 0.5, 0.99):
        report.path.write_bytes(whole[: int(keep * len(whole))])
        with pytest.raises(UserError, match=str(report.path)):
            open_artifact(report.path)


def test_a_mindir_file_with_damaged_words_is_refused(tmp_path, tiny):
    report = export(tiny, tmp_path / "net.mindir", Options("mindir", check_images=5))
    described = tmp_path / "net.mindir.json"
    for content in (b"\xff\xfe\x00", b"\x80\x81", described.read_bytes()[:100], b""):
        described.write_bytes(content)
        with pytest.raises(UserError, match=r"net\.mindir\.json was exported by another version or is damaged"):
            open_artifact(report.path)


def test_an_onnx_file_of_another_project_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save_model(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), str(tmp_path / "other.onnx"))
    with pytest.raises(UserError, match="not exported by mindcv_mnasnet"):
        open_artifact(tmp_path / "other.onnx")


def test_a_card_goes_round_as_text(checkpoint, tmp_path):
    metadata = ModelMetadata.of(read_checkpoint(checkpoint), input="uint8", batch=None)
    assert ModelMetadata.from_json(metadata.to_json(), tmp_path) == dataclasses.replace(metadata)
    for text in ("", "{}", "[]", json.dumps({"recipe": {}})):
        with pytest.raises(UserError, match="another version or is damaged"):
            ModelMetadata.from_json(text, tmp_path)


def test_folding_names_what_is_missing(checkpoint):
    stored = read_checkpoint(checkpoint)
    lacking = {name: value for name, value in stored.tensors.items() if name != "head.bn.gamma"}
    with pytest.raises(UserError, match=r"head\.bn\.gamma"):
        fold(stored.network, lacking)


def test_latency_is_of_the_calls_asked_for(tmp_path, tiny):
    report = export(tiny, tmp_path / "net.mindir", Options("mindir", check_images=5))
    latency = measure(open_artifact(report.path), repetitions=7, warm_up=1)
    assert latency.repetitions == 7
    assert 0 < latency.least_ms <= latency.median_ms <= latency.p90_ms
    with pytest.raises(UserError, match="batch_size"):
        measure(open_artifact(report.path), batch=2)


def test_the_command_line_exports_and_says_how_equal_it_is(tmp_path, tiny):
    done = run(tiny, "--format", "mindir", "--check_images", "5", cwd=tmp_path, program=ROOT / "tools" / "export.py")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "net.mindir").is_file()
    assert "same best class 100.00 %" in done.stdout
    for words, said in (((), "there already"), (("--calibration_images", "5"), "calibration_images")):
        again = captured(tiny, "--format", "mindir", "--output", tmp_path / "net.mindir", *words, program=command)
        assert again.returncode == 2
        assert said in again.stderr
