"""The device check: every part guarded, nothing private in what it writes, and the CPU's own losses found again."""

from __future__ import annotations

import getpass
import json
import platform
from pathlib import Path

import pytest
from mindspore import nn

from mindcv_mnasnet.commands import check_device
from mindcv_mnasnet.device_check import machine, run
from mindcv_mnasnet.device_check.golden import TOLERANCES
from mindcv_mnasnet.device_check.page import anonymous, page, report
from mindcv_mnasnet.device_check.parts import FAILED, NOT_HERE, OK, PARTS, Outcome
from mindcv_mnasnet.device_check.profiled import divided
from mindcv_mnasnet.errors import run_cli
from mindcv_mnasnet.model.create import create_model


def test_the_cpus_losses_are_found_again(tmp_path):
    found = tmp_path / "check.json"
    assert (
        run_cli(lambda: check_device.main(["--device_target", "CPU", "--parts", "float32", "--json", str(found)])) == 0
    )
    facts = json.loads(found.read_text())["parts"]["float32"]["facts"]
    assert facts["largest_difference"] < 0.006
    assert facts["losses"][-1] < facts["losses"][0]


def test_a_part_that_fails_does_not_end_the_rest_and_is_the_exit_code(monkeypatch, capsys):
    def fails(names, device):
        if "float32" in names:
            raise RuntimeError("the device is busy")
        return {name: Outcome(OK, "fine") for name in names}

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
    monkeypatch.setattr(run, "_run", lambda names, device: {name: Outcome(OK, "compiled") for name in names})
    found = run.check("Ascend", list(PARTS))
    assert {name for name, one in found.items() if one.state == OK} == {
        n for n, part in PARTS.items() if not part.values
    }


def test_a_process_that_dies_or_hangs_is_an_outcome(tmp_path):
    died = run._child(["sh", "-c", "echo no driver >&2; exit 3"], ["float32"], tmp_path, 60)["float32"]
    assert died.state == FAILED
    assert "exit code 3: no driver" in died.words
    hung = run._child(["sleep", "5"], ["float32"], tmp_path, 0)["float32"]
    assert "no end" in hung.words


def test_parts_that_share_a_process_are_answered_though_it_dies_between_them(monkeypatch):
    asked = []

    def dies_at_training(names, device):
        asked.append(list(names))
        if "training" not in names:
            return {name: Outcome(OK, "fine") for name in names}
        return {"float32": Outcome(OK, "fine"), "training": Outcome(FAILED, "the process ended")}

    monkeypatch.setattr(run, "_run", dies_at_training)
    found = run.check("CPU", run.SHARED)
    assert [one.state for one in found.values()] == [OK, FAILED, OK, OK]
    assert asked == [list(run.SHARED), ["validation", "export"]]


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


class Rounded(nn.Cell):
    """Cuts values, and the gradients that pass, to so many significant bits."""

    def __init__(self, bits: int):
        super().__init__()
        self.factor = float(2 ** (24 - bits) + 1)  # Dekker's splitting of a float32

    def construct(self, x):
        scaled = x * self.factor
        return scaled - (scaled - x)

    def bprop(self, x, out, dout):
        scaled = dout * self.factor
        return (scaled - (scaled - dout),)


class RoundedConv(nn.Cell):
    """A convolution of rounded numbers; ``whole`` rounds its result too, as half precision does."""

    def __init__(self, conv, bits: int, whole: bool):
        super().__init__()
        self.conv, self.before, self.after = conv, Rounded(bits), Rounded(bits if whole else 24)

    def construct(self, x, weight):
        return self.after(self.conv(self.before(x), self.before(weight)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "bits", "whole"), [("float32", 11, False), ("float16", 11, True), ("bfloat16", 8, True)]
)
def test_the_rounding_of_each_type_is_within_half_of_its_tolerance(cpu, monkeypatch, dtype, bits, whole):
    """float32 is HF32 here, to which NPUs round what they convolve; the significant bits are 11, 11 and 8."""
    from mindcv_mnasnet.device_check import computing
    from mindcv_mnasnet.train import task

    def rounding(*arguments, **keys):
        model = create_model(*arguments, **{**keys, "kernels": False})
        for _, cell in list(model.cells_and_names()):
            if isinstance(cell, nn.Conv2d):
                conv = cell.conv2d
                del cell.conv2d
                cell.insert_child_to_cell("conv2d", RoundedConv(conv, bits, whole))
        return model

    monkeypatch.setattr(task, "create_model", rounding)
    monkeypatch.setattr(computing, "_steps", {})
    monkeypatch.setitem(computing.AMP, dtype, {})
    found = computing.steps("CPU", dtype)
    assert 0 < found.facts["largest_difference"] <= TOLERANCES[dtype] / 2
