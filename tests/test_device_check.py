"""The device check: every part guarded, nothing private in what it writes, and the CPU's own losses found again."""

from __future__ import annotations

import getpass
import json
import platform
from pathlib import Path

import pytest

from mindcv_mnasnet.commands import check_device
from mindcv_mnasnet.device_check import machine, run
from mindcv_mnasnet.device_check.page import anonymous, page, report
from mindcv_mnasnet.device_check.parts import FAILED, NOT_HERE, OK, PARTS, Outcome
from mindcv_mnasnet.device_check.profiled import divided
from mindcv_mnasnet.errors import run_cli


def test_the_cpus_losses_are_found_again(tmp_path):
    found = tmp_path / "check.json"
    assert (
        run_cli(lambda: check_device.main(["--device_target", "CPU", "--parts", "float32", "--json", str(found)])) == 0
    )
    facts = json.loads(found.read_text())["parts"]["float32"]["facts"]
    assert facts["largest_difference"] < 0.006
    assert facts["losses"][-1] < facts["losses"][0]


def test_a_part_that_fails_does_not_end_the_rest_and_is_the_exit_code(monkeypatch, capsys):
    def fails(name, device):
        if name == "float32":
            raise RuntimeError("the device is busy")
        return Outcome(OK, "fine")

    monkeypatch.setattr(run, "_run", fails)
    found = run.check("CPU", list(PARTS))
    assert list(found) == list(PARTS)
    assert found["float32"].state == FAILED
    assert "the device is busy" in found["float32"].words
    assert found["export"].state == OK
    assert run_cli(lambda: check_device.main(["--device_target", "CPU"])) == 1


@pytest.mark.parametrize("name", [name for name, part in PARTS.items() if part.devices])
def test_what_needs_a_device_is_marked_on_a_cpu(name):
    assert run.check("CPU", [name])[name].state == NOT_HERE


def test_what_reads_values_stands_aside_in_a_dry_run(monkeypatch):
    monkeypatch.setattr(run, "simulated", lambda: True)
    monkeypatch.setattr(run, "_run", lambda name, device: Outcome(OK, "compiled"))
    found = run.check("Ascend", list(PARTS))
    assert {name for name, one in found.items() if one.state == OK} == {
        n for n, part in PARTS.items() if not part.values
    }


def test_a_process_that_dies_or_hangs_is_an_outcome(tmp_path, monkeypatch):
    (died,) = run._child(["sh", "-c", "echo no driver >&2; exit 3"], "float32", tmp_path)
    assert died.state == FAILED
    assert "exit code 3: no driver" in died.words
    monkeypatch.setitem(PARTS, "float32", run.PARTS["float32"].__class__("", seconds=0))
    (hung,) = run._child(["sleep", "5"], "float32", tmp_path)
    assert "no end" in hung.words


def test_no_host_user_address_or_folder_is_written():
    private = f"{Path.home()}/x/y.py and /opt/some/where:12 on {platform.node()}, 10.20.30.40, by {getpass.getuser()}"
    outcome = Outcome(FAILED, private, {"log": [private], "ratio": 0.5, "unit": "images/s"})
    for text in (json.dumps(report("CPU", {"export": outcome})), page("CPU", {"export": outcome})):
        assert "/opt" not in text
        assert str(Path.home() / "x") not in text
        assert "10.20.30.40" not in text
        assert len(platform.node()) <= 2 or platform.node() not in text
    assert anonymous({"unit": "images/s", "n": 2}) == {"unit": "images/s", "n": 2}


@pytest.mark.parametrize(("cann", "state"), [("8.5.0", OK), ("7.0.1", FAILED)])
def test_versions_are_held_against_mindspores_own_list(monkeypatch, tmp_path, cann, state):
    for part, version in (("driver", "25.0.rc1"), ("firmware", "7.7"), ("cann/compiler", cann)):
        folder = tmp_path / part
        folder.mkdir(parents=True)
        (folder / "version.info").write_text(f"Version={version}\n")
    monkeypatch.setattr(machine, "_ASCEND", tmp_path)
    monkeypatch.setattr(machine, "cann_folder", lambda: tmp_path / "cann")
    monkeypatch.setattr(machine, "_known_cann", lambda: ["8.3", "8.5"])
    monkeypatch.setattr(machine, "_package", lambda name: "1.0")
    found = machine.versions()
    assert found.state == state
    assert found.facts["CANN"] == cann
    assert found.facts["driver"] == "25.0.rc1"


def test_the_profilers_table_becomes_milliseconds_a_step():
    rows = [{"Device_id": "0", "Step": str(n), "Computing": "1000", "Free": "500", "Name": ""} for n in range(5)]
    assert divided(rows).facts == {"Computing": 1.0, "Free": 0.5}
    assert divided([]).state == FAILED


def test_an_unknown_part_is_refused():
    assert run_cli(lambda: check_device.main(["--parts", "speed"])) == 2
