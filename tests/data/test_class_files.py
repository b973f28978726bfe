"""Class names are read from whatever people keep them in."""

from __future__ import annotations

import pytest

from mindcv_mnasnet.data.class_files import read_class_names
from mindcv_mnasnet.errors import UserError

NAMES = ["cat", "polar bear", "dog, small"]


@pytest.mark.parametrize(
    "text",
    [
        "cat\npolar bear\ndog, small\n",
        "\ufeffcat\r\npolar bear\r\n\r\ndog, small",
        'cat\npolar bear\n"dog, small"\n',
        "class_name\ncat\npolar bear\ndog, small\n",
        '1,polar bear\n0,cat\n2,"dog, small"\n',
        "id;name\n0;cat\n1;polar bear\n2;dog, small\n",
        "0\tcat\n1\tpolar bear\n2\tdog, small\n",
        "0 cat\n1 polar bear\n2 dog, small\n",
        "0: cat\n1: polar bear\n2: dog, small\n",
        "1, cat\n2, polar bear\n3, dog, small\n",
        'name,index\ncat,0\n"dog, small",2\npolar bear,1\n',
        '["cat", "polar bear", "dog, small"]',
        '{"2": "dog, small", "0": "cat", "1": "polar bear"}',
        '{"cat": 0, "dog, small": 2, "polar bear": 1}',
        "{0: 'cat',\n 1: 'polar bear',\n 2: 'dog, small'}",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_every_form_gives_the_names_in_order(tmp_path, text, encoding):
    path = tmp_path / "names.txt"
    path.write_bytes(text.lstrip("\ufeff" if encoding == "utf-16" else "").encode(encoding))
    assert read_class_names(path) == NAMES


@pytest.mark.parametrize(
    "text",
    [
        "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n",
        '{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}',
    ],
)
def test_wordnet_ids_are_names_and_titles_are_not(tmp_path, text):
    path = tmp_path / "names"
    path.write_text(text)
    assert read_class_names(path) == ["n01440764", "n01443537"]


def test_names_that_are_numbers_stay_in_their_order(tmp_path):
    path = tmp_path / "names"
    path.write_text("10\n2\n1\n")
    assert read_class_names(path) == ["10", "2", "1"]


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "names").write_text("cat\ndog\n")
    assert read_class_names("~/names") == ["cat", "dog"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cat\ndog\ncat\n", "'cat' twice"),
        ("e\u0301\n\u00e9\n", "twice"),
        ("", "no names"),
        ('{"0": "cat", "2": "dog"}', "0 to 1"),
        ('{"0": ', "cannot be read"),
        ("{open('x')}", "cannot be read"),
        ("[1, [2], __import__('os')]", "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, text, says):
    path = tmp_path / "names"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        read_class_names(path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "names").write_bytes(b"caf\xe9\n")
    for name, says in (("names", "no text in UTF-8"), ("nowhere", "cannot be read")):
        with pytest.raises(UserError, match=says):
            read_class_names(tmp_path / name)
