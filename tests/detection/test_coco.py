"""Annotation files: what is read, and that every fault is told with its id."""

from __future__ import annotations

import copy
import json
import math

import pytest
from coco_files import annotation, document, write

from mindcv_mnasnet.detection.coco import judge, read_annotations
from mindcv_mnasnet.errors import UserError

SOUND = document(
    [(7, 64, 48), (3, 32, 32)],
    [annotation(2, 7, [1, 2, 30, 20], 2), annotation(1, 7, [0, 0, 64, 48], iscrowd=1), annotation(5, 7, [4, 4, 0, 9])],
)


def test_a_sound_file_is_read_by_id_with_nothing_lost(tmp_path):
    read = read_annotations(write(tmp_path / "a.json", SOUND))
    assert [image.id for image in read.images] == [3, 7]
    assert [box.id for box in read.images[1].boxes] == [1, 2, 5]
    assert read.category_ids == (10, 20)
    assert read.class_names == ("class 1", "class 2")
    crowd, plain, degenerate = read.images[1].boxes
    assert (crowd.crowd, plain.crowd) == (True, False)
    assert (plain.left, plain.top, plain.width, plain.height, plain.area, plain.category) == (1, 2, 30, 20, 600, 20)
    assert degenerate.width == 0


def with_change(kind: str, index: int, **values) -> dict:
    changed = copy.deepcopy(SOUND)
    changed[kind][index].update(values)
    return changed


FAULTS = {
    "outside": (with_change("annotations", 0, bbox=[40, 2, 30, 20]), "annotation id 2", "64 x 48"),
    "negative": (with_change("annotations", 0, bbox=[1, 2, -3, 20]), "annotation id 2", "negative"),
    "not a number": (with_change("annotations", 0, bbox=[1, 2, math.nan, 20]), "annotation id 2", "finite"),
    "three numbers": (with_change("annotations", 0, bbox=[1, 2, 3]), "annotation id 2", "four"),
    "category": (with_change("annotations", 0, category_id=99), "annotation id 2", "99"),
    "image": (with_change("annotations", 0, image_id=99), "annotation id 2", "99"),
    "area": (with_change("annotations", 0, area=-1), "annotation id 2", "area -1"),
    "crowd": (with_change("annotations", 0, iscrowd=2), "annotation id 2", "iscrowd"),
    "annotation twice": (with_change("annotations", 0, id=1), "annotation id 1", "twice"),
    "image twice": (with_change("images", 0, id=3), "image id 3", "twice"),
    "category twice": (with_change("categories", 0, id=20), "category id 20", "twice"),
    "names alike": (with_change("categories", 0, name="class 2"), "[10, 20]", "class 2"),
    "file twice": (with_change("images", 1, file_name="7.png"), "image id 3", "image id 7"),
    "file elsewhere": (with_change("images", 1, file_name="../3.png"), "image id 3", "leaves"),
    "no size": (with_change("images", 0, width=None), "image id 7", "None"),
    "no id": (with_change("annotations", 0, id="x"), "annotation number 0", "id"),
    "id too large": (with_change("annotations", 0, id=2**63), "annotation number 0", "id"),
    "number too large": (with_change("annotations", 0, bbox=[10**400, 0, 1, 1]), "annotation id 2", "finite"),
    "area too large": (with_change("annotations", 0, area=10**400), "annotation id 2", "area"),
    "image too large": (with_change("images", 0, width=10**400), "image id 7", "width and height"),
    "box of a name": (with_change("annotations", 0, bbox={"x": 1}), "annotation id 2", "finite"),
    "no crowd": (with_change("annotations", 0, iscrowd=None), "annotation id 2", "iscrowd"),
    "no entry": ({**SOUND, "annotations": [[1, 2]]}, "annotation number 0", "id"),
    "half a character": (with_change("categories", 0, name="\ud800"), "category id 10", "printable"),
    "two lines": (with_change("categories", 0, name="a\nb"), "category id 10", "printable"),
    "null in a file name": (with_change("images", 0, file_name="a\0.png"), "image id 7", "printable"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_with_its_id(tmp_path, name):
    content, who, what = FAULTS[name]
    _, faults = judge(write(tmp_path / "a.json", content))
    assert any(who in fault and what in fault for fault in faults), faults
    with pytest.raises(UserError, match="faults"):
        read_annotations(tmp_path / "a.json")


def test_all_faults_of_a_file_are_listed(tmp_path):
    broken = copy.deepcopy(SOUND)
    for number, one in enumerate(broken["annotations"]):
        one.update(bbox=[0, 0, -1, 1], category_id=77 + number)
    _, faults = judge(write(tmp_path / "a.json", broken))
    assert len(faults) == 6
    assert {number for number in (1, 2, 5) if any(f"annotation id {number}:" in fault for fault in faults)} == {1, 2, 5}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (json.dumps(SOUND)[:-30], "truncated"),
        ("[]", "no list images"),
        (json.dumps({"images": [], "annotations": []}), "no list categories"),
        (json.dumps({"images": [], "annotations": [], "categories": []}), "lists no images"),
        ("\0\1", "JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_other_files_are_refused_in_a_sentence(tmp_path, text, word):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=word):
        judge(path)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(SOUND), encoding="utf-8-sig")
    assert len(read_annotations(path).images) == 2


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no annotation file"):
        judge(tmp_path / "a.json")
