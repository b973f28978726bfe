"""Latency by any command line: its answer, its failures, its settings."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
import yaml
from PIL import Image
from processes import cli, refused

from mindcv_mnasnet.commands import latency
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.latency import command as latency_command
from mindcv_mnasnet.latency import runtime as latency_runtime
from mindcv_mnasnet.latency.record import LatencyError, LatencySettings
from mindcv_mnasnet.latency.table import Table
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.search.meters import open_meter

SMALL = {"image_size": 24, "num_classes": 10, "head": 32}
NETWORK = resolve("mnasnet_small", width_mult=0.35, **SMALL)


def command(tmp_path, code, **keys):
    program = tmp_path / "device.py"
    program.write_text(code)
    words = f"'{sys.executable}' '{program}' {{model}} {{threads}}"
    return open_meter(LatencySettings("command", command=words, **{"timeout_s": 30.0, **keys}))


@pytest.fixture(autouse=True)
def _no_model(monkeypatch, request):
    """Commands get an empty file: what is tested is how they are asked, and onnx may be missing."""
    if "command" in request.node.name:
        monkeypatch.setattr(latency_command, "write_model", lambda network, path, batch: path)


def test_a_command_is_asked_and_its_answer_is_scaled(tmp_path):
    code = "import sys; assert sys.argv[1].endswith('.tflite'); print('threads', sys.argv[2], 'avg=1234.5 us')"
    meter = command(tmp_path, code, pattern=r"avg=([\d.]+)", scale=0.001, threads=3, format="tflite")
    found = meter.measure(NETWORK)
    assert (found.median_ms, found.repetitions, found.runtime, found.threads) == (1.2345, 0, "command", 3)


def test_a_command_that_is_called_often_has_a_spread(tmp_path):
    code = "import pathlib, sys; f = pathlib.Path(sys.argv[0] + '.n'); n = int(f.read_text()) if f.exists() else 1\n"
    meter = command(tmp_path, code + "f.write_text(str(2 * n)); print(f'avg={n}')", pattern=r"avg=(\d+)", calls=3)
    found = meter.measure(NETWORK)
    assert (found.median_ms, found.p90_ms, found.repetitions) == (2, 4, 3)
    assert found.std_ms == pytest.approx(np.std([1, 2, 4]))


def test_a_commands_json_is_read_by_its_path(tmp_path):
    meter = command(tmp_path, 'print(\'{"runs": [{"ms": 7}, {"ms": 8.5}]}\')', json_path="runs.1.ms")
    assert meter.measure(NETWORK).median_ms == 8.5


@pytest.mark.parametrize(
    ("code", "keys", "reason"),
    [
        ("print('hello')", {"pattern": r"avg=([\d.]+)"}, "matches the pattern; it says 'hello'"),
        ("print('avg=fast')", {"pattern": r"avg=(\w+)"}, "'fast' is not a number"),
        ("print('avg=nan')", {"pattern": r"avg=(\w+)"}, "no latency"),
        ("print('avg=-3')", {"pattern": r"avg=(-?\d+)"}, "no latency"),
        ("print('rubbish')", {"json_path": "a.b"}, "no a.b as JSON"),
        ("print('{}')", {"json_path": "a"}, "no a as JSON"),
        ("print('{\"a\": null}')", {"json_path": "a"}, "not a number"),
        ("import sys; sys.exit('no route to host')", {"pattern": "(x)"}, "ended with code 1: 'no route to host'"),
        ("import time; time.sleep(60)", {"pattern": "(x)", "timeout_s": 0.5}, "took longer than 0.5 s"),
        ("import os; os.write(1, bytes(range(256)))", {"pattern": "(zz)"}, "nothing in its output matches"),
    ],
)
def test_a_command_that_misbehaves_is_a_failure_with_its_reason(tmp_path, code, keys, reason):
    began = time.monotonic()
    with pytest.raises(LatencyError, match=reason):
        command(tmp_path, code, **keys).measure(NETWORK)
    assert time.monotonic() - began < 30


def test_a_command_that_is_not_there_is_a_failure():
    meter = open_meter(LatencySettings("command", command="/no/such/program {model}", pattern="(x)"))
    with pytest.raises(LatencyError, match="/no/such/program cannot be started: No such file"):
        meter.measure(NETWORK)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"command": "device"}, "with {model} in it"),
        ({"command": "device {model}"}, "either a pattern or"),
        ({"command": "device {model}", "pattern": "x"}, "has 0 groups"),
        ({"command": "device {model}", "pattern": "(x"}, "no regular expression"),
        ({"command": "device '{model}", "pattern": "(x)"}, "no command line"),
        ({"kind": "table"}, "tools/latency.py build"),
        ({"kind": "table", "table": "none.jsonl"}, "none.jsonl cannot be read"),
        ({"kind": "tpu"}, "can be onnxruntime, litert, mindspore, command or table"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(keys, sentence):
    with pytest.raises(UserError, match=sentence):
        open_meter(LatencySettings(**{"kind": "command", **keys}))


def test_calls_that_take_too_long_are_a_failure():
    with pytest.raises(LatencyError, match=r"of 110 calls took longer than 0\.05 s"):
        latency_runtime._timed(lambda: time.sleep(0.02), LatencySettings(timeout_s=0.05))


def test_the_images_of_a_search_say_the_classes_of_its_table(tmp_path, monkeypatch, capsys):
    for name in ("bird", "fish"):
        for split in ("train", "val"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(tmp_path / "images" / split / name / "1.png")
    recipe, search, table = (tmp_path / name for name in ("recipe.yaml", "search.yaml", "table.jsonl"))
    recipe.write_text(yaml.safe_dump({"blocks": ["r1_k3_s22_e1_o8"], "image_resize": 32}))
    search.write_text(yaml.safe_dump({"space": "a1", "recipe": str(recipe)}))
    networks = []

    def build(covering, fitted_on, settings, path, progress):
        networks.extend(fitted_on)
        return Table(path, {}, {})

    monkeypatch.setattr(latency.latency_table, "build", build)
    words = ["build", "--space", search, "--table", table, "--random", "2"]
    assert "num_classes" in refused(capsys, *words, program=latency)
    assert cli(*words, "--data_dir", tmp_path / "images", program=latency) == 0
    assert {network.num_classes for network in networks} == {2}
