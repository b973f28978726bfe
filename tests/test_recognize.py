"""What a weight file is, by its content: whatever its name, and whatever its first bytes happen to look like."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save
from weight_files import network, stored

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.weights.files import read_stored
from mindcv_mnasnet.weights.mindspore_file import write_ckpt
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
