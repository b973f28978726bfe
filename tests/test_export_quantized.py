"""Exported files of 8 bits and less: smaller, nearly as their checkpoint, within bounds of their own."""

from __future__ import annotations

import exported
import numpy as np
import pytest
from exported import need

from mindcv_mnasnet.errors import JobError
from mindcv_mnasnet.export import export as exporting
from mindcv_mnasnet.export import onnx_int8
from mindcv_mnasnet.export.artifact import open_artifact
from mindcv_mnasnet.export.export import Options, checkpoint_logits, export
from mindcv_mnasnet.run.checkpoint import read_checkpoint, write_checkpoint

pytestmark = pytest.mark.usefixtures("cpu")


@pytest.fixture
def checkpoint(tmp_path, digits):
    return exported.write(tmp_path / "net.safetensors", digits)


@pytest.mark.parametrize(
    ("form", "kind"), [("onnx", "int8"), ("tflite", "int8"), ("tflite", "dynamic"), ("tflite", "fp16")]
)
@pytest.mark.parametrize("pixels", ["float", "uint8"])
def test_quantized_files_are_smaller_and_nearly_agree(tmp_path, checkpoint, form, kind, pixels):
    need(form)
    options = Options(form, quantize=kind, input=pixels, check_images=50, calibration_images=50, min_agreement=0)
    whole = export(checkpoint, tmp_path / f"whole.{form}", Options(form, check_images=5))
    report = export(checkpoint, tmp_path / f"net.{form}", options)
    assert report.megabytes < 0.8 * whole.megabytes
    assert report.difference < 1.5
    assert report.agreement >= 70


@pytest.mark.parametrize(("bits", "most"), [(None, 64), (8, 127)])
def test_weights_of_onnx_cannot_saturate_without_vnni_unless_told(tmp_path, checkpoint, bits, most):
    """Two products of uint8 x 7 bits add up in 16 bits: 2 x 255 x 64 < 32768; 2 x 255 x 127 do not."""
    need("onnx")
    onnx = pytest.importorskip("onnx")
    options = Options("onnx", "int8", check_images=5, calibration_images=20, min_agreement=0, weight_bits=bits)
    model = onnx.load(str(export(checkpoint, tmp_path / "net.onnx", options).path))
    stored = [onnx.numpy_helper.to_array(one) for one in model.graph.initializer]
    weights = [value for value in stored if value.dtype == np.int8 and value.ndim > 1]
    assert len(weights) > 20
    assert max(np.abs(value.astype(int)).max() for value in weights) == most


@pytest.mark.parametrize("batch", [None, 5, 48])
def test_int8_of_any_batch_observes_images(tmp_path, checkpoint, batch):
    need("onnx")
    options = Options("onnx", "int8", batch=batch, check_images=20, calibration_images=20, min_agreement=60)
    assert export(checkpoint, tmp_path / "net.onnx", options).metadata.batch == batch


@pytest.mark.parametrize(("count", "size"), [(10, 4), (8, 4), (3, 4), (1, 5), (9, 2)])
def test_int8_observes_every_image_whatever_the_batch(count, size):
    images = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)
    parts = list(onnx_int8.in_batches([images[:2], images[2:]], size))
    assert {len(part) for part in parts} == {size}
    assert np.array_equal(np.concatenate(parts)[:count], images)
    assert len(parts) == -(-count // size)


def test_int8_has_a_bound_of_its_own(tmp_path, checkpoint, monkeypatch):
    need("onnx")
    monkeypatch.setattr(exporting, "checkpoint_logits", lambda *given: -checkpoint_logits(*given))
    with pytest.raises(JobError, match="90 % asked for"):
        export(checkpoint, tmp_path / "net.onnx", Options("onnx", "int8", check_images=20, calibration_images=20))


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_trained_ranges_overrule_observed_ones(tmp_path, checkpoint, form):
    """A stem that may say almost nothing leaves almost nothing of the differences between images."""
    need(form)
    stored = read_checkpoint(checkpoint)
    narrow = {**stored.tensors, "ranges.stem": np.array([0, 0.02], np.float32)}
    write_checkpoint(tmp_path / "narrow.safetensors", narrow, stored.meta)
    options = Options(form, quantize="int8", check_images=20, calibration_images=20, min_agreement=0)
    plain = export(checkpoint, tmp_path / f"plain.{form}", options)
    images = np.random.default_rng(0).integers(0, 256, (8, 24, 24, 3), np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            exporting, "checkpoint_logits", lambda c, metadata, images, ema: np.ones((len(images), 10), np.float32)
        )
        squeezed = export(tmp_path / "narrow.safetensors", tmp_path / f"narrow.{form}", options)
    spread = [open_artifact(report.path).logits(images).std(0).mean() for report in (plain, squeezed)]
    assert spread[1] < 0.2 * spread[0]  # what is left are steps of 8 bits


def test_an_agreement_that_is_missed_is_a_failure(tmp_path, checkpoint, monkeypatch):
    need("onnx")
    monkeypatch.setattr(exporting, "checkpoint_logits", lambda *given: -checkpoint_logits(*given))
    options = Options("onnx", quantize="int8", check_images=20, calibration_images=20, min_agreement=20)
    with pytest.raises(JobError, match="20 % asked for"):
        export(checkpoint, tmp_path / "net.onnx", options)
    assert not (tmp_path / "net.onnx").exists()
