"""Archives of TensorFlow's weights: what is read of them, and what a hostile one cannot do."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.weights import archive
from mindcv_mnasnet.weights.tensorflow import read_tensorflow


def refusal(path: Path, raw: bool = False) -> str:
    with pytest.raises(UserError) as refused:
        read_tensorflow(path, raw)
    (sentence,) = str(refused.value).splitlines()
    return sentence


def hostile(path: Path, name: str, **fields) -> Path:
    """An archive with one member that ends in .index, of this name and these fields."""
    with tarfile.open(path, "w:gz") as file:
        member = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(member, field, value)
        member.size = 0 if member.linkname else 4
        file.addfile(member, io.BytesIO(b"evil"))
    return path


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("../evil.index", {}),
        ("folder/../../evil.index", {}),
        ("/tmp/evil.index", {}),
        ("folder\\..\\evil.index", {}),
        ("C:/evil.index", {}),
        ("evil.index", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("evil.index", {"type": tarfile.LNKTYPE, "linkname": "../../secret"}),
        ("evil.index", {"type": tarfile.FIFOTYPE}),
    ],
)
def test_members_of_an_archive_stay_in_their_folder(tmp_path, monkeypatch, name, fields):
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.setattr(archive.tempfile, "tempdir", str(inside))
    sentence = refusal(hostile(tmp_path / "evil.tgz", name, **fields))
    assert "has a member" in sentence
    assert "nothing of it is used" in sentence
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["evil.tgz"]


@pytest.mark.parametrize(
    "names", [("a.index", "a.index/b.index"), ("a" * 300 + ".index",), ("a.index", "a.index"), ("a\0b.index",)]
)
def test_members_that_no_folder_can_hold_are_refused(tmp_path, names):
    with tarfile.open(tmp_path / "odd.tgz", "w:gz", format=tarfile.PAX_FORMAT) as file:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 2
            file.addfile(member, io.BytesIO(b"hi"))
    assert str(tmp_path / "odd.tgz") in refusal(tmp_path / "odd.tgz")


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 22)
    with tarfile.open(tmp_path / "bomb.tgz", "w:gz") as file:
        member = tarfile.TarInfo("model.ckpt.index")
        member.size = 1 << 26
        file.addfile(member, io.BytesIO(bytes(1 << 26)))
    assert "unpacks to more than 4 MiB" in refusal(tmp_path / "bomb.tgz")
