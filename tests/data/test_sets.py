"""Which folders a recipe's data set consists of, and the refusals where they are not there."""

from __future__ import annotations

import numpy as np
import pytest
from image_files import flat, make_folder, numbered_folder
from PIL import Image

from mindcv_mnasnet.data.digits import write_digits
from mindcv_mnasnet.data.index import list_folder
from mindcv_mnasnet.data.pack_writer import write_pack
from mindcv_mnasnet.data.sets import open_train_val, open_val
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.recipe import load_recipe


def recipe(root, **keys):
    return load_recipe(overrides={"data_dir": str(root), **keys})


def test_train_and_val_folders(tmp_path):
    numbered_folder(tmp_path / "train", 9)
    make_folder(tmp_path / "val", {"class2/1.png": flat(5)})
    train, val = open_train_val(recipe(tmp_path))
    assert len(train) == 9
    assert val.labels.tolist() == [2]
    assert val.class_names == train.class_names
    assert open_val(recipe(tmp_path), train.class_names).labels.tolist() == [2]
    with pytest.raises(UserError, match="val_fraction"):
        open_val(recipe(tmp_path, val_fraction=0.5), train.class_names)


def test_split_names_come_from_the_recipe_and_val_may_be_missing(tmp_path):
    numbered_folder(tmp_path / "learn", 9)
    train, val = open_train_val(recipe(tmp_path, train_split="learn"))
    assert len(train) == 9
    assert val is None
    with pytest.raises(UserError, match="val_split"):
        open_val(recipe(tmp_path, train_split="learn"))
    with pytest.raises(UserError, match="val_fraction"):
        open_train_val(recipe(tmp_path))


def test_training_without_a_training_folder_is_refused(tmp_path):
    numbered_folder(tmp_path / "val", 9)
    with pytest.raises(UserError, match="train_split"):
        open_train_val(recipe(tmp_path))
    with pytest.raises(UserError, match="no folder"):
        open_train_val(recipe(tmp_path / "nowhere"))


def test_a_plain_folder_is_split_alike_for_training_and_validation(tmp_path):
    numbered_folder(tmp_path, 30)
    train, val = open_train_val(recipe(tmp_path, val_fraction=0.2))
    assert sorted(train.paths + val.paths) == sorted(list_folder(tmp_path).paths)
    assert open_val(recipe(tmp_path, val_fraction=0.2), train.class_names).paths == val.paths
    assert len(open_val(recipe(tmp_path))) == 30


def test_a_training_folder_without_val_can_be_split_but_not_beside_one(tmp_path):
    numbered_folder(tmp_path / "train", 30)
    train, val = open_train_val(recipe(tmp_path, val_fraction=0.2))
    assert sorted(train.paths + val.paths) == sorted(list_folder(tmp_path / "train").paths)
    assert open_val(recipe(tmp_path, val_fraction=0.2)).paths == val.paths
    numbered_folder(tmp_path / "val", 3)
    with pytest.raises(UserError, match="val_fraction"):
        open_train_val(recipe(tmp_path, val_fraction=0.2))


def test_packs_stand_in_for_folders(tmp_path):
    for part, count in (("train", 9), ("val", 6)):
        write_pack(list_folder(numbered_folder(tmp_path / "src" / part, count)), tmp_path / "pack" / part, 2)
    for packed, plain in zip(
        open_train_val(recipe(tmp_path / "pack")), open_train_val(recipe(tmp_path / "src")), strict=True
    ):
        assert packed.kind == "mindrecord"
        assert packed.paths == plain.paths
        assert np.array_equal(packed.labels, plain.labels)


def test_a_flat_validation_folder_takes_the_training_classes(tmp_path):
    numbered_folder(tmp_path / "train", 9)
    make_folder(tmp_path / "val", {"val_1.png": flat(1), "val_2.png": flat(2)})
    (tmp_path / "labels.txt").write_text("val_1 class2\nval_2 class1\n")
    _, val = open_train_val(recipe(tmp_path, val_labels=str(tmp_path / "labels.txt")))
    assert val.labels.tolist() == [2, 1]


def test_num_samples_is_a_fixed_even_draw(tmp_path):
    numbered_folder(tmp_path / "train", 60)
    some, _ = open_train_val(recipe(tmp_path, num_samples=20))
    assert len(some) == 20
    assert set(some.labels) == {0, 1, 2}
    assert open_train_val(recipe(tmp_path, num_samples=20))[0].paths == some.paths
    assert len(open_train_val(recipe(tmp_path, num_samples=1000))[0]) == 60


def test_more_classes_than_the_recipe_says_are_refused(tmp_path):
    numbered_folder(tmp_path / "train", 9)
    with pytest.raises(UserError, match="num_classes"):
        open_train_val(recipe(tmp_path, num_classes=2))
    assert len(open_train_val(recipe(tmp_path, num_classes=10))[0]) == 9


def test_the_digits_are_1797_scans_in_a_fixed_split_of_even_classes(tmp_path):
    from sklearn.datasets import load_digits

    train, val = open_train_val(recipe(tmp_path / "digits", dataset="digits"))
    assert (len(train), len(val)) == (1437, 360)
    assert train.class_names == tuple("0123456789")
    shares = np.bincount(val.labels) / np.bincount(np.concatenate([train.labels, val.labels]))
    assert np.all(np.abs(shares - 360 / 1797) < 0.01)
    pixels, labels = load_digits(return_X_y=True)
    for image_index in (train, val):
        for index in range(0, len(image_index), 50):
            number = int(image_index.paths[index].split("/")[1].removesuffix(".png"))
            scan = np.asarray(Image.open(image_index.name(index)))
            assert image_index.labels[index] == labels[number]
            assert np.abs(scan / (255 / 16) - pixels[number].reshape(8, 8)).max() < 0.05


def test_the_digits_are_written_once_and_not_over_something_else(tmp_path):
    root = tmp_path / "digits"
    root.mkdir()
    write_digits(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    write_digits(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    make_folder(tmp_path / "mine", {"photo.png": flat(1)})
    with pytest.raises(UserError, match="holds no digits"):
        write_digits(tmp_path / "mine")
