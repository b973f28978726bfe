"""Checkpoints: what comes back is what was written, or an error that says why not."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.run import checkpoint
from mindcv_mnasnet.run.checkpoint import (
    BrokenCheckpointError,
    checkpoints_in,
    newest_intact,
    read_checkpoint,
    write_checkpoint,
)

TENSORS = {
    "stem.weight": np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4),
    "ema.stem.weight": np.linspace(0, 2, 24, dtype=np.float32).reshape(2, 3, 4),
    "optimizer.momentum.stem.weight": np.zeros((2, 3, 4), np.float32),
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
    monkeypatch.setattr(checkpoint, "_FORMAT", checkpoint._FORMAT + 1)
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


def test_tensors_of_the_first_format_have_their_present_names(tmp_path, monkeypatch):
    former = {
        "optimiser.momentum.stem.weight": np.zeros(3, np.float32),
        "quantisation.batches": np.ones(1, np.float32),
        "ema.quantisation.batches": np.ones(1, np.float32),
        "stem.optimiser.weight": np.ones(2, np.float32),
    }
    monkeypatch.setattr(checkpoint, "_FORMAT", 1)
    write_checkpoint(tmp_path / "old.safetensors", former, {"batches": 1})
    monkeypatch.undo()
    assert set(read_checkpoint(tmp_path / "old.safetensors").tensors) == {
        "optimizer.momentum.stem.weight",
        "quantization.batches",
        "ema.quantization.batches",
        "stem.optimiser.weight",
    }
