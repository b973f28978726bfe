"""Jobs compiled for NPUs in dry runs, with bounds on what they launch; ``make test-ascend`` runs these."""

from __future__ import annotations

from pathlib import Path

import pytest

from mindcv_mnasnet.dry_run.report import Report
from mindcv_mnasnet.dry_run.run import dry_run
from mindcv_mnasnet.recipe.recipe import load_recipe

pytestmark = pytest.mark.ascend
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
# The sample: the recipe that this project exists for at both levels, alone and in a group; the recipe with everything
# (AMP, EMA, mixing, accumulation); another optimizer; quantization. ``make test-all`` has every recipe.
MAIN = "mnasnet/mnasnet_0.75_ascend"


def run(name: str, devices: int = 1, level: str = "O1", phases: tuple[str, ...] = ("train",), **keys) -> Report:
    recipe = load_recipe(CONFIGS / f"{name}.yaml", {"batch_size": 32, **keys})
    return dry_run(recipe, name, devices, level, phases)


@pytest.mark.parametrize(("level", "most"), [("O0", 800), ("O1", 700)])
def test_one_device_launches_few_kernels(level, most):
    report = run(MAIN, level=level, phases=("train", "validate"))
    train = report.phase("train")
    assert train.launched <= most
    assert train.kernels["TensorMove"] <= 10
    assert train.collectives == 0
    assert report.phase("validate").launched <= 220
    assert report.peak_bytes > 0


def test_eight_devices_share_everything_in_one_collective():
    train = run(MAIN, devices=8).phase("train")
    assert train.launched <= 850
    assert 1 <= train.collectives <= 3
    assert train.kernels["TensorMove"] <= 10
    assert train.collective_bytes > 4 * 3_000_000


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_modern_recipe_runs_with_mixed_precision(dtype):
    train = run("mnasnet/mnasnet_a1_1.0_modern", devices=8, amp_dtype=dtype).phase("train")
    assert train.launched <= 1800
    assert train.collectives <= 3


def test_accumulation_and_averages_of_weights():
    report = run(MAIN, devices=8, gradient_accumulation_steps=2, ema=True, clip_grad=True)
    assert report.phase("accumulate").collectives == 0
    assert report.phase("train").launched <= 950


def test_every_optimizer_updates_rows():
    assert run("mnasnet/mnasnet_small_timm", devices=8).phase("train").launched <= 1500


def test_quantization_aware_training_compiles():
    assert run("digits/mnasnet_small_digits_qat").phase("train").launched <= 5000


def test_the_whole_job_goes_through_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = run("digits/mnasnet_small_digits", phases=("loop",))
    assert report.facts["loop_seconds"] > 0
    assert list(tmp_path.iterdir()) == []
