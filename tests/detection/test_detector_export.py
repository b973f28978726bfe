"""Exported detectors, each run by its own runtime: raw answers, detections, what travels in the file, refusals."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import detector_files
import numpy as np
import pytest
from coco_files import colored_data_set
from processes import refused

from mindcv_mnasnet.commands import export as command
from mindcv_mnasnet.detection.anchors import anchors_of
from mindcv_mnasnet.errors import JobError
from mindcv_mnasnet.export.artifact import Artifact, open_artifact
from mindcv_mnasnet.export.backend import described
from mindcv_mnasnet.export.export import ExportReport, Options, export
from mindcv_mnasnet.run.checkpoint import read_checkpoint

NEEDED = {"onnx": ("onnx", "onnxruntime"), "tflite": ("tensorflow", "ai_edge_litert"), "mindir": ()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return colored_data_set(tmp_path_factory.mktemp("boxes") / "data")


@pytest.fixture(scope="module")
def detector(data, tmp_path_factory, cpu):
    return detector_files.write(tmp_path_factory.mktemp("detector") / "net.safetensors", data)


def exported(checkpoint: Path, data: Path, path: Path, **options) -> tuple[ExportReport, Artifact]:
    for module in NEEDED[path.suffix[1:]]:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    report = export(checkpoint, path, Options(path.suffix[1:], data_dir=str(data), **options))
    return report, open_artifact(path)


@pytest.mark.parametrize("form", NEEDED)
@pytest.mark.parametrize("taken", ["float", "uint8"])
def test_raw_answers_are_the_checkpoints(form, taken, detector, data, tmp_path):
    report, artifact = exported(detector, data, tmp_path / f"a.{form}", input=taken)
    assert report.images == 4
    assert report.difference < 1e-3
    assert report.agreement > 99.9
    logits, codes = artifact.outputs(np.zeros((3, 64, 64, 3), np.uint8))
    description = artifact.metadata.detector_description()
    assert logits.shape == (3, description.anchor_count(64), 3)
    assert codes.shape == (3, description.anchor_count(64), 4)


@pytest.mark.parametrize("form", ["onnx", "tflite"])
@pytest.mark.parametrize("loss", ["softmax", "focal"])
def test_files_that_suppress_find_what_the_host_finds(form, loss, data, tmp_path, cpu):
    keys = {"class_loss": loss, "min_score": 0.2, "max_boxes": 20, "nms_threshold": 0.5}
    checkpoint = detector_files.write(tmp_path / "net.safetensors", data, **keys)
    report, artifact = exported(checkpoint, data, tmp_path / f"a.{form}", nms=True)
    assert report.difference < 1e-4
    assert report.agreement > 95
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    for found in artifact.detections(pixels, artifact.metadata.post_process()):
        assert 0 < len(found) <= 20
        assert found.corners.min() >= 0
        assert found.corners.max() <= 1
        assert (np.diff(found.scores) <= 1e-7).all()
        assert found.scores.min() >= 0.2
        assert set(found.classes.tolist()) <= {0, 1}


def test_an_onnx_file_of_any_batch_answers_each_image_alike(detector, data, tmp_path):
    _, artifact = exported(detector, data, tmp_path / "a.onnx", batch=None)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    together = artifact.outputs(pixels)
    for number, image in enumerate(pixels):
        alone = artifact.outputs(image[None])
        assert all(np.allclose(a[number], b[0], atol=1e-5) for a, b in zip(together, alone, strict=True))


def test_anchors_classes_and_preparation_travel_in_the_file(detector, data, tmp_path):
    report, artifact = exported(detector, data, tmp_path / "a.mindir", evaluation={"mean": (1.0, 2.0, 3.0)})
    metadata, stored = artifact.metadata, read_checkpoint(detector)
    assert metadata == report.metadata
    assert metadata.mean == (1.0, 2.0, 3.0)
    assert metadata.class_names == detector_files.CLASSES
    assert tuple(metadata.detector["category_ids"]) == detector_files.CATEGORY_IDS
    assert np.allclose(metadata.detector["anchors"], anchors_of(stored.detector, 64), atol=1e-7)
    assert described(artifact).detector == stored.detector


def test_another_image_size_moves_the_anchors(detector, data, tmp_path):
    _, artifact = exported(detector, data, tmp_path / "a.mindir", image_size=96)
    stored = read_checkpoint(detector).detector
    assert len(artifact.metadata.detector["anchors"]) == stored.anchor_count(96) != stored.anchor_count(64)


def test_a_file_is_not_kept_where_nothing_is_found_that_could_be_compared(data, tmp_path, cpu):
    pytest.importorskip("onnxruntime")
    checkpoint = detector_files.write(tmp_path / "net.safetensors", data, min_score=0.999)
    with pytest.raises(JobError, match=r"above a score of 0\.999"):
        export(checkpoint, tmp_path / "a.onnx", Options("onnx", nms=True, data_dir=str(data)))
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("--format", "mindir", "--nms", "True"), "nms"),
        (("--format", "onnx", "--nms", "True", "--batch", 2), "nms"),
        (("--format", "onnx", "--quantize", "int8"), "quantize"),
        (("--format", "tflite", "--quantize", "fp16"), "quantize"),
    ],
)
def test_what_detectors_are_not_exported_with_is_refused_by_name(words, key, detector, data, tmp_path, capsys):
    output = tmp_path / f"a.{words[1]}"
    sentence = refused(capsys, detector, "--output", output, "--data_dir", data, *words, program=command)
    assert sentence.startswith(f"error: {key}: ")
