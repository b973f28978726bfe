"""Folders of checkpoints: which is the newest, which are kept, and what a full disk or a kill leaves."""

import errno
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_checkpoint import TENSORS, cut, flip, write

from mindcv_mnasnet.errors import JobError
from mindcv_mnasnet.run.checkpoint import (
    checkpoints_in,
    newest_intact,
    prune,
    publish,
    read_checkpoint,
    write_checkpoint,
)


def test_newest_is_what_got_furthest_whatever_the_names_and_times_say(tmp_path):
    paths = {batches: write(tmp_path, batches) for batches in (900, 1000000, 20)}
    renamed = paths[20].rename(tmp_path / "step_z.safetensors")
    os.utime(paths[900], (2e9, 2e9))
    assert checkpoints_in(tmp_path) == [paths[1000000], paths[900], renamed]
    found, complaints = newest_intact(tmp_path)
    assert (found.path, complaints) == (paths[1000000], [])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flip(path, 8 * path.stat().st_size - 5),
        lambda path: flip(path, 8 * 9),
        lambda path: cut(path, path.stat().st_size - 1),
        lambda path: cut(path, 30),
        lambda path: cut(path, 0),
    ],
    ids=["bit in a tensor", "bit in the header", "end missing", "half a header", "nothing"],
)
def test_the_newest_intact_checkpoint_is_found_behind_broken_ones_and_said_so(tmp_path, damage):
    intact, *broken = (write(tmp_path, batches) for batches in (1, 2, 3))
    for path in broken:
        damage(path)
    found, complaints = newest_intact(tmp_path)
    assert found.path == intact
    assert sorted(path.name for path in broken for text in complaints if path.name in text) == [p.name for p in broken]
    damage(intact)
    found, complaints = newest_intact(tmp_path)
    assert found is None
    assert len(complaints) == 3


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert newest_intact(tmp_path) == (None, [])
    assert newest_intact(tmp_path / "none") == (None, [])


def test_pruning_keeps_the_newest_and_drops_the_unreadable_first(tmp_path):
    paths = [write(tmp_path, batches) for batches in (1, 2, 3, 4, 5)]
    cut(paths[4], 100)
    other = tmp_path / "best.safetensors"
    publish(paths[0], other.name)
    prune(tmp_path, 2)
    assert sorted(tmp_path.iterdir()) == [other, paths[2], paths[3]]


def test_pruning_by_score_keeps_the_newest_and_the_best(tmp_path):
    scores = {1: 50.0, 2: 70.0, 3: 60.0, 4: 10.0}
    paths = {n: write(tmp_path, n, {"metrics": {"val_top1": s - 5, "val_top1_ema": s}}) for n, s in scores.items()}
    paths[5] = write(tmp_path, 5)  # between validations
    paths[6] = write(tmp_path, 6, {"metrics": {"val_top1": 1.0}})
    prune(tmp_path, 3, "top_k")
    assert set(tmp_path.iterdir()) == {paths[6], paths[2], paths[3]}


@pytest.mark.parametrize("links", [True, False])
def test_a_published_name_stands_for_the_checkpoint_even_when_that_is_gone(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "not here")))
    for batches in (1, 2):
        path = write(tmp_path, batches)
        publish(path, "best.safetensors")
        path.unlink()
        assert read_checkpoint(tmp_path / "best.safetensors").meta["batches"] == batches
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


def test_publishing_survives_what_an_earlier_crash_left(tmp_path):
    (tmp_path / "best.safetensors.partial").write_bytes(b"half")
    publish(write(tmp_path, 1), "best.safetensors")
    assert read_checkpoint(tmp_path / "best.safetensors").meta["batches"] == 1
    assert not (tmp_path / "best.safetensors.partial").exists()


def test_writing_a_checkpoint_again_leaves_its_published_name_alone(tmp_path):
    path = write(tmp_path, 1)
    publish(path, "best.safetensors")
    write(tmp_path, 1, {"again": True})
    assert "again" not in read_checkpoint(tmp_path / "best.safetensors").meta


# --- failing to write ---------------------------------------------------------------------------------------------


@contextmanager
def small_files():
    """Files cannot grow beyond 500 bytes: the kernel's own refusal."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        yield "File too large"
    finally:  # before pytest writes again, whose output may be a file
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def full_disk():
    """The disk is found to be full when a file is flushed to it."""

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        yield "No space left on device"


@pytest.mark.parametrize("trouble", [small_files, full_disk])
def test_a_full_disk_is_told_with_the_path_and_leaves_the_old_file(tmp_path, trouble):
    path = tmp_path / "step_1.safetensors"
    path.write_bytes(b"old")
    with trouble() as reason:
        try:
            write_checkpoint(path, TENSORS, {})
        except JobError as error:
            told = str(error)
        else:
            told = "nothing"
    assert str(path) in told
    assert reason in told
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(JobError, match="nowhere"):
        write_checkpoint(tmp_path / "nowhere" / "a.safetensors", TENSORS, {})


ROOT = Path(__file__).resolve().parents[1]
WRITER = """
import sys
from pathlib import Path
import numpy as np
from mindcv_mnasnet.run.checkpoint import write_checkpoint
for number in range(100000):
    write_checkpoint(Path(sys.argv[1]), {"a": np.full(1_000_000, number, np.float32)}, {"batches": number})
    print(number, flush=True)
"""


@pytest.mark.parametrize("writes", [1, 3, 6])
def test_a_process_killed_while_writing_leaves_a_whole_file(tmp_path, writes):
    path = tmp_path / "step_1.safetensors"
    command = [sys.executable, "-c", WRITER, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    done = [int(process.stdout.readline()) for _ in range(writes)]
    process.kill()
    process.communicate()
    read = read_checkpoint(path)
    assert read.meta["batches"] >= done[-1]
    assert (read.tensors["a"] == read.meta["batches"]).all()
