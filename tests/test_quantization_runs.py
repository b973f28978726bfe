"""Runs with simulated 8-bit arithmetic: validated, resumed, exported."""

from __future__ import annotations

import json

import pytest
from processes import PLAIN, TINY, cli, messages, refused, run, run_until, state, unequal, write_recipe

import validate

pytestmark = pytest.mark.usefixtures("cpu")


@pytest.fixture(scope="module")
def float_run(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("float")
    path = write_recipe(folder, PLAIN, data_dir=str(digits), num_samples=640, epoch_size=2, ema=True, ema_decay=0.9)
    assert cli("-c", path, "--ckpt_save_dir", folder, "--run_name", "run") == 0
    return folder / "run"


@pytest.fixture(scope="module")
def tuned(float_run, digits):
    """That run fine-tuned for 8 bits, two epochs."""
    folder = float_run.parent
    keys = {"num_samples": 640, "epoch_size": 2, "ema": True, "ema_decay": 0.9, "val_while_train": True}
    delays = {"quant_delay_epochs": 0.5, "bn_freeze_epochs": 1.0}
    path = write_recipe(folder, PLAIN, data_dir=str(digits), quantize=True, lr=0.01, **keys | delays)
    path = path.rename(folder / "quantized.yaml")
    assert cli("-c", path, "--init_from", float_run, "--ckpt_save_dir", folder, "--run_name", "tuned") == 0
    return folder / "tuned"


def accuracy(tmp_path, *words) -> dict:
    assert cli(*words, "--json", tmp_path / "result.json", program=validate) == 0
    (row,) = json.loads((tmp_path / "result.json").read_text())
    return row


def test_a_fine_tuned_checkpoint_is_validated_in_8_bits_or_on_request_in_float(tuned, tmp_path):
    assert "started from" in messages(tuned)
    checkpoint = tuned / "checkpoints" / "step_00000080.safetensors"
    summary = json.loads((tuned / "summary.json").read_text())
    quantized = accuracy(tmp_path, checkpoint, "--weights", "ema")
    assert quantized["top1"] == summary["metrics"]["val_top1_ema"]
    assert quantized["loss"] == pytest.approx(summary["metrics"]["val_loss_ema"], rel=1e-6)
    plain = accuracy(tmp_path, checkpoint, "--weights", "ema", "--quantize", "False")
    assert plain["loss"] != quantized["loss"]
    assert plain["loss"] == pytest.approx(quantized["loss"], rel=0.1)


def test_a_plain_checkpoint_cannot_be_validated_in_8_bits(float_run, capsys):
    sentence = refused(capsys, float_run, "--quantize", "True", program=validate)
    assert "missing (ranges.input" in sentence


@pytest.mark.slow
def test_a_quantized_run_killed_and_resumed_ends_with_the_same_bits(tmp_path, digits):
    keys = {"quantize": True, "quant_delay_epochs": 0.6, "bn_freeze_epochs": 1.1, "data_dir": str(digits)}
    recipe = write_recipe(tmp_path, TINY, **keys)
    assert run("-c", recipe, "--run_name", "straight", cwd=tmp_path).returncode == 0
    run_until("step:17:SIGKILL", "-c", recipe, "--run_name", "killed", cwd=tmp_path)
    assert run("--resume", tmp_path / "runs" / "killed", cwd=tmp_path).returncode == 0
    straight, resumed = (state(tmp_path / "runs" / name, 60) for name in ("straight", "killed"))
    assert straight["quantization.batches"] == 60
    assert {"ranges.logits", "ema.ranges.logits"} <= straight.keys()
    assert unequal(straight, resumed) == []


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_an_8_bit_export_answers_as_the_checkpoint(tuned, tmp_path, form):
    for module in {"onnx": ("onnx", "onnxruntime"), "tflite": ("tensorflow", "ai_edge_litert")}[form]:
        pytest.importorskip(module)
    from mindcv_mnasnet.export.export import Options, export

    checkpoint = tuned / "checkpoints" / "step_00000080.safetensors"
    report = export(checkpoint, tmp_path / f"net.{form}", Options(form, "int8"))
    assert report.agreement >= 95
    assert export(checkpoint, tmp_path / f"float.{form}", Options(form)).difference < 1e-4
