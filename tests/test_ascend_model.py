"""The paper model of a step on Ascend: what it is fitted on, what it predicts, and how it answers to choices."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.ascend_model import (
    DEVICES,
    HOST_RATES,
    NASNET_A,
    NASNET_A_BATCH,
    NASNET_A_MS,
    RESNET_50,
    RESNET_50_RATE,
    Choice,
    cube_share,
    depthwise_floor,
    device_parts,
    hbm_share,
    host_cores,
    host_rate,
    predict,
    work_of,
)
from mindcv_mnasnet.networks.ascend_variants import launches, variants
from mindcv_mnasnet.networks.network import resolve

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED_MS = {"910": 165.43, "910B": 175.6}  # MindCV's mnasnet_075, batch 256 on 8 devices
TOLERANCE = 0.10  # what docs/ascend.md claims
MNASNET = work_of(resolve("mnasnet_075"))
each_device = pytest.mark.parametrize("device", DEVICES)


@each_device
def test_the_published_step_is_predicted_from_other_networks(device):
    assert "mnasnet_075" not in HOST_RATES
    step = predict(MNASNET, Choice(device))
    assert step.ms == pytest.approx(PUBLISHED_MS[device], rel=TOLERANCE)
    assert step.images_per_second == pytest.approx(2048 / step.ms * 1e3)


@each_device
def test_the_host_not_the_device_sets_the_published_step(device):
    step = predict(MNASNET, Choice(device))
    assert step.ms == step.host_ms > 1.5 * step.device_ms
    assert predict(MNASNET, Choice(device, host_rate=1e9)).ms == step.device_ms


@each_device
def test_light_networks_run_at_one_speed_whatever_their_work(device):
    """The evidence that the host is the limit: 0.04 to 1.8 G multiply-adds, images/s within a sixth of the median."""
    assert all(abs(rates[device] / host_rate(device) - 1) < 1 / 6 for rates in HOST_RATES.values())
    assert abs(2048 / PUBLISHED_MS[device] * 1e3 / host_rate(device) - 1) < TOLERANCE


def test_work_equals_what_mindcvs_own_network_moves():
    """Counted with hooks on MindCV 0.3's mnasnet_075 at 224: convolutions, classifier, batch norms."""
    assert (MNASNET.dense_madds, MNASNET.dense_elements) == (191_961_344, 5_525_560)
    assert (MNASNET.depthwise_elements, MNASNET.norm_elements) == (4_094_832, 4_765_152)
    assert MNASNET.params == 3_170_208
    assert work_of(resolve("mnasnet_100")).params == 4_383_312


def test_every_factor_is_a_share_and_gives_back_what_it_was_fitted_on():
    assert 0 < depthwise_floor() < hbm_share() < 1
    assert 0 < cube_share() < 1
    parts = device_parts(RESNET_50, Choice("910", devices=1, precision="fp16"))
    fitted = parts["convolutions"] + parts["norm, ReLU, sums"]
    assert fitted == pytest.approx(256 / RESNET_50_RATE * 1e3)
    slow = Choice("910B", batch=NASNET_A_BATCH, depthwise_share=depthwise_floor())
    assert sum(device_parts(NASNET_A, slow).values()) == pytest.approx(NASNET_A_MS)


def test_the_unknown_speed_of_depthwise_convolutions_is_bracketed():
    """At the speed of other traffic they are a sixth of the device's step; at the floor they would be most of it, and
    the device would take longer than the step that was published."""
    fast = predict(MNASNET, Choice())
    slow = predict(MNASNET, Choice(depthwise_share=depthwise_floor()))
    assert 0.1 < fast.parts["depthwise"] / fast.device_ms < 0.3
    assert slow.parts["depthwise"] / slow.device_ms > 0.5
    assert fast.device_ms < PUBLISHED_MS["910B"] < slow.device_ms


def test_bandwidth_not_the_cube_limits_a_float32_mnasnet():
    faster = replace(MNASNET, dense_madds=0)
    assert device_parts(faster, Choice()) == device_parts(MNASNET, Choice())


@given(st.sampled_from(["a1", "b1", "small", "mnasnet_075"]), st.integers(1, 512), st.sampled_from([*DEVICES]))
def test_a_step_grows_with_the_batch_and_images_per_second_never_fall(name, batch, device):
    work = work_of(resolve(name))
    small, large = (predict(work, Choice(device, batch=size)) for size in (batch, 2 * batch))
    assert small.ms < large.ms <= 2 * small.ms * 1.000001
    assert large.images_per_second >= small.images_per_second * 0.999999


@given(st.floats(0.35, 2.0), st.floats(1.05, 2.0))
def test_a_wider_network_takes_the_device_longer(width, more):
    narrow, wide = (work_of(resolve("b1", width_mult=w)) for w in (width, width * more))
    assert predict(wide, Choice()).device_ms >= predict(narrow, Choice()).device_ms


def test_squeeze_and_excitation_adds_traffic():
    plain = resolve("a1", blocks=[block.replace("_se0.25", "") for block in resolve("a1").block_strings])
    assert work_of(resolve("a1")).add_elements > work_of(plain).add_elements


def test_one_device_has_no_all_reduce_and_eight_a_small_one():
    assert predict(MNASNET, Choice(devices=1)).parts["all-reduce"] == 0
    two, eight = (predict(MNASNET, Choice(devices=n)).parts["all-reduce"] for n in (2, 8))
    assert 0 < two < eight < 1


def test_precision_moves_bytes():
    device_ms = {p: predict(MNASNET, Choice(precision=p)).device_ms for p in ("fp32", "fp16_fp32bn", "fp16", "bf16")}
    assert device_ms["fp16"] == device_ms["bf16"]
    assert device_ms["fp16"] == pytest.approx(device_ms["fp32"] / 2, rel=0.05)
    assert device_ms["fp16_fp32bn"] > device_ms["fp32"], "casts around float32 norms cost more than float16 saves"


def test_without_sinking_the_copy_is_no_longer_hidden_but_the_host_still_sets_the_step():
    on, off = (predict(MNASNET, Choice(sinks=sinks)) for sinks in (True, False))
    assert off.device_ms > on.device_ms
    assert off.ms == on.ms


def test_launching_kernels_takes_the_host_time_and_matters_where_batches_are_small():
    counted = {name: predict(MNASNET, choice) for name, choice in launches(Choice()).items()}
    assert counted["O1, rank of 8"].launch_ms < counted["MindCV, O1, rank of 8"].launch_ms
    assert all(step.launch_ms < step.device_ms for step in counted.values()), "at 256 images a device they are hidden"
    before = launches(Choice(batch=32, host_rate=1e12))["ours before, O1, rank of 8"]
    step = predict(MNASNET, before)
    assert step.ms == step.launch_ms > step.device_ms
    assert predict(MNASNET, Choice()).launch_ms == 0, "a whole graph is the device's own"


def test_host_cores_are_rate_over_rate():
    assert host_cores(11_663, 116.63) == pytest.approx(100)
    with pytest.raises(UserError, match="per_core"):
        host_cores(11_663, 0)


@pytest.mark.parametrize(
    "values",
    [
        {"device": "310"},
        {"precision": "fp8"},
        {"device": "910", "precision": "bf16"},
        {"devices": 9},
        {"devices": 0},
        {"batch": 0},
    ],
)
def test_impossible_choices_are_refused(values):
    with pytest.raises(UserError):
        Choice(**values)


def tool(*arguments):
    command = [sys.executable, str(ROOT / "tools" / "bench" / "ascend_model.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_tool_says_the_same_in_words_and_json():
    done = tool("mnasnet_075", "--per_core", "100", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["steps"]["as chosen"]["ms"] == predict(MNASNET, Choice()).ms
    assert report["steps"].keys() == variants(Choice()).keys()
    words = tool("mnasnet_075", "--per_core", "100").stdout
    assert "nothing was run" in words
    assert f"{predict(MNASNET, Choice()).ms:.1f}" in words


@pytest.mark.parametrize(
    "arguments", [("mnasnet_07",), ("--devices", "16"), ("--device", "910", "--precision", "bf16")]
)
def test_mistakes_exit_with_2_and_no_traceback(arguments):
    done = tool(*arguments)
    assert done.returncode == 2
    assert "error" in done.stderr
    assert "Traceback" not in done.stderr


@each_device
def test_the_document_shows_what_the_model_says(device):
    text = (ROOT / "docs" / "ascend.md").read_text()
    step = predict(MNASNET, Choice(device))
    assert (
        f"| {device} | {step.device_ms:.1f} | {step.host_ms:.1f} | **{step.ms:.1f}** | {PUBLISHED_MS[device]} |" in text
    )
    for name, choice in variants(Choice()).items():
        changed = predict(MNASNET, choice)
        row = f"| {name} | {changed.device_ms:.1f} | {changed.host_ms:.1f} | {changed.ms:.1f} |"
        assert row in text
    for name, choice in launches(Choice()).items():
        assert f"| {name} | {choice.kernels:,} | {predict(MNASNET, choice).launch_ms:.1f} |" in text
    for part, ms in predict(MNASNET, Choice()).parts.items():
        assert f"| {part} | {ms:.2f} |" in text
