"""Predictions of detectors: boxes in the original image's pixels, tables, drawn images, refusals."""

from __future__ import annotations

import csv
import io
import json

import detector_files
import numpy as np
import pytest
from coco_files import colored_data_set
from PIL import Image
from processes import cli, refused

import mindcv_mnasnet as mm
from mindcv_mnasnet.commands import predict
from mindcv_mnasnet.detection.drawing import draw
from mindcv_mnasnet.export.export import Options, export
from mindcv_mnasnet.inference.detect import FoundObjects, formatted, make_folder, write_drawn


@pytest.fixture(scope="module")
def model(tmp_path_factory, cpu):
    folder = tmp_path_factory.mktemp("detector")
    data = colored_data_set(folder / "data")
    return data, detector_files.write(folder / "net.safetensors", data)


def test_boxes_of_a_rotated_image_are_those_of_the_upright_one(model, tmp_path):
    upright = Image.open(model[0] / "val" / "1.png").resize((48, 80))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    upright.save(tmp_path / "a.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    one, other = mm.open_detector(str(model[1])).predict([tmp_path / "a.png", tmp_path / "b.png"], 0.1)
    assert (one.width, one.height) == (other.width, other.height) == (48, 80)
    assert len(one.boxes) > 0
    assert one.boxes == other.boxes
    assert one.scores == other.scores
    assert max(box[2] for box in one.boxes) <= 48 < max(box[3] for box in one.boxes) <= 80


def test_a_grayscale_image_is_answered_as_the_color_image_of_its_pixels(model, tmp_path):
    gray = Image.open(model[0] / "val" / "0.png").convert("L")
    gray.save(tmp_path / "a.png")
    gray.convert("RGB").save(tmp_path / "b.png")
    one, other = mm.open_detector(str(model[1])).predict(tmp_path, 0.1)
    assert len(one.boxes) > 0
    assert (one.boxes, one.classes) == (other.boxes, other.classes)


def test_files_and_images_of_other_sizes_give_boxes_as_shares(model, tmp_path):
    image = Image.new("RGB", (60, 40), (230, 40, 40))
    image.save(tmp_path / "1.png")
    image.resize((120, 80)).save(tmp_path / "2.png")
    export(model[1], tmp_path / "a.mindir", Options("mindir", data_dir=str(model[0])))
    found = [
        one
        for path in (model[1], tmp_path / "a.mindir")
        for one in mm.open_detector(str(path)).predict([tmp_path / "1.png", tmp_path / "2.png"], 0.1)
    ]
    small = found[0]
    assert len(small.boxes) > 0
    for one, scale in zip(found[1:], (2, 1, 2), strict=True):
        assert np.allclose(np.array(one.boxes), scale * np.array(small.boxes), atol=0.01)


FOUND = [
    FoundObjects("a.png", 60, 40, ("cat", "dog"), (0, 1), (0.9, 0.5), ((1.0, 2.0, 30.5, 40.0), (0.0, 0.0, 5.0, 6.0))),
    FoundObjects("b.png", 10, 10, (), (), (), ()),
]


def test_tables_say_all_that_was_found():
    rows = list(csv.DictReader(io.StringIO(formatted(FOUND, "csv"))))
    assert [(row["path"], row["rank"], row["class"], float(row["right"])) for row in rows] == [
        ("a.png", "1", "cat", 30.5),
        ("a.png", "2", "dog", 5.0),
    ]
    first, second = map(json.loads, formatted(FOUND, "jsonl").splitlines())
    assert first["objects"][0] == {"class": "cat", "score": 0.9, "box": [1.0, 2.0, 30.5, 40.0]}
    assert (first["width"], first["height"], second["objects"]) == (60, 40, [])
    assert len(formatted(FOUND, "table").splitlines()) == 4


def test_a_drawn_box_lies_on_its_own_pixels_and_changes_no_others():
    image = Image.new("L", (200, 100), 128)
    drawn = np.asarray(draw(image, [((50.0, 40.0, 150.0, 90.0), "cat", 3)])).astype(int)
    assert drawn.shape == (100, 200, 3)
    changed = (drawn != 128).any(2)
    assert changed[40, 50:150].all()
    assert changed[89, 50:150].all()
    assert changed[40:90, 50].all()
    assert changed[40:90, 149].all()
    assert not changed[45:85, 55:145].any()
    assert not changed[90:].any()
    assert not changed[:, 150:].any()
    assert not changed[:, :50].any()


def test_captions_stay_in_the_image_and_classes_differ_in_color():
    image = Image.new("RGB", (80, 60))
    pixels = [np.asarray(draw(image, [((70.0, 0.0, 80.0, 10.0), "a long caption", kind)])) for kind in (0, 1, 2)]
    assert len({one[0, 40].tobytes() for one in pixels}) == 3


def test_images_of_one_name_are_drawn_to_files_of_their_own(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        Image.new("L", (30, 20)).save(tmp_path / folder / "a.png")
    found = [FoundObjects(str(tmp_path / folder / "a.png"), 30, 20, (), (), (), ()) for folder in ("x", "y")]
    make_folder(tmp_path / "drawn", [one.path for one in found])
    write_drawn(tmp_path / "drawn", found)
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a-2.png", "a.png"]


def test_the_folder_of_the_images_is_not_drawn_to(model, tmp_path, capsys):
    Image.open(model[0] / "val" / "0.png").save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "link"):
        said = refused(capsys, model[1], tmp_path / "a.png", "--drawn", folder, program=predict)
        assert f"{tmp_path / 'a.png'} itself" in said
    assert (tmp_path / "a.png").read_bytes() == before


def test_a_score_below_the_recipes_is_heeded(model):
    images = sorted((model[0] / "val").glob("*.png"))
    usual, floor = (mm.open_detector(str(model[1]), evaluation=keys) for keys in ({}, {"min_score": 0.9}))
    low, high = usual.predict(images, 0.05), floor.predict(images, 0.9)
    assert floor.predict(images, 0.05) == low
    assert floor.predict(images, 0.9) == high
    assert sum(len(one.boxes) for one in low) > sum(len(one.boxes) for one in high)


def test_the_command_writes_tables_and_drawn_images(model, tmp_path, capsys):
    data, path = model
    given = (path, data / "val", "--min_score", 0.1, "--format", "jsonl", "--drawn", tmp_path / "drawn")
    assert cli(*given, program=predict) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 4
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 4
    assert all(one["score"] >= 0.1 for line in lines for one in line["objects"])


@pytest.mark.parametrize(
    ("key", "value"), [("top", 3), ("features", "a.npy"), ("contact_sheet", "a.png"), ("min_score", 1.5)]
)
def test_what_a_detector_has_no_use_for_is_refused_by_name(key, value, model, capsys):
    data, path = model
    assert refused(capsys, path, data / "val", f"--{key}", value, program=predict).startswith(f"error: {key}: ")


def test_a_detector_is_no_classifier(model):
    with pytest.raises(ValueError, match="open_detector"):
        mm.open_classifier(str(model[1]))
