"""MindSpore's .ckpt files, read and written without MindSpore: a protocol-buffer message of named tensors.

``message Checkpoint {repeated Value value = 1;}``, ``Value {string tag = 1; TensorProto tensor = 2;}``,
``TensorProto {repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3;}``
(mindspore/train/checkpoint.proto). A large tensor is written as several values of one tag.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_KINDS: dict[str, np.dtype[Any]] = {
    "Float32": np.dtype("<f4"),
    "Float16": np.dtype("<f2"),
    "Float64": np.dtype("<f8"),
    "BFloat16": np.dtype("<u2"),
    **{f"Int{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    "UInt8": np.dtype("u1"),
    "Bool": np.dtype("?"),
}
_MOST = 2**31 - 1  # numbers along an axis
_CHECKSUM = b"crc_num"  # and ten bytes, at the end of a file that was saved with crc_check


def read_ckpt(file: bytes) -> dict[str, np.ndarray]:
    """The tensors of a .ckpt file by name.

    bfloat16 comes as float32; text that was appended (``append_dict``) is left out.

    Raises:
        ValueError: it is truncated, encrypted or no such file, or its checksum is another.
    """
    if file[-10 - len(_CHECKSUM) : -10] == _CHECKSUM:
        file, expected = file[: -10 - len(_CHECKSUM)], int.from_bytes(file[-10:], "big")
        if zlib.crc32(file) != expected:
            raise ValueError("its content does not match its checksum")
    kinds: dict[str, str] = {}
    parts: dict[str, bytearray] = {}
    dims: dict[str, tuple[int, ...]] = {}
    for number, value in _fields(memoryview(file)):
        if number != 1 or isinstance(value, int):
            raise ValueError("it is no message of MindSpore's checkpoint.proto")
        fields = dict(_fields(value))
        tag, tensor = fields.get(1), fields.get(2)
        if not isinstance(tag, memoryview) or not isinstance(tensor, memoryview):
            raise ValueError("it has a value without a name or tensor")
        name = bytes(tag).decode("utf-8")
        shape, kind, raw = _tensor(tensor)
        if kind.lower() in ("str", "string"):
            continue
        if kind not in _KINDS:
            raise ValueError(f"{name} is of type {kind}")
        kinds[name] = kind
        if dims.setdefault(name, shape) != shape:
            raise ValueError(f"{name} is there twice")
        parts.setdefault(name, bytearray()).extend(raw)
    found = {}
    for name, content in parts.items():
        stored: np.dtype[Any] = _KINDS[kinds[name]]
        shape = () if dims[name] == (0,) and len(content) == stored.itemsize else dims[name]  # how scalars are written
        if len(content) != stored.itemsize * math.prod(shape) or max(shape, default=0) > _MOST:
            raise ValueError(f"{name} has {len(content)} bytes, which is not its shape {shape}")
        values = widened(bytes(content)) if kinds[name] == "BFloat16" else np.frombuffer(bytes(content), stored)
        found[name] = values.reshape(shape)
    return found


def widened(content: bytes) -> np.ndarray:
    """Numbers of bfloat16, which are the upper half of float32, as float32."""
    return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)


def write_ckpt(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The content of a .ckpt file with float32 tensors."""
    out = bytearray()
    for name, value in tensors.items():
        dims = b"".join(b"\x08" + _varint(size) for size in value.shape)
        content = np.asarray(value, _KINDS["Float32"], order="C").tobytes()
        tensor = dims + _lengthened(2, b"Float32") + _lengthened(3, content)
        out += _lengthened(1, _lengthened(1, name.encode()) + _lengthened(2, tensor))
    return bytes(out)


def _tensor(message: memoryview) -> tuple[tuple[int, ...], str, memoryview]:
    shape: list[int] = []
    kind, raw = "", memoryview(b"")
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            shape.append(value)
        elif number == 1 and isinstance(value, memoryview):  # packed
            at = 0
            while at < len(value):
                size, at = _read_varint(value, at)
                shape.append(size)
        elif number == 2 and isinstance(value, memoryview):
            kind = bytes(value).decode("utf-8", "replace")
        elif number == 3 and isinstance(value, memoryview):
            raw = value
    return tuple(shape), kind, raw


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("it is no protocol-buffer message")
        if at + size > len(message):
            raise ValueError("it is truncated")
        yield key >> 3, message[at : at + size]
        at += size


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it is truncated")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("it is no protocol-buffer message")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def _lengthened(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content
