"""Label files of flat validation folders."""

from __future__ import annotations

import json

import numpy as np
import pytest
from image_files import flat, make_folder

from mindcv_mnasnet.data.labels import list_flat
from mindcv_mnasnet.errors import UserError

CLASSES = ("ape", "bee", "cow")


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "val", {f"val_{number}.JPEG": flat(number) for number in (3, 1, 2)})


def labels_of(folder, text, classes=CLASSES):
    file = folder.parent / "labels.txt"
    file.write_text(text)
    return list_flat(folder, file, classes)


@pytest.mark.parametrize(
    "text",
    [
        "val_1.JPEG cow\nval_2.JPEG ape\nval_3.JPEG bee\n",
        "val_3.JPEG 1\nval_2.JPEG 0\n\nval_1.JPEG 2\nval_9.JPEG 0\n",
        "ImageId,PredictionString\nval_2,ape 1 2 3 4\nval_1,cow 1 2 3 4 cow 5 6 7 8\nval_3,bee 1 2 3 4\n",
        "2\n0\n1\n",
        "cow\nape\nbee\n",
        "[2, 0, 1]",
        "[[2], [0], [1]]",
    ],
    ids=["names", "numbers", "kaggle", "ordered", "ordered_names", "json", "json_lists"],
)
def test_every_format_gives_the_same_labels(folder, text):
    image_index = labels_of(folder, text)
    assert image_index.paths == ("val_1.JPEG", "val_2.JPEG", "val_3.JPEG")
    assert image_index.labels.tolist() == [2, 0, 1]
    assert image_index.class_names == CLASSES


def test_several_right_labels_are_rows_filled_with_minus_one(folder):
    image_index = labels_of(folder, "[[2, 0], [], [1]]")
    assert image_index.labels.tolist() == [[2, 0], [-1, -1], [1, -1]]
    assert image_index.labels.dtype == np.int32


def test_class_folders_can_be_relabeled_in_the_order_of_file_names(tmp_path):
    make_folder(tmp_path / "val", {"b/val_1.png": flat(1), "a/val_2.png": flat(2)})
    image_index = labels_of(tmp_path / "val", json.dumps([[5], [7]]), None)
    assert image_index.paths == ("b/val_1.png", "a/val_2.png")
    assert image_index.labels.tolist() == [5, 7]


def test_without_known_classes_they_come_from_the_labels(folder):
    assert labels_of(folder, "2\n0\n1\n", None).class_names == ("0", "1", "2")
    named = labels_of(folder, "val_1 zoo\nval_2 ape\nval_3 zoo\n", None)
    assert (named.class_names, named.labels.tolist()) == (("ape", "zoo"), [1, 0, 1])


def test_class_names_that_are_numbers_win_over_positions(folder):
    assert labels_of(folder, "val_1 1\nval_2 7\nval_3 7\n", ("7", "1")).labels.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2\n0\n", "2 labels for 3 images"),
        ("val_1 ape\nval_2 ape\n", "no label for the image val_3.JPEG"),
        ("2\n0\n3\n", "'3', none of the 3 classes"),
        ("dog\nape\nape\n", "'dog'"),
        ("[1, 2", "cannot read"),
        ("[[], [], []]", "no labels"),
        ("1\n7\n1000\n", "counts from 1"),
        ('{"val_1": ["ape", "bee"], "val_2": "ape", "val_3": "ape"}', r"holds \['ape', 'bee'\] where"),
        ('["ape", null, "bee"]', "holds None where"),
        ("[[0], [[1]], [2]]", r"holds \[1\] where"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_what_is_wrong(folder, text, says):
    with pytest.raises(UserError, match=says):
        labels_of(folder, text)


def test_a_missing_file_or_folder_of_nothing_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        list_flat(folder, tmp_path / "nowhere.txt", CLASSES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        list_flat(tmp_path / "empty", tmp_path / "labels.txt", CLASSES)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffval_1.JPEG cow\nval_2.JPEG ape\nval_3.JPEG bee\n",
        '"val_1.JPEG","cow"\n"val_2.JPEG","ape"\n"val_3.JPEG","bee"\n',
        "file;class\nval_1.JPEG;cow\nval_2.JPEG; ape\nval_3.JPEG;bee\n",
        "val_1.JPEG\tcow\r\nval_2.JPEG\tape\r\nval_3.JPEG\tbee\r\n",
        "./val_1.JPEG cow\n./val/val_2.JPEG ape\nimages/val/val_3.JPEG bee\n",
        ".\\val_1.JPEG cow\nval\\val_2.JPEG ape\nC:\\mine\\val_3.JPEG bee\n",
        "image label\nval_1.JPEG cow\nval_2.JPEG ape\nval_3.JPEG bee\n",
    ],
    ids=["bom", "quoted", "semicolons", "tabs", "dots", "backslashes", "header"],
)
def test_label_files_are_read_as_people_have_them(folder, text):
    assert labels_of(folder, text).labels.tolist() == [2, 0, 1]


def test_a_mapping_of_names_to_labels_and_text_that_is_no_unicode(folder, tmp_path):
    assert labels_of(folder, json.dumps({"val_2": 0, "val_1": 2, "val_3": 1}), CLASSES).labels.tolist() == [2, 0, 1]
    (tmp_path / "latin.csv").write_bytes("image,class\nval_1,b\xe4r\n".encode("latin-1"))
    with pytest.raises(UserError, match="save it as UTF-8"):
        list_flat(folder, tmp_path / "latin.csv", CLASSES)


@pytest.mark.parametrize("separator", [" ", "\t", ";", ","])
def test_names_of_images_and_classes_may_hold_blanks(tmp_path, separator):
    make_folder(tmp_path / "val", {"my photo 1.png": flat(1), "my photo 2.png": flat(2)})
    text = f"my photo 2.png{separator}great ape\nmy photo 1.png{separator}bee\n"
    assert labels_of(tmp_path / "val", text, ("bee", "great ape")).labels.tolist() == [0, 1]


def test_a_label_file_in_the_home_folder_is_found(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    (folder.parent / "labels.txt").write_text("2\n0\n1\n")
    assert list_flat(folder, "~/labels.txt", CLASSES).labels.tolist() == [2, 0, 1]


def test_a_home_of_nobody_is_a_name_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "~nobody-is-called-that", {"a.png": flat(1)})
    with pytest.raises(UserError, match="~nobody-is-called-that"):
        list_flat(tmp_path / "~nobody-is-called-that", "~nobody-is-called-that/labels.txt", CLASSES)


def test_labels_are_names_or_positions_all_or_none(folder):
    counting = tuple(str(number) for number in range(1, 11))
    image_index = labels_of(folder, "val_1 0\nval_2 9\nval_3 1\n", counting)
    assert image_index.labels.tolist() == [0, 9, 1]
    assert "labels counted from 0" in image_index.notes[0]


def test_a_name_with_a_folder_is_none_of_an_image_in_another(tmp_path):
    make_folder(tmp_path / "val", {"A/1.png": flat(1), "A/2.png": flat(2)})
    both = "A/1.png ape\nB/1.png bee\nB/2.png cow\ndata/val/A/2.png bee\n"
    assert labels_of(tmp_path / "val", both).labels.tolist() == [0, 1]
    assert labels_of(tmp_path / "val", "1.png ape\n2 bee\n").labels.tolist() == [0, 1]
    with pytest.raises(UserError, match=r"no label for the image A/1\.png"):
        labels_of(tmp_path / "val", "B/1.png,ape\nB/2.png,bee\n")


def test_numbers_that_are_no_labels_are_refused_before_they_become_millions_of_classes(folder):
    with pytest.raises(UserError, match="holds the number 20240131"):
        labels_of(folder, "20240131\n0\n1\n", None)


def test_an_image_with_two_labels_is_refused(folder):
    with pytest.raises(UserError, match="two labels, 'ape' and 'bee'"):
        labels_of(folder, "val_1 ape\nval_2 bee\nval_3 bee\nval_1 bee\n")
    assert labels_of(folder, "val_1 ape\nval_2 bee\nval_3 bee\nval_1 ape\n").labels.tolist() == [0, 1, 1]
