"""tools/on_android.sh with a program in place of adb that answers as a phone does, and notes what it was asked."""

from __future__ import annotations

import os
import subprocess

import pytest
from processes import ROOT

from mindcv_mnasnet.latency import command as latency_command
from mindcv_mnasnet.latency.record import LatencySettings
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.search.meters import open_meter

SCRIPT = ROOT / "tools" / "on_android.sh"
ADB = r"""#!/bin/bash
printf '%s\n' "${*//$'\n'/ }" >> "$PHONE/asked"
if [ "$1" = -s ]; then shift 2; fi
count=$(cat "$PHONE/count" 2>/dev/null || echo 0)
case "$*" in
  get-state) cat "$PHONE/state" ;;
  push*) [ -f "$2" ] && : > "$PHONE/sent-$(basename "$3")" ;;
  *"test -x"*) [ -f "$PHONE/program" ] && echo there; : > "$PHONE/program" ;;
  *cpuinfo_max_freq*) printf '1800000 0\r\n2800000 7\r\n2400000 4\r\n' ;;
  *"dumpsys battery"*)
    heat=$(head -1 "$PHONE/heat"); [ "$(wc -l < "$PHONE/heat")" -gt 1 ] && sed -i 1d "$PHONE/heat"
    printf '  level: 90\r\n  temperature: %s\r\n' "$heat" ;;
  *scaling_cur_freq*) printf '2784000\r\n' ;;
  *--graph=*)
    echo $((count + 1)) > "$PHONE/count"
    [ -f "$PHONE/broken" ] && { echo 'CANNOT LINK EXECUTABLE'; exit 1; }
    echo "Inference timings in us: Init: 900, Warmup (avg): 5, Inference (avg): $((1000 + 10 * count))" ;;
  *"perf_test -e"*)
    echo $((count + 1)) > "$PHONE/count"
    echo "Average inference time cost total: $((count + 2)).5 ms" ;;
esac
"""


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """The folder of a phone that is connected and cool."""
    for name, text in (("state", "device\n"), ("heat", "312\n"), ("m.tflite", "x"), ("m.onnx", "x"), ("bench", "x")):
        (tmp_path / name).write_text(text)
    adb = tmp_path / "adb"
    adb.write_text(ADB)
    for program in (adb, tmp_path / "bench"):
        program.chmod(0o755)
    for name, value in (("PHONE", tmp_path), ("ADB", adb), ("BENCHMARK", tmp_path / "bench"), ("POLL_S", 0)):
        monkeypatch.setenv(name, str(value))
    return tmp_path


def run(*words, **settings):
    env = os.environ | {name: str(value) for name, value in settings.items()}
    return subprocess.run([SCRIPT, *map(str, words)], capture_output=True, text=True, env=env, timeout=120, check=False)


def test_the_median_of_repeats_on_the_fastest_core(phone):
    done = run(phone / "m.tflite", 2)
    assert done.returncode == 0, done.stderr
    expected = "median_us=1020.0 least_us=1000.0 most_us=1040.0 repeats=5 cores=80 temperature_c=31.2 mhz=2784"
    assert done.stdout.splitlines()[-1] == expected
    asked = (phone / "asked").read_text()
    assert asked.count("taskset 80 /data/local/tmp/mindcv_mnasnet/bench") == 5
    assert "--num_threads=2" in asked
    assert "rm -f /data/local/tmp/mindcv_mnasnet/model-" in asked.splitlines()[-1]


def test_onnx_files_go_to_onnx_runtimes_program(phone):
    done = run(phone / "m.onnx", BENCHMARK=_program(phone, "onnxruntime_perf_test"), CORES="f0", REPEATS=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("median_us=3000.0 least_us=2500.0 most_us=3500.0 repeats=2 cores=f0")


def _program(phone, name):
    (phone / name).write_text("x")
    (phone / name).chmod(0o755)
    return phone / name


def test_a_program_is_sent_once(phone):
    for _ in range(2):
        assert run(phone / "m.tflite", REPEATS=1).returncode == 0
    pushed = [line for line in (phone / "asked").read_text().splitlines() if line.startswith("push")]
    assert sum(line.endswith("/bench") for line in pushed) == 1
    assert sum(".tflite" in line for line in pushed) == 2


def test_a_warm_phone_is_waited_for_and_named_with_its_serial(phone):
    (phone / "heat").write_text("421\n405\n377\n")
    done = run(phone / "m.tflite", REPEATS=1, SERIAL="ab12")
    assert done.returncode == 0, done.stderr
    assert "temperature_c=37.7" in done.stdout
    asked = (phone / "asked").read_text().splitlines()
    assert all(line.startswith("-s ab12 ") for line in asked)
    assert sum("dumpsys battery" in line for line in asked) == 4


@pytest.mark.parametrize(
    ("name", "content", "words", "sentence"),
    [
        ("state", "unauthorized\n", ("m.tflite",), "no device answers"),
        ("heat", "500\n", ("m.tflite",), "still has 50 degrees"),
        ("broken", "", ("m.tflite",), "ended with an error: CANNOT LINK"),
        ("x", "", ("none.tflite",), "none.tflite is not there"),
        ("m.bin", "", ("m.bin",), "neither .tflite nor .onnx"),
    ],
)
def test_what_goes_wrong_is_one_sentence(phone, name, content, words, sentence):
    (phone / name).write_text(content)
    done = run(*(phone / word for word in words), COOL_S=0)
    assert done.returncode == 1
    assert sentence in done.stderr


def test_the_kit_reads_its_answer(phone, monkeypatch):
    monkeypatch.setattr(latency_command, "write_model", lambda network, path, batch: _program(phone, path.name))
    words, pattern = f"'{SCRIPT}' {{model}} {{threads}}", r"median_us=([\d.]+)"
    settings = LatencySettings("command", command=words, pattern=pattern, scale=0.001, format="tflite")
    assert open_meter(settings).measure(resolve("mnasnet_100")).median_ms == pytest.approx(1.02)
