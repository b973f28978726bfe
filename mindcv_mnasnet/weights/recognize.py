"""What a file given as weights is, from its first bytes: one of the kinds that are read, or something else by name."""

from __future__ import annotations

import zipfile
from pathlib import Path

from mindcv_mnasnet.errors import UserError

PYTORCH = (".pth", ".pt", ".bin", ".tar")
READABLE = (*PYTORCH, ".safetensors", ".ckpt")
_BY_SUFFIX = {**dict.fromkeys(PYTORCH, "pytorch"), ".safetensors": "safetensors", ".ckpt": "ckpt"}
_TEXTS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch that with: git lfs pull"),
    (b"<", "a web page, not weights; download the file that the page links to"),
    (b"{", "JSON, such as a server's message, not weights"),
    (b"[", "JSON, such as a server's message, not weights"),
)
_RUN = "not a weight file; predict and validate run such files if their names end in"
_OTHERS = (
    (0, b"\x89HDF", "an HDF5 file of Keras, which is not read here"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it first"),
    (4, b"TFL3", f"a TFLite file, {_RUN} .tflite"),
    (257, b"ustar", "a tar archive; unpack it first"),
    (0, b"\x93NUMPY", "an array of NumPy, which has no names of tensors"),
    (0, b"\x89PNG", "an image"),
    (0, b"\xff\xd8\xff", "an image"),
    *((0, bytes([8, version, 18]), f"an ONNX model, {_RUN} .onnx") for version in range(3, 16)),
)


def kind_of(path: Path) -> str:
    """ "pytorch", "safetensors" or "ckpt": by the content where it tells, else by the suffix in any case.

    Raises:
        UserError: there is no such file, or it is something else; the sentence says what.
    """
    if path.is_dir():
        what = "a SavedModel of TensorFlow" if (path / "saved_model.pb").is_file() else "a folder"
        raise UserError(f"{path} is {what} without a weight file; name the checkpoint in it")
    if not path.is_file():
        raise UserError(f"no weight file {path}")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise UserError(f"{path} is an empty file")
    if _is_safetensors(head):
        return "safetensors"
    if other := _something_else(head):
        raise UserError(f"{path} is {other}")
    if head.startswith(b"PK"):
        _require_plain_archive(path)
        return "pytorch"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and len(head) > 2:
        return "pytorch"  # a pickle, as torch wrote before it wrote archives
    kind = _BY_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path} has an unknown suffix; weights are read from {', '.join(READABLE)} and TensorFlow's")
    return kind


def is_safetensors(path: Path) -> bool:
    """Whether there is a safetensors file, whatever its name; TensorFlow's prefixes and folders are none."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _is_safetensors(file.read(9))


def _is_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a JSON text, in eight bytes, and that text."""
    return head[4:9] == b"\0\0\0\0{"  # the format allows 100 MB of text


def _something_else(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if all(byte >= 32 or byte in b"\t\n\r\f\v" for byte in text):  # else it is no text, whatever it begins with
        for mark, what in _TEXTS:
            if text.startswith(mark):
                return what
    return next((what for at, mark, what in _OTHERS if head.startswith(mark, at)), None)


def _require_plain_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return  # its reader says what is wrong with it
    if any(name.endswith("constants.pkl") for name in names):
        raise UserError(f"{path} is a TorchScript program, not weights; save the state_dict() of the model instead")
    if not any(name.endswith("data.pkl") for name in names):
        raise UserError(f"{path} is a zip archive without weights of PyTorch ({', '.join(names[:3])})")
