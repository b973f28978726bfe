"""tools/bench/benchmark.py: what it measures, in which order, and what it makes of it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from mindcv_mnasnet.devices.processor import instruction_set
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import resolve

TOOLS = Path(__file__).resolve().parents[1] / "tools" / "bench"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sys.path.append(str(TOOLS.parents[1]))
benchmark, rows, images = load("benchmark"), load("bench_rows"), load("bench_images")
roofline, scaling = load("roofline"), load("scaling")


def settings(*arguments: str) -> dict[str, Any]:
    options = benchmark.command_line().parse_args([*arguments])
    return benchmark.settings_of(options, options.rows.split(","))


def test_both_sides_know_the_same_rows():
    assert set(benchmark.ROWS) == set(rows.ROWS)
    assert {row for pair in benchmark.report_of.RATIOS for row in pair} <= set(rows.ROWS)


def test_rows_take_turns():
    order = []

    def run(row):
        order.append(row)
        return {"images_per_second": float(len(order))}

    found = benchmark.measure_rounds(["train_step", "mindcv"], 3, run)
    assert order == ["train_step", "mindcv"] * 3
    assert [one["mindcv"]["images_per_second"] for one in found] == [2.0, 4.0, 6.0]


def test_ratios_are_taken_within_rounds():
    """A machine that is twice as slow in one round leaves the ratio alone; the ratio of medians would be 4."""
    rounds = [
        {"train_py": {"images_per_second": ours, "onednn_max_cpu_isa": "AVX2"}, "mindcv": {"images_per_second": theirs}}
        for ours, theirs in ((30.0, 5.0), (12.0, 2.0), (20.0, 8.0))
    ]
    found = benchmark.summarize(rounds)
    assert found["rows"]["train_py"]["images_per_second"] == {"median": 20.0, "min": 12.0, "max": 30.0}
    assert found["rows"]["train_py"]["onednn_max_cpu_isa"] == "AVX2"
    assert found["ratios"] == {"train_py / mindcv": {"median": 6.0, "min": 2.5, "max": 6.0}}


@pytest.mark.parametrize(("row", "isa"), [("mindcv", None), ("train_step", None), ("mindcv_avx2", "AVX2")])
def test_what_the_user_set_for_onednn_reaches_no_row(monkeypatch, tmp_path, row, isa):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "SSE41")
    seen = {}
    monkeypatch.setattr(benchmark, "run_tool", lambda *arguments: seen.update(arguments[3]) or {})
    benchmark.run_row(row, {}, tmp_path)
    assert seen.get("ONEDNN_MAX_CPU_ISA") == isa
    assert "DNNL_MAX_CPU_ISA" not in seen
    assert "PATH" in seen


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--rows", "train_step,torch"], "torch"),
        (["--rounds", "0"], "rounds"),
        (["--steps", "-1"], "steps"),
        (["--warm_up", "0"], "warm_up"),
        (["--data_dir", "/no/such/folder"], "/no/such/folder"),
        (["--json", "/no/such/folder/x.json"], "/no/such/folder"),
        (["--rows", "train_step", "--model", "mnasnet_101"], "mnasnet_100"),
        (["--rows", "mindcv", "--model", "mnasnet-a1"], "mnasnet-a1"),
    ],
)
def test_mistakes_are_named_before_anything_is_measured(arguments, word):
    with pytest.raises(UserError, match=word):
        settings(*arguments)


def test_a_missing_mindcv_is_said_and_only_where_it_is_needed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert settings("--rows", "train_step,pipeline")["model"] == "b1"
    with pytest.raises(UserError, match="make bench"):
        settings("--rows", "train_step,mindcv")


@pytest.mark.parametrize(("model", "theirs"), [("b1", "mnasnet_100"), ("mnasnet0_75", "mnasnet_075")])
def test_mindcv_is_measured_on_the_same_network(monkeypatch, model, theirs):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert settings("--model", model)["mindcv_model"] == theirs


def test_a_mistake_on_the_command_line_exits_with_2():
    command = [sys.executable, str(TOOLS / "benchmark.py"), "--rows", "torch"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2


def test_a_helper_that_dies_fails_the_job(tmp_path):
    with pytest.raises(JobError, match="ended with exit code 2"):
        benchmark.run_tool("no_such_tool.py", ["x"], tmp_path)


TIMES = {"warm_up": 2, "steps": 3, "batch_size": 8}


def test_warm_up_is_not_timed(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(rows.time, "perf_counter", lambda: next(clock))
    seen = []
    found = rows.measure(lambda number: seen.append(number) or 5.0 - number, TIMES)
    assert seen == [0, 1, 2, 3, 4]
    assert found["images_per_second"] == 3 * 8
    assert found["first_step_seconds"] == 1


@pytest.mark.parametrize("losses", [[7.0] * 5, [7.0, 6.0, 5.0, 4.0, float("nan")]])
def test_a_loop_that_does_not_learn_is_no_measurement(losses):
    with pytest.raises(JobError, match="not training"):
        rows.measure(lambda number: losses[number], TIMES)


def log(*lines: tuple[int, float, float | None, float | None]) -> list[dict[str, Any]]:
    keys = ("step", "time", "images_per_second", "data_wait_percent")
    return [
        {"kind": "message", "step": 0, "time": 0.0},
        *({"kind": "step", **dict(zip(keys, x, strict=True))} for x in lines),
    ]


def test_steady_state_leaves_warm_up_out_and_weighs_waiting_by_time():
    records = log(
        (1, 10.0, None, None), (2, 12.0, 4.0, 90.0), (4, 14.0, 8.0, 0.0), (6, 20.0, 2.7, 20.0), (8, 99.0, 1, 1)
    )
    found = rows.steady_state(records, TIMES)
    assert found["images_per_second"] == pytest.approx(4 * 8 / 8)
    assert found["ms_per_step"] == pytest.approx(2000)
    assert found["data_wait_percent"] == pytest.approx(20 * (16 / 2.7) / (2 + 16 / 2.7))


def test_a_run_that_ended_early_is_no_measurement():
    with pytest.raises(JobError, match="step 5"):
        rows.steady_state(log((1, 1.0, None, None), (2, 2.0, 8.0, 0.0), (4, 3.0, 8.0, 0.0)), TIMES)


def test_made_up_images_are_like_imagenets_and_the_same_every_time(tmp_path):
    images.make_images(tmp_path / "a", 12)
    images.make_images(tmp_path / "b", 12)
    files = sorted((tmp_path / "a").rglob("*.jpg"))
    assert len(files) == 12
    assert len({file.parent for file in files}) == 10
    assert 80_000 < sum(file.stat().st_size for file in files) / 12 < 120_000
    for file in files:
        assert Image.open(file).size == (500, 375)
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()


SMALL = ["--model", "small", "--image_size", "32", "--batch_size", "4", "--steps", "2", "--warm_up", "1"]


@pytest.mark.slow
def test_the_pipeline_row_for_real(tmp_path):
    result = tmp_path / "result.json"
    assert benchmark.main([*SMALL, "--rows", "pipeline", "--rounds", "1", "--json", str(result)]) == 0
    found = json.loads(result.read_text())
    (speed,) = [one["pipeline"]["images_per_second"] for one in found["rounds"]]
    assert speed > 0
    assert found["rows"]["pipeline"]["images_per_second"]["min"] == pytest.approx(speed, abs=1e-3)
    assert found["settings"]["data_dir"] is None
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["versions"]["mindspore"]
    assert found["machine"]["instruction_set"] == instruction_set()


def test_a_pipeline_from_a_pack_of_smaller_images_for_real(tmp_path):
    """Files of 500 x 375 pixels: a short side of 256 is smaller, one of 375 and more changes nothing."""
    images.make_images(tmp_path / "some", 24)
    chosen = {**settings(*SMALL, "--rows", "pipeline_256", "--data_dir", f"{tmp_path}/some"), "images": 24}
    smaller = benchmark.run_row("pipeline_256", chosen, tmp_path)
    whole = benchmark.run_row("pipeline_pack", chosen, tmp_path)
    assert whole["validation_difference"] == 0
    assert 0 < smaller["validation_difference"] < 25, "the files are noise"
    assert smaller["bytes_per_image"] < whole["bytes_per_image"]
    assert min(smaller["images_per_second"], whole["images_per_second"]) > 0


def test_too_few_images_are_refused(tmp_path):
    images.make_images(tmp_path / "few", 8)
    with pytest.raises(JobError, match="8 training images"):
        benchmark.run_row("train_py", settings(*SMALL, "--rows", "train_py", "--data_dir", f"{tmp_path}/few"), tmp_path)


@pytest.mark.slow
def test_the_training_rows_for_real(tmp_path):
    result = tmp_path / "result.json"
    assert benchmark.main([*SMALL, "--rows", "train_step,train_py", "--rounds", "1", "--json", str(result)]) == 0
    (found,) = json.loads(result.read_text())["rounds"]
    assert found["train_step"]["images_per_second"] > 0
    whole = found["train_py"]
    assert whole["logged_images_per_second"] == pytest.approx(whole["images_per_second"], rel=0.3)
    assert 0 <= whole["data_wait_percent"] <= 100
    assert len(whole["recipe_fingerprint"]) == 64


@pytest.mark.slow
@pytest.mark.parametrize(("row", "isa"), [("mindcv", ""), ("mindcv_avx2", "AVX2")])
def test_the_rows_of_mindcv_for_real(tmp_path, row, isa):
    pytest.importorskip("mindcv")
    chosen = settings(*SMALL, "--model", "mnasnet_050", "--rows", row)
    found = benchmark.run_row(row, chosen, tmp_path)
    assert found["images_per_second"] > 0
    assert found["onednn_max_cpu_isa"] == isa


def test_speeds_and_seconds_are_compared_alike():
    rounds = [{"train_start": {"seconds": 5.0}, "mindcv_start": {"seconds": 20.0}}]
    found = benchmark.summarize(rounds)
    assert found["ratios"]["train_start / mindcv_start"]["median"] == 4
    assert found["rows"]["train_start"]["seconds"]["median"] == 5


def test_a_bound_is_the_longer_of_computing_and_moving():
    network = resolve("b1", image_size=64)
    computing, moving = roofline.Peak(1e9, 1e30, 2), roofline.Peak(1e30, 1e9, 2)
    parts = roofline.parts(network, 4, computing)
    assert [part.name for part in parts[:2]] == ["stem", "blocks.0"]
    assert sum(part.bound_s for part in parts) == pytest.approx(4 * 2 * network_cost(network).madds / 1e9)
    stem, first = roofline.parts(network, 4, moving)[:2]
    assert stem.bytes == 4 * (4 * (3 * 64**2 + 32 * 32**2) + 27 * 32 + 2 * 32)
    assert stem.bound_s == pytest.approx(stem.bytes / 1e9)
    weights = 9 * 32 + 2 * 32 + 32 * 16 + 2 * 16  # depthwise and project, with batch norm
    assert first.bytes == 4 * (4 * (32 + 32 + 32 + 16) * 32**2 + weights)


def test_growth_is_fitted_by_a_line():
    offset, slope, fit = scaling.line([1, 2, 4], [7.0, 9.0, 13.0])
    assert (offset, slope, fit) == (pytest.approx(5), pytest.approx(2), pytest.approx(1))
    assert scaling.line([1, 2, 4], [7.0, 13.0, 9.0])[2] < 0.2
    assert scaling.carried("image_size", "32", 224) == 1024
    assert scaling.carried("model", "b1", 32) == network_cost(resolve("b1"), 32).madds


@pytest.mark.parametrize("vary", ["batch_size=1,2", "widths=1,2,3", "batch_size"])
def test_a_line_needs_three_values_of_something_known(vary):
    with pytest.raises(UserError, match="KEY=V,V,V"):
        scaling.main(["--vary", vary])
