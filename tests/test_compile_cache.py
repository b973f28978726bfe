"""Graphs kept between runs: the same bits, found again only for what they were compiled for, never half written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from mindcv_mnasnet.train.compile_cache import KEPT, CompileCache

pytestmark = pytest.mark.usefixtures("cpu")
TESTS = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def program(monkeypatch):
    """A file, which pytest's parallel workers do not have; and a process that has kept no graph yet."""
    monkeypatch.setattr(sys, "argv", [__file__])
    monkeypatch.setattr(CompileCache, "_used", False)


TRAIN = """
import pathlib, sys
import mindcv_mnasnet
import mindspore  # as any module of the package may, before the one that sets up the device
import numpy as np
import tiny
from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.train.compile_cache import CompileCache
runtime.start("CPU", deterministic=True)
step = tiny.train_step(float(sys.argv[2]), seed=int(sys.argv[3]), opt="rmsprop", momentum=0.9, ema=True)
images, labels = tiny.batch()
with CompileCache("test", folder=pathlib.Path(sys.argv[1])).first_call(step, images, labels, None):
    losses = [tiny.run(step, images, labels)]
losses += [tiny.run(step, images, labels) for _ in range(3)]
print("RESULT", *losses, *(float(np.abs(value).sum(dtype=np.float64)) for value in step.state().values()))
"""


def train(folder, rate=0.01, seed=0):
    program = folder.with_name("train_tiny.py")
    program.write_text(TRAIN)
    command = [sys.executable, str(program), str(folder), str(rate), str(seed)]
    paths = os.pathsep.join((str(TESTS), str(TESTS.parent)))
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": paths})
    return next(line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RESULT")), done.stderr


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """(folder with a graph, what the training that compiled it came to)."""
    folder = tmp_path_factory.mktemp("kept") / "a"
    return folder, train(folder)[0]


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.is_file()}


def test_a_kept_graph_computes_the_same_bits_also_for_other_weights_and_rates(kept):
    folder, first = kept
    before = stamps(folder)
    assert len(before) >= 2
    again, said = train(folder)
    assert again == first
    other, _ = train(folder, rate=0.02, seed=1)
    assert stamps(folder) == before
    assert other == train(folder.with_name("b"), rate=0.02, seed=1)[0] != first
    assert "WARNING" not in said


def test_a_damaged_graph_is_not_used(kept):
    folder, first = kept
    (graph,) = folder.rglob("*.mindir")
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-100])
    assert train(folder)[0] == first
    (written,) = folder.rglob("*.mindir")
    assert written.stat().st_size == len(whole)
    assert len(list(folder.iterdir())) == 1


def test_whatever_changes_the_graph_changes_its_place(tmp_path):
    images, labels = tiny.batch()
    cache, step = CompileCache("one", folder=tmp_path), tiny.train_step()
    own = cache._key(step, (images, labels))
    assert own == CompileCache("one", folder=tmp_path)._key(tiny.train_step(0.5, seed=3), (images, labels))
    others = {
        CompileCache("two", folder=tmp_path)._key(step, (images, labels)),
        cache._key(step, (images[:2], labels)),
        cache._key(step, (images.astype(np.float32), labels)),
        cache._key(tiny.train_step(net=tiny.network(head=24)), (images, labels)),
        cache._key(tiny.train_step(ema=True), (images, labels)),
        cache._key(step.set_train(False), (images, labels)),
    }
    assert len(others | {own}) == 7


def test_only_the_first_graph_of_a_process_is_kept(tmp_path):
    """MindSpore writes later ones to the folder of the first."""
    step, inputs = tiny.train_step(), tiny.batch()
    kept = []
    for _ in range(2):
        with CompileCache(folder=tmp_path).first_call(step, *inputs):
            kept.append(os.environ["MS_COMPILER_CACHE_ENABLE"])
    assert kept == ["1", "0"]


def test_what_fails_leaves_nothing_and_a_place_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    step, inputs = tiny.train_step(), tiny.batch()
    with pytest.raises(ZeroDivisionError), CompileCache(folder=tmp_path / "new").first_call(step, *inputs):
        raise ZeroDivisionError
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(CompileCache, "_used", False)
    with CompileCache(folder=tmp_path / "file" / "graphs").first_call(step, *inputs):
        pass
    assert os.environ["MS_COMPILER_CACHE_ENABLE"] == "0"


def test_at_a_prompt_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [""])
    with CompileCache(folder=tmp_path / "graphs").first_call(tiny.train_step(), *tiny.batch()):
        assert os.environ["MS_COMPILER_CACHE_ENABLE"] == "0"
    assert not (tmp_path / "graphs").exists()


_READERS = """
import ctypes, os, threading
from pathlib import Path
from mindcv_mnasnet.devices import environment, runtime

library = ctypes.CDLL(None)
library.getenv.restype = ctypes.c_void_p

def read():
    while True:
        library.getenv(b"NO_SUCH_VARIABLE")

for _ in range(3):
    threading.Thread(target=read, daemon=True).start()
names = set(os.environ)
for number in range(3000):
    with environment.graphs_kept_in(Path(f"folder-{number}")):
        assert set(os.environ) == names
"""


def test_threads_may_read_the_environment_while_a_graph_is_kept():
    """Those of data pipelines do; a variable that is added under them ends the process with a segmentation fault."""
    done = subprocess.run([sys.executable, "-c", _READERS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_oldest_graphs_go(tmp_path):
    for number in range(KEPT + 3):
        (tmp_path / f"{number:03}").mkdir()
        os.utime(tmp_path / f"{number:03}", (number, number))
    with CompileCache(folder=tmp_path).first_call(tiny.train_step(), *tiny.batch()):
        pass
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == KEPT
    assert not left & {"000", "001", "002", "003"}
