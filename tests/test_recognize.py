"""What a weight file is, by its content: whatever its name, and whatever its first bytes happen to look like."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save
from weight_files import network, stored, tensors, write

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.inference.opened import open_model
from mindcv_mnasnet.run.checkpoint import write_checkpoint
from mindcv_mnasnet.weights.conventions import recipe_for
from mindcv_mnasnet.weights.convert import convert, open_weights
from mindcv_mnasnet.weights.files import read_stored
from mindcv_mnasnet.weights.mindspore_file import write_ckpt
from mindcv_mnasnet.weights.read import read_weights
from mindcv_mnasnet.weights.recognize import kind_of


def with_header_of(length: int) -> bytes:
    """A safetensors file of timm whose header is that long."""
    tensors = dict(stored("timm", network("timm", "small")).tensors)
    bare = int.from_bytes(save(tensors, {"note": ""})[:8], "little")
    content = save(tensors, {"note": "x" * (length - bare)})
    assert int.from_bytes(content[:8], "little") == length
    return content


@pytest.mark.parametrize("length", [0x13C20, 0x17B20, 0x15B20])
def test_the_length_of_a_header_is_no_mark_of_text(tmp_path, length):
    (tmp_path / "x.safetensors").write_bytes(with_header_of(length))
    assert "conv_stem.weight" in read_stored(tmp_path / "x.safetensors").tensors


@pytest.mark.parametrize("length", [60, 91, 123])
def test_the_length_of_a_tensor_is_no_mark_of_text(tmp_path, length):
    values = next(
        {name: np.zeros(2, np.float32)}
        for name in ("n" * count + ".gamma" for count in range(length))
        if write_ckpt({name: np.zeros(2, np.float32)})[1] == length
    )
    (tmp_path / "x.ckpt").write_bytes(write_ckpt(values))
    assert read_stored(tmp_path / "x.ckpt").tensors.keys() == values.keys()


@pytest.mark.parametrize("text", ['{"user":{"name":1}}', '\n{"a": 1}', "\ufeff[1, 2]", "\n <!DOCTYPE HTML>"])
def test_text_is_known_with_blanks_before_it(tmp_path, text):
    (tmp_path / "x.safetensors").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"is (JSON|a web page)"):
        kind_of(tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["O.SAFETENSORS", "best.st", "own.pth", "own", "run.data-2.safetensors"])
def test_a_checkpoint_of_ours_keeps_its_conventions_under_any_name(tmp_path, name):
    net = network("tf", "small", classes=3)
    meta = {"recipe": recipe_for("tf", net, None).to_dict(), "network": net.to_dict(), "class_names": list("abc")}
    write_checkpoint(tmp_path / name, tensors(net), {**meta, "source": "tf"})
    own, opened = read_weights(tmp_path / name), open_weights(tmp_path / name)
    assert own.network == opened.network == net
    assert own.class_names == opened.class_names == ("a", "b", "c")
    assert own.recipe == opened.recipe
    assert opened.recipe.eval_crop == "tf_square"
    assert opened.meta["source"] == own.source == "tf"


def test_checkpoints_of_ours_are_written_under_their_suffix_alone(tmp_path):
    src = write(tmp_path / "theirs.safetensors", "timm", network("timm", "small"))
    for name in ("own.pth", "own", "own.ckpt"):
        with pytest.raises(UserError, match=r"end in \.safetensors"):
            convert(src, tmp_path / name, target="own")
    convert(src, tmp_path / "OWN.SAFETENSORS")
    assert open_weights(tmp_path / "OWN.SAFETENSORS").meta["source"] == "timm"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["OWN.SAFETENSORS", "theirs.safetensors"]


@pytest.mark.parametrize(("suffix", "content"), [(".onnx", b"\x08\x08\x12\x07pytorch"), (".tflite", b"\x1c\0\0\0TFL3")])
def test_an_exported_file_is_known_by_its_suffix_in_any_case(tmp_path, suffix, content):
    for name in (f"net{suffix}", f"NET{suffix.upper()}"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"damaged|not installed"):
            open_model(str(tmp_path / name))
    (tmp_path / "net.bin").write_bytes(content)
    with pytest.raises(UserError, match=rf"not a weight file; .* if their names end in \{suffix}"):
        open_model(str(tmp_path / "net.bin"))
