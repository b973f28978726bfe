"""check-dataset on annotation files: every fault with its id, and the exit codes that folders have."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from coco_files import annotation, document, write
from PIL import Image
from processes import cli

from mindcv_mnasnet.commands import check_dataset

BOX = [1, 2, 10, 10]


def data_set(root: Path, content: dict, sizes: dict[str, tuple[int, int]]) -> Path:
    for name, size in sizes.items():
        (root / "train").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(root / "train" / name)
    return write(root / "annotations" / "instances_train.json", content)


def check(capsys, *words) -> tuple[int, dict]:
    capsys.readouterr()
    code = cli(*words, "--json", "--workers", 1, program=check_dataset)
    return code, json.loads(capsys.readouterr().out)


def test_sound_boxes_pass_as_a_folder_and_as_a_file(tmp_path, capsys):
    file = data_set(tmp_path, document([(1, 32, 24)], [annotation(1, 1, BOX)]), {"1.png": (32, 24), "2.png": (9, 9)})
    sound = {"bad": [], "refusal": None, "annotations": [{"file": str(file), "faults": []}]}
    for words, images in ((tmp_path, 2), (file, 1)):
        code, report = check(capsys, words)
        del report["notes"]
        assert (code, report) == (0, {"images": images, **sound})
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    assert check(capsys, file)[0] == 1
    assert check(capsys, file, "--images", tmp_path / "elsewhere")[0] == 0


def test_sound_files_that_training_refuses_are_said_to_be(tmp_path, capsys):
    crowd = document([(1, 32, 24)], [annotation(1, 1, BOX, iscrowd=1)])
    data_set(tmp_path / "crowd", crowd, {"1.png": (32, 24)})
    code, report = check(capsys, tmp_path / "crowd")
    assert code == 1
    assert "no box to train on" in report["refusal"]
    content = document([(1, 32, 24)], [annotation(1, 1, BOX)])
    data_set(tmp_path / "other", content, {"1.png": (32, 24)})
    (tmp_path / "other" / "val").symlink_to(tmp_path / "other" / "train")
    write(tmp_path / "other" / "annotations" / "instances_val.json", document([(1, 32, 24)], [], categories=1))
    code, report = check(capsys, tmp_path / "other")
    assert code == 1
    assert "other categories" in report["refusal"]


def test_all_faults_of_a_file_are_listed_at_once_with_their_ids(tmp_path, capsys):
    boxes = [
        annotation(1, 1, BOX),
        annotation(1, 1, BOX),  # twice
        annotation(2, 1, [30, 2, 10, 10]),  # outside
        annotation(3, 1, [1, 2, -3, 10], area=3),
        annotation(4, 1, [1, 2, math.nan, 10], area=3),
        annotation(5, 1, BOX, 9),  # no such category
        annotation(6, 99, BOX),  # no such image
    ]
    file = data_set(
        tmp_path, document([(1, 32, 24), (2, 32, 24), (3, 32, 24)], boxes), {"1.png": (32, 24), "3.png": (24, 32)}
    )
    code, report = check(capsys, file)
    assert code == 1
    ((faults,),) = ([one["faults"] for one in report["annotations"]],)
    ids = ("annotation id 1 ", *(f"annotation id {number}:" for number in (2, 3, 4, 5, 6)), "image id 2:")
    assert len(faults) == len(ids)
    assert all(sum(fault.startswith(start) for fault in faults) == 1 for start in ids)
    assert [one["name"] for one in report["bad"]] == ["3.png"]  # the annotation has another size
    assert check(capsys, tmp_path)[1]["annotations"] == report["annotations"]


def test_a_box_without_an_area_is_no_fault(tmp_path, capsys):
    """Training counts such boxes and leaves them out; COCO's own files have some."""
    file = data_set(tmp_path, document([(1, 32, 24)], [annotation(1, 1, [1, 2, 0, 10])]), {"1.png": (32, 24)})
    assert check(capsys, file)[0] == 0


@pytest.mark.parametrize("text", ['{"images": [', '[{"id": 1}]', '{"info": {}}', "\xff"], ids=repr)
def test_a_truncated_or_foreign_file_is_a_fault(text, tmp_path, capsys):
    file = data_set(tmp_path, document([(1, 32, 24)], []), {"1.png": (32, 24)})
    file.write_text(text, encoding="latin-1")
    for place in (file, tmp_path):
        code, report = check(capsys, place)
        assert code == 1
        assert len(report["annotations"][0]["faults"]) == 1


def test_wrong_use_is_told_apart_from_faults(tmp_path):
    assert cli(tmp_path / "instances_train.json", program=check_dataset) == 2
    data_set(tmp_path, document([(1, 32, 24)], []), {"1.png": (32, 24)})
    assert cli(tmp_path, "--images", tmp_path, program=check_dataset) == 2
