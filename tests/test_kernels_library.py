"""The CPU operators' library: when it is used, built, shared and left alone."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import tiny
from mindspore import nn
from processes import PLAIN, ROOT, write_recipe

from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.kernels import build
from mindcv_mnasnet.kernels.cells import NormAct
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.quantization import Quantization
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.train.job import prepare

pytestmark = pytest.mark.usefixtures("cpu")


@pytest.fixture
def unbuilt(tmp_path, monkeypatch):
    """A process that has built nothing yet, with an empty cache."""
    loaded = build.loaded()
    monkeypatch.setenv("MNASNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MNASNET_KERNELS", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    build.loaded.cache_clear()
    yield tmp_path / "cache" / "kernels"
    build.loaded.cache_clear()
    monkeypatch.undo()
    assert build.loaded() == loaded


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


# --- in the network -----------------------------------------------------------------------------------------------


def operators_in(model: nn.Cell) -> int:
    return sum(type(cell).__module__.startswith("mindcv_mnasnet.kernels") for _, cell in model.cells_and_names())


def test_half_precision_is_refused_not_misread(library, pynative):
    with pytest.raises(TypeError, match="float32"):
        NormAct(library, nn.BatchNorm2d(2))(ms.Tensor(np.ones((1, 2, 3, 3), np.float16)))


# --- where there are none -----------------------------------------------------------------------------------------


def test_networks_for_ascend_or_export_have_none(library, monkeypatch):
    assert operators_in(create_model(tiny.network())) > 0
    assert operators_in(create_model(tiny.network(), kernels=False)) == 0
    assert operators_in(create_model(tiny.network(), quantization=Quantization(), kernels=False)) == 0
    monkeypatch.setattr(runtime, "current_device", lambda: "Ascend")
    assert build.kernels() == build.Kernels(None)
    assert operators_in(create_model(tiny.network())) == 0


def test_the_environment_switches_them_off_without_a_word(monkeypatch):
    monkeypatch.setenv("MNASNET_KERNELS", "off")
    assert build.kernels() == build.Kernels(None)
    assert operators_in(create_model(tiny.network())) == 0


def test_the_environment_chooses_the_instruction_set(unbuilt, tmp_path, monkeypatch):
    monkeypatch.setenv("MNASNET_KERNELS", "avx3")
    note = build.loaded().note
    assert "MNASNET_KERNELS=avx3" in note
    assert "sse2" in note
    build.loaded.cache_clear()
    echo = 'case "$1" in --version) echo 1;; *) for file; do :; done; echo "$@" >"$file";; esac'
    monkeypatch.setenv("CXX", script(tmp_path / "c++", echo))
    monkeypatch.setenv("MNASNET_KERNELS", "sse2")
    assert "-march=x86-64 " in build.build(unbuilt).read_text()
    monkeypatch.delenv("MNASNET_KERNELS")
    assert "-march=x86-64 " not in build.build(unbuilt).read_text()


def test_the_recipe_switches_them_off_and_stays_the_same_recipe(unbuilt, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    job = prepare(load_recipe(write_recipe(tmp_path, PLAIN), {"kernels": False, "ckpt_save_dir": str(tmp_path)}))
    with job:
        assert not [note for note in job.notes if "operators" in note]
        assert operators_in(job.step.model) == 0
    assert load_recipe(overrides={"kernels": False}).fingerprint() == load_recipe().fingerprint()


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        (None, r"no C\+\+ compiler /nowhere/c\+\+"),
        ('test "$1" = --version || { echo cannot >&2; exit 1; }', "the compiler says: cannot"),
        ('test "$1" = --version && exit; eval last=\\${$#}; echo no library > $last', "invalid ELF header|too short"),
    ],
    ids=["none", "failing", "lying"],
)
def test_without_a_library_one_note_and_the_stock_operators(unbuilt, tmp_path, monkeypatch, compiler, reason):
    command = "/nowhere/c++" if compiler is None else script(tmp_path / "compiler", compiler)
    monkeypatch.setenv("CXX", command)
    with prepare(load_recipe(write_recipe(tmp_path, PLAIN), {"ckpt_save_dir": str(tmp_path)})) as job:
        (note,) = [note for note in job.notes if "operators" in note]
        assert re.search(reason, note)
        assert "\n" not in note
        assert operators_in(job.step.model) == 0
    assert not list(unbuilt.glob("tmp*"))


def test_a_compiler_that_is_no_command_is_a_note(monkeypatch):
    monkeypatch.setenv("CXX", 'g++ "')
    found = build.loaded.__wrapped__()
    assert found.path is None
    assert "CXX: 'g++ \"'" in found.note


# --- building -----------------------------------------------------------------------------------------------------


def test_processes_that_build_at_once_all_get_the_one_library(library, tmp_path):
    copies = f'test "$1" = --version && echo one && exit; eval last=\\${{$#}}; cp "{library}" "$last"'
    quick = script(tmp_path / "compiler", copies)
    program = (
        "import ctypes, sys, pathlib; from mindcv_mnasnet.kernels import build; "
        "path = build.build(pathlib.Path(sys.argv[1])); print(ctypes.CDLL(str(path)).mnasnet_pool(0), path)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "kernels")]
    variables = {"PATH": "/usr/bin:/bin", "CXX": quick, "HOME": str(tmp_path)}
    several = [subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = {process.communicate(timeout=300)[0].splitlines()[-1] for process in several}
    (file,) = (tmp_path / "kernels").iterdir()
    assert outputs == {f"1 {file}"}  # operators refuse a wrong number of tensors


def test_another_processor_or_compiler_or_source_is_another_library(library, tmp_path, monkeypatch):
    def path(compiler: str = "one", processor: str = "this") -> str:
        text = f'test "$1" = --version && echo {compiler} && exit; eval last=\\${{$#}}; echo > $last'
        monkeypatch.setenv("CXX", script(tmp_path / "compiler", text))
        monkeypatch.setattr(build, "processor", lambda: processor)
        return build.build(tmp_path / "kernels").name

    first = path()
    assert path() == first
    names = {first, path("two"), path(processor="that")}
    monkeypatch.setattr(build, "SOURCE", tmp_path / "operators.cpp")
    build.SOURCE.write_text("int other;")
    assert len(names | {path()}) == 4


FORKING = """
import ctypes, os, sys
import numpy as np

library = ctypes.CDLL(sys.argv[1])
library.mnasnet_set_threads(2)
x = np.arange(64 * 100, dtype=np.float32).reshape(1, 64, 10, 10)


def means():
    y = np.zeros((1, 64, 1, 1), np.float32)
    shapes = [(ctypes.c_int64 * 4)(*a.shape) for a in (x, y)]
    tensors = (ctypes.c_void_p * 2)(x.ctypes.data, y.ctypes.data)
    table = (ctypes.c_void_p * 2)(*map(ctypes.addressof, shapes))
    assert library.mnasnet_pool(2, tensors, (ctypes.c_int * 2)(4, 4), table, None, None, None) == 0
    return y


expected = means()
child = os.fork()
for _ in range(100):
    assert np.array_equal(means(), expected)
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(means(), expected)
    print(float(expected[0, 1, 0, 0]))
"""


def test_threads_outlive_a_fork_and_end_with_their_processes(library):
    command = [sys.executable, "-c", FORKING, library]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "149.5\n", "")
