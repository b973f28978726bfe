"""Checkpoints: what comes back is what was written, or an error that says why not."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mindcv_mnasnet import checkpoint
from mindcv_mnasnet.arch import resolve
from mindcv_mnasnet.checkpoint import (
    BrokenCheckpointError,
    checkpoints_in,
    newest_intact,
    prune,
    publish,
    read_checkpoint,
    write_checkpoint,
)
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.recipe import load_recipe

TENSORS = {
    "stem.weight": np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4),
    "ema.stem.weight": np.linspace(0, 2, 24, dtype=np.float32).reshape(2, 3, 4),
    "optimiser.momentum.stem.weight": np.zeros((2, 3, 4), np.float32),
    "state.step": np.array(7, np.int32),
}
DTYPES = st.sampled_from(["float32", "float16", "float64", "int32", "int64", "uint8", "bool"])
ANY_TENSORS = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}(\.[a-z0-9_]{1,8}){0,3}", fullmatch=True),
    DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=4))),
    max_size=5,
)


def write(folder: Path, batches: int, meta: dict | None = None) -> Path:
    """A training checkpoint after so many batches."""
    path = folder / f"step_{batches:06d}.safetensors"
    write_checkpoint(path, TENSORS, {"batches": batches, **(meta or {})})
    return path


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


# --- round trip ---------------------------------------------------------------------------------------------------


@given(ANY_TENSORS, st.sampled_from("CF"))
def test_every_bit_comes_back(tmp_path_factory, tensors, order):
    path = tmp_path_factory.mktemp("trip") / "any.safetensors"
    write_checkpoint(path, {name: np.array(value, order=order) for name, value in tensors.items()}, {"batches": 1})
    back = read_checkpoint(path).tensors
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        assert (back[name].dtype, back[name].shape) == (value.dtype, value.shape)
        assert back[name].tobytes() == value.tobytes()


def test_recipe_network_and_class_names_come_back(tmp_path):
    recipe = load_recipe(overrides={"model": "semnasnet_075", "lr": 0.3, "scale": (0.2, 1.0), "num_classes": 2})
    network = recipe.network()
    meta = {"recipe": recipe.to_dict(), "network": network.to_dict(), "class_names": ["n01 «x»", "b"], "batches": 3}
    path = write(tmp_path, 3, meta)
    for read in (read_checkpoint(path), read_checkpoint(path, only_meta=True)):
        assert read.recipe == recipe
        assert read.network == network == resolve("semnasnet_075", num_classes=2)
        assert read.class_names == ("n01 «x»", "b")
        assert read.meta["batches"] == 3
    assert not read_checkpoint(path, only_meta=True).tensors


def test_other_programs_can_read_the_tensors(tmp_path):
    loaded = safetensors.numpy.load_file(write(tmp_path, 1))
    assert loaded.keys() == TENSORS.keys()
    np.testing.assert_array_equal(loaded["stem.weight"], TENSORS["stem.weight"])


def test_weights_are_the_averages_where_there_are_some_unless_asked_otherwise(tmp_path):
    read = read_checkpoint(write(tmp_path, 1))
    raw, averaged = TENSORS["stem.weight"], TENSORS["ema.stem.weight"]
    for ema, expected in ((None, averaged), (True, averaged), (False, raw)):
        assert read.weights(ema).keys() == {"stem.weight"}
        np.testing.assert_array_equal(read.weights(ema)["stem.weight"], expected)


def test_averages_that_are_not_there_are_not_made_up(tmp_path):
    write_checkpoint(tmp_path / "raw.safetensors", {"stem.weight": TENSORS["stem.weight"]}, {})
    read = read_checkpoint(tmp_path / "raw.safetensors")
    np.testing.assert_array_equal(read.weights()["stem.weight"], TENSORS["stem.weight"])
    with pytest.raises(UserError, match=r"raw\.safetensors has no averaged"):
        read.weights(ema=True)


# --- damage -------------------------------------------------------------------------------------------------------


def test_a_file_cut_anywhere_is_broken(tmp_path):
    path = write(tmp_path, 1)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(BrokenCheckpointError, match=r"step_000001\.safetensors"):
            read_checkpoint(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(BrokenCheckpointError):
        read_checkpoint(path)


def test_a_flipped_bit_anywhere_is_noticed(tmp_path):
    path = write(tmp_path, 1)
    whole = path.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(whole)), 2000):
        flip(path, bit)
        with pytest.raises(BrokenCheckpointError):
            read_checkpoint(path)
        path.write_bytes(whole)
    read_checkpoint(path)


def test_damage_to_a_description_stops_nothing_but_its_own_reading(tmp_path):
    path = write(tmp_path, 1)
    whole = path.read_bytes()
    for bit in range(8 * int.from_bytes(whole[:8], "little")):
        flip(path, bit)
        with suppress(UserError):
            read_checkpoint(path, only_meta=True)
        assert checkpoints_in(tmp_path) == [path]
        path.write_bytes(whole)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 zip", b"\xff" * 100, json.dumps({"a": 1}).encode()])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.ckpt"
    path.write_bytes(content)
    with pytest.raises(BrokenCheckpointError, match=r"other\.ckpt .* not a safetensors file"):
        read_checkpoint(path)


def test_other_programs_tensors_are_refused(tmp_path):
    path = tmp_path / "theirs.safetensors"
    safetensors.numpy.save_file(TENSORS, path)
    with pytest.raises(BrokenCheckpointError, match="not a checkpoint of mindcv_mnasnet"):
        read_checkpoint(path)


def test_a_newer_format_is_not_called_broken(tmp_path, monkeypatch):
    old = write(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "_FORMAT", 2)
    new = write(tmp_path, 2)
    monkeypatch.undo()
    for only_meta in (False, True):
        with pytest.raises(UserError, match="newer version") as caught:
            read_checkpoint(new, only_meta)
        assert not isinstance(caught.value, BrokenCheckpointError)
    with pytest.raises(UserError, match="newer version"):  # rather than to lose what the newer version did
        newest_intact(tmp_path)
    assert read_checkpoint(old).meta["batches"] == 1


def test_no_file_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        read_checkpoint(tmp_path / "none.safetensors")


# --- folders ------------------------------------------------------------------------------------------------------


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
    paths = {n: write(tmp_path, n, {"metrics": {"val_top1": 99 - s, "val_top1_ema": s}}) for n, s in scores.items()}
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


@pytest.fixture(params=["write", "flush"])
def full_disk(request, monkeypatch):
    """Files cannot grow beyond 500 bytes (the kernel's own refusal), or the disk fills when they are flushed to it."""
    if request.param == "flush":

        def refuse(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", refuse)
        yield "No space left on device"
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    yield "File too large"
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_told_with_the_path_and_leaves_the_old_file(tmp_path, full_disk):
    path = tmp_path / "step_1.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(JobError) as caught:
        write_checkpoint(path, TENSORS, {})
    assert str(path) in str(caught.value)
    assert full_disk in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(JobError, match="nowhere"):
        write_checkpoint(tmp_path / "nowhere" / "a.safetensors", TENSORS, {})


WRITER = """
import sys
from contextlib import suppress
from pathlib import Path
import numpy as np
from mindcv_mnasnet.checkpoint import write_checkpoint
for number in range(100000):
    write_checkpoint(Path(sys.argv[1]), {"a": np.full(1_000_000, number, np.float32)}, {"batches": number})
    print(number, flush=True)
"""


@pytest.mark.parametrize("writes", [1, 3, 6])
def test_a_process_killed_while_writing_leaves_a_whole_file(tmp_path, writes):
    path = tmp_path / "step_1.safetensors"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    done = [int(process.stdout.readline()) for _ in range(writes)]
    process.kill()
    process.communicate()
    read = read_checkpoint(path)
    assert read.meta["batches"] >= done[-1]
    assert (read.tensors["a"] == read.meta["batches"]).all()
