"""Dry runs: what is read from MindSpore's log, the stand-ins, and the sentences for what is missing. No compilation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from mindcv_mnasnet.commands import dry_run as command
from mindcv_mnasnet.devices import environment, obstacles, simulation, stand_ins
from mindcv_mnasnet.dry_run import run
from mindcv_mnasnet.dry_run.report import MARK, Report
from mindcv_mnasnet.dry_run.run import dry_run, explained
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.recipe.recipe import load_recipe

KERNEL = "[INFO] DEVICE(1,7f,python):2026 [x.cc:175] GenerateKernelMod] kernel opname:{}, kernel type:{}_kernel"
VIEW = (
    "[INFO] RUNTIME_FRAMEWORK(1,7f,python):2026 [x.cc:184] OptimizeNopNode] The reference relation of nopnode Reshape"
)


def mark(**content) -> str:
    return MARK + json.dumps(content)


def test_kernels_are_counted_by_phase_without_views():
    report = Report("r", "O1", 8)
    others = report.read(
        [
            KERNEL.format("FillV2", "acl"),  # before any phase: initialization
            mark(begin="train"),
            KERNEL.format("Conv2D", "opapi"),
            KERNEL.format("Conv2D", "opapi"),
            KERNEL.format("GraphKernel_Mul", "akg"),
            KERNEL.format("Reshape", "opapi"),
            VIEW,
            KERNEL.format("AllReduce", "hccl"),
            mark(end=3.5, collective_bytes=64),
            KERNEL.format("Conv2D", "opapi"),  # between phases
            mark(begin="validate"),
            KERNEL.format("Conv2D", "opapi"),
            mark(end=1.0),
            "Used peak memory usage (without fragments): 1236M",
            "Actual peak memory usage (with fragments): 1254M",
            "something else",
            "[ERROR] before the end",
            mark(facts={"loop_seconds": 2.0}),
            "[ERROR] after the end",
        ]
    )
    train, validate = report.phases
    assert (train.launched, train.views, train.fused, train.collectives) == (4, 1, 1, 1)
    assert (train.seconds, train.collective_bytes, train.kernels["Conv2D"]) == (3.5, 64, 2)
    assert validate.launched == 1
    assert (report.peak_bytes, report.peak_bytes_with_fragments) == (1236 << 20, 1254 << 20)
    assert others == ["something else", "[ERROR] before the end"]
    assert report.errors == ["[ERROR] after the end"]
    assert json.loads(json.dumps(report.to_dict()))["phases"][0]["launched"] == 4
    assert "rank 0 of 8 devices" in report.text()


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["a", "error: no such key", "b"], "no such key"),
        (
            [
                "RuntimeError: Unsupported op [Foo] on Ascend",
                "In file /somewhere/mindcv_mnasnet/train/step.py:42, 8",
                "In file /somewhere/mindcv_mnasnet/train/step.py:40~42, 4",
                "# 0 In file /somewhere/mindcv_mnasnet/train/step.py:40~42, 4",
                "# 1 In file /somewhere/mindcv_mnasnet/train/step.py:42, 8",
                "C++ Call Stack",
                "In file /somewhere/mindcv_mnasnet/train/step.py:40~42, 4",
            ],
            "RuntimeError: Unsupported op [Foo] on Ascend (mindcv_mnasnet/train/step.py:42)",
        ),
        ([], "it ended without a word"),
    ],
)
def test_a_failed_job_is_explained_with_the_line_of_our_code(lines, sentence):
    assert explained(lines) == sentence


@pytest.mark.parametrize(("keys", "words"), [({"devices": 0}, "devices: 0"), ({"jit_level": "O2"}, "jit_level: 'O2'")])
def test_impossible_dry_runs_are_refused(keys, words):
    with pytest.raises(UserError, match=words):
        dry_run(load_recipe(), "r", **keys)


@pytest.mark.parametrize("words", [("--devices", "1", "8", "0"), ("--levels", "O0", "O2")])
def test_what_is_impossible_is_refused_before_the_first_job(tmp_path, monkeypatch, words):
    monkeypatch.setattr(run, "follow", lambda *_: pytest.fail("a job was started"))
    (tmp_path / "r.yaml").write_text("epoch_size: 1\n")
    with pytest.raises(UserError, match=r"devices: 0|jit_level: 'O2'"):
        command.main([str(tmp_path / "r.yaml"), *words])


def test_a_search_that_trains_nothing_is_refused_before_the_first_job(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "follow", lambda *_: pytest.fail("a job was started"))
    (tmp_path / "r.yaml").write_text("epoch_size: 1\n")
    (tmp_path / "s.yaml").write_text("space: mnasnet\nevaluator: surrogate\nlatency: surrogate\n")
    with pytest.raises(UserError, match="s: evaluator surrogate trains nothing"):
        command.main([str(tmp_path / "r.yaml"), str(tmp_path / "s.yaml")])


@pytest.mark.parametrize("begin", ["", "import os; os.close(1); os.close(2); "])
def test_a_job_that_hangs_is_ended(monkeypatch, begin):
    monkeypatch.setattr(simulation, "environment", lambda *_: dict(os.environ))
    monkeypatch.setattr(run, "_MOST_SECONDS", 0.5)
    program = f"{begin}import signal; signal.alarm(60); signal.pause()"
    with pytest.raises(JobError, match=r"fails: it took more than 0\.5 seconds"):
        run.follow(Report("r", "O1", 1), ["-c", program])


def test_a_job_that_fails_is_explained(monkeypatch):
    monkeypatch.setattr(simulation, "environment", lambda *_: dict(os.environ))
    with pytest.raises(JobError, match=r"r at O1 on 1 device.* fails: ValueError: no"):
        run.follow(Report("r", "O1", 1), ["-c", "raise ValueError('no')"])


# --- what keeps a job from starting ---------------------------------------------------------------------------------

NO_CANN = (
    "Unsupported device target Ascend. This process only supports one of the ['CPU'].\n"
    "Load dynamic library: libmindspore_ascend.so.2 failed. libge_runner.so: cannot open shared object file: No such"
)


@pytest.mark.parametrize(
    ("driver", "error", "words"),
    [
        (False, RuntimeError(NO_CANN), ["no NPU driver", "davinci_manager", "--device_target CPU"]),
        (True, RuntimeError(NO_CANN), ["CANN's library libge_runner.so", "set_env.sh"]),
        (
            True,
            RuntimeError("libascend_hal.so: cannot open shared object file: No such file or directory"),
            ["driver's library libascend_hal.so", "LD_LIBRARY_PATH"],
        ),
        (True, RuntimeError("libascendcl.so: undefined symbol: aclrtFoo"), ["do not fit each other", "aclrtFoo"]),
        (True, RuntimeError("aclrtSetDevice failed, error code 507033"), ["in use", "npu-smi info"]),
        (True, ModuleNotFoundError("No module named 'hccl'", name="hccl"), ["package hccl", "pip install"]),
        (True, RuntimeError(""), ["not usable", "no reason given"]),
    ],
)
def test_a_first_error_on_an_npu_machine_is_one_sentence(monkeypatch, driver, error, words):
    monkeypatch.setattr(obstacles, "_driver_is_here", lambda: driver)
    sentence = obstacles.explained(error)
    assert "\n" not in sentence
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize("variable", ["RANK_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_a_launch_without_msrun_is_refused(monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    assert obstacles.foreign_launch() is None
    monkeypatch.setenv(variable, "8")
    sentence = obstacles.foreign_launch()
    assert sentence is not None
    assert variable in sentence
    assert "msrun --worker_num 8" in sentence


def test_processes_of_another_launcher_do_not_train_the_same_job_each(cpu, monkeypatch):
    from mindcv_mnasnet.devices import runtime

    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(UserError, match="msrun --worker_num 4"):
        runtime.start("CPU")


# --- the environment ------------------------------------------------------------------------------------------------


def test_installed_cann_is_preferred_to_stand_ins(tmp_path, monkeypatch):
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64" / "libascendcl.so").touch()
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    monkeypatch.setattr(stand_ins, "build", lambda *_: pytest.fail("stand-ins are not needed"))
    found = simulation.environment(tmp_path / "cache", devices=8)
    assert (found["MS_SIMULATION_LEVEL"], found["RANK_SIZE"], found["RANK_ID"]) == ("1", "8", "0")
    assert not list(tmp_path.glob("cache/*"))


def test_leftovers_of_msrun_do_not_reach_a_dry_run(tmp_path, monkeypatch):
    monkeypatch.setattr(simulation, "cann_folder", lambda: tmp_path)
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    assert "MS_ROLE" not in simulation.environment(tmp_path)


def test_stand_ins_need_a_compiler(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no-such-compiler, which is not here"):
        stand_ins.build(tmp_path, ["no-such-compiler"])
    monkeypatch.setattr(stand_ins.platform, "machine", lambda: "riscv64")
    with pytest.raises(UserError, match="not for riscv64"):
        stand_ins.build(tmp_path, ["c++"])


def test_stand_ins_take_the_compiler_of_the_kernels(tmp_path, monkeypatch):
    monkeypatch.setattr(simulation, "cann_folder", lambda: None)
    monkeypatch.setenv("CXX", "no-such-launcher no-such-compiler")
    with pytest.raises(UserError, match="no-such-launcher, which is not here"):
        simulation.environment(tmp_path)
    monkeypatch.setenv("CXX", " ")
    (tmp_path / "clang++").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.compiler() == ["clang++"]


@pytest.mark.parametrize(("variable", "value"), [("RANK_SIZE", "abc"), ("RANK_ID", "-1"), ("RANK_SIZE", "0")])
def test_a_rank_that_is_no_number_is_named(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=f"{variable}: '{value}'"):
        simulation.simulated_group()
    monkeypatch.setenv(variable, "")
    assert simulation.simulated_group() == (0, 1)


@pytest.mark.parametrize(
    ("machine", "compiler"), [("x86_64", "x86_64-linux-gnu-gcc"), ("aarch64", "aarch64-linux-gnu-gcc")]
)
def test_every_kind_of_stand_in_assembles(tmp_path, machine, compiler):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not here")
    names = {"aclrtFoo", "_ZN2ge6HandleC1Ev", "_ZN2ge15OperatorFactory14CreateOperatorEv"}
    (tmp_path / "all.s").write_text(stand_ins._assembly(names, machine))
    subprocess.run([compiler, "-shared", "-o", tmp_path / "all.so", tmp_path / "all.s", "-nostdlib"], check=True)
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", tmp_path / "all.so"], capture_output=True, text=True, check=True
    )
    assert names <= {line.split()[-1] for line in listed.stdout.splitlines()}
