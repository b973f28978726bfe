"""VOC's and YOLO's boxes as COCO's, to the pixel; every fault told with its file, and nothing written over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from processes import cli

from mindcv_mnasnet.commands import convert_boxes
from mindcv_mnasnet.detection.coco import read_annotations

CAT, DOG = ("cat", (1, 1, 40, 20)), ("dog", (11, 6, 30, 30))  # corners as VOC has them


def image(path: Path, width: int = 40, height: int = 30, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (width, height), 99).save(path, **options)


def xml(*objects: tuple[str, tuple], size: tuple[int, int] = (40, 30), difficult: int = 0) -> str:
    things = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
        + "".join(f"<{key}>{v}</{key}>" for key, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
        + "</bndbox></object>"
        for name, corners in objects
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{things}</annotation>"


def voc(root: Path, **files: str) -> Path:
    """A VOC folder with an image for each file of labels."""
    (root / "Annotations").mkdir(parents=True)
    for name, text in files.items():
        (root / "Annotations" / f"{name}.xml").write_text(text)
        image(root / "JPEGImages" / f"{name}.jpg")
    return root


def convert(*words, output: Path) -> int:
    return cli(*words, "--output", output, program=convert_boxes)


def test_voc_corners_count_from_one_and_include_the_last_pixel(tmp_path):
    source = voc(tmp_path / "voc", b=xml(CAT, DOG), a=xml(), c=xml(DOG, difficult=1))
    output = tmp_path / "a.json"
    assert convert("voc", source, output=output) == 0
    read = read_annotations(output)
    assert [one.file_name for one in read.images] == ["a.jpg", "b.jpg", "c.jpg"]
    assert read.class_names == ("cat", "dog")
    cat, dog = read.images[1].boxes
    assert (cat.left, cat.top, cat.width, cat.height, cat.category, cat.crowd) == (0, 0, 40, 20, 1, False)
    assert (dog.left, dog.top, dog.width, dog.height, dog.category) == (10, 5, 20, 25, 2)
    assert read.images[2].boxes[0].crowd


def test_a_list_takes_a_part_and_given_classes_keep_their_ids(tmp_path):
    source = voc(tmp_path / "voc", a=xml(CAT), b=xml(DOG))
    (tmp_path / "val.txt").write_text("b\n")
    output = tmp_path / "val.json"
    assert convert("voc", source, "--list", tmp_path / "val.txt", "--classes", "cat", "dog", output=output) == 0
    read = read_annotations(output)
    assert [(one.file_name, one.boxes[0].category) for one in read.images] == [("b.jpg", 2)]
    assert read.class_names == ("cat", "dog")


BOMB = '<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z SYSTEM "file:///etc/hostname">]><annotation>&x;&z;</annotation>'
FAULTS = {
    "entities": BOMB,
    "truncated": xml(CAT)[:-20],
    "another_schema": "<html></html>",
    "another_size": xml(CAT, size=(30, 40)),
    "outside": xml(("cat", (1, 1, 50, 20))),
    "inside_out": xml(("cat", (20, 1, 10, 20))),
    "no_number": xml(("cat", (1, 1, "nan", 20))),
    "no_name": xml(("", (1, 1, 9, 9))),
}


def test_every_fault_of_voc_is_told_with_its_file_and_nothing_is_written_unless_asked_for(tmp_path, capsys):
    source = voc(tmp_path / "voc", sound=xml(DOG), no_image=xml(DOG), **FAULTS)
    (source / "JPEGImages" / "no_image.jpg").unlink()
    output = tmp_path / "a.json"
    assert convert("voc", source, output=output) == 1
    assert not output.exists()
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert sorted(line.split(":")[1].strip() for line in told) == sorted(
        f"{name}.xml" for name in (*FAULTS, "no_image")
    )
    assert convert("voc", source, "--skip_faults", output=output) == 0
    boxes = {one.file_name: len(one.boxes) for one in read_annotations(output).images}
    assert boxes.pop("sound.jpg") == 1
    assert set(boxes) == {f"{name}.jpg" for name in ("outside", "inside_out", "no_number", "no_name")}
    assert set(boxes.values()) == {0}


@pytest.mark.parametrize("said", ["<width/><height/>", "<width>40.0</width><height>30</height>", ""])
def test_a_size_that_voc_does_not_say_is_no_contradiction(said, tmp_path):
    text = xml(CAT)
    text = text[: text.index("<size>") + 6] + said + text[text.index("</size>") :]
    assert convert("voc", voc(tmp_path / "voc", a=text), output=tmp_path / "a.json") == 0


def test_the_filename_tells_images_of_one_name_apart(tmp_path, capsys):
    source = voc(tmp_path / "voc", a=xml(CAT).replace("<size>", "<filename>a.jpg</filename><size>"), b=xml(CAT))
    image(source / "JPEGImages" / "a.png")
    assert convert("voc", source, output=tmp_path / "a.json") == 0
    assert [one.file_name for one in read_annotations(tmp_path / "a.json").images] == ["a.jpg", "b.jpg"]
    image(source / "JPEGImages" / "b.png")
    assert convert("voc", source, output=tmp_path / "b.json") == 1
    assert "b.xml: its image may be any of b.jpg, b.png" in capsys.readouterr().err


def test_files_that_are_no_labels_are_no_faults_and_marks_of_utf8_no_text(tmp_path):
    source = voc(tmp_path / "voc", a=xml(CAT))
    (source / "Annotations" / "._a.xml").write_bytes(b"\0macOS")
    (tmp_path / "list.txt").write_text("\ufeffa\n")
    assert convert("voc", source, "--list", tmp_path / "list.txt", output=tmp_path / "voc.json") == 0
    source = yolo(tmp_path / "yolo", {"a": "\ufeff1 0.5 0.5 0.5 0.2\n"})
    (source / "data.yaml").unlink()
    (source / "classes.txt").write_text("\ufeffcat\ndog\n")
    for name in ("._a.txt", "README.dataset.txt", "README.roboflow.txt"):
        (source / "labels" / "train" / name).write_text("0 0 0 0 0 text")
    assert convert("yolo", source / "images" / "train", output=tmp_path / "yolo.json") == 0
    assert read_annotations(tmp_path / "yolo.json").class_names == ("cat", "dog")


@pytest.mark.parametrize("classes", [("cat", "cat"), ("", "dog"), ("cat", "do\ng")])
def test_names_that_no_file_can_hold_are_refused(classes, tmp_path):
    source = yolo(tmp_path / "yolo", {"a": "0 0.5 0.5 0.5 0.2\n"})
    assert convert("yolo", source / "images" / "train", "--classes", *classes, output=tmp_path / "a.json") == 2
    assert not (tmp_path / "a.json").exists()


def test_an_image_whose_labels_cannot_be_read_is_left_out(tmp_path):
    source = yolo(tmp_path / "yolo", {"a": "0 0.5 0.5 0.5 0.2\n", "b": ""})
    (source / "labels" / "train" / "b.txt").write_bytes(b"\xff\xfe\xff")
    assert convert("yolo", source / "images" / "train", "--skip_faults", output=tmp_path / "a.json") == 0
    assert [one.file_name for one in read_annotations(tmp_path / "a.json").images] == ["a.png"]


def test_entities_are_never_expanded(tmp_path, capsys):
    source = voc(tmp_path / "voc", bomb=BOMB, sound=xml(CAT))
    assert convert("voc", source, output=tmp_path / "a.json") == 1
    assert "document type" in capsys.readouterr().err


def yolo(root: Path, labels: dict[str, str], names: str = "names: [cat, dog]\n") -> Path:
    (root / "labels" / "train").mkdir(parents=True)
    (root / "data.yaml").write_text(names)
    for name, text in labels.items():
        image(root / "images" / "train" / f"{name}.png")
        (root / "labels" / "train" / f"{name}.txt").write_text(text)
    return root


@pytest.mark.parametrize("names", ["names: [cat, dog]\n", "names: {1: dog, 0: cat}\n"], ids=["list", "numbered"])
def test_yolo_shares_become_pixels(tmp_path, names):
    source = yolo(tmp_path / "yolo", {"a": "1 0.5 0.5 0.5 0.2\n\n0 0.25 0.5 0.5 1\n"}, names)
    image(source / "images" / "train" / "empty.png")
    assert convert("yolo", source / "images" / "train", output=tmp_path / "a.json") == 0
    read = read_annotations(tmp_path / "a.json")
    dog, cat = read.images[0].boxes
    assert (dog.left, dog.top, dog.width, dog.height) == pytest.approx((10, 12, 20, 6))
    assert (cat.left, cat.top, cat.width, cat.height) == pytest.approx((0, 0, 20, 30))
    assert [read.class_names[box.category - 1] for box in (dog, cat)] == ["dog", "cat"]
    assert [(one.file_name, len(one.boxes)) for one in read.images] == [("a.png", 2), ("empty.png", 0)]


def test_boxes_are_those_of_the_upright_image(tmp_path):
    source = yolo(tmp_path / "yolo", {"a": "0 0.5 0.5 1 1\n"})
    exif = Image.Exif()
    exif[0x0112] = 6
    (source / "images" / "train" / "a.png").unlink()
    image(source / "images" / "train" / "a.jpg", exif=exif)
    assert convert("yolo", source / "images" / "train", output=tmp_path / "a.json") == 0
    (read,) = read_annotations(tmp_path / "a.json").images
    assert (read.width, read.height, read.boxes[0].width) == (30, 40, 30)


YOLO_FAULTS = {
    "polygon": "0 0.1 0.1 0.2 0.2 0.3 0.3\n",
    "class": "2 0.5 0.5 0.1 0.1\n",
    "half_a_class": "0.5 0.5 0.5 0.1 0.1\n",
    "outside": "0 0.9 0.5 0.5 0.1\n",
    "negative": "0 0.5 0.5 -0.1 0.1\n",
    "flat": "0 0.5 0.5 0 0.1\n",
    "infinite": "0 0.5 0.5 inf 0.1\n",
    "words": "cat 0.5 0.5 0.1 0.1\n",
}


def test_every_fault_of_yolo_is_told_with_its_file(tmp_path, capsys):
    source = yolo(tmp_path / "yolo", YOLO_FAULTS | {"sound": "0 0.5 0.5 0.5 0.5\n"})
    (source / "labels" / "train" / "lonely.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    assert convert("yolo", source, output=tmp_path / "a.json") == 1
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert {Path(line.split(":")[1].strip()).stem for line in told} == {*YOLO_FAULTS, "lonely"}
    assert len(told) == len(YOLO_FAULTS) + 1


def test_wrong_use_ends_with_code_2_and_an_output_is_never_overwritten(tmp_path):
    source = yolo(tmp_path / "yolo", {"a": "0 0.5 0.5 0.5 0.2\n"}, "nc: 2\n")
    output = tmp_path / "a.json"
    assert convert("yolo", source, output=output) == 2  # no class names
    assert convert("yolo", source, "--classes", "cat", "dog", output=output) == 0
    before = output.read_bytes()
    assert convert("yolo", source, "--classes", "cat", output=output) == 2
    assert output.read_bytes() == before
    assert convert("voc", tmp_path / "nowhere", output=tmp_path / "b.json") == 2
    assert convert("voc", source, output=tmp_path / "b.json") == 2  # no XML files
    assert json.loads(before)["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
