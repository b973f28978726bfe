"""Images of a run are known again; what its recipe says about data holds for them alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from image_files import encode, flat, make_folder, numbered_folder, scene

from mindcv_mnasnet.data.identity import Identity, Relation
from mindcv_mnasnet.data.index import list_folder
from mindcv_mnasnet.data.known import described, open_known_val, require_same
from mindcv_mnasnet.data.pack_writer import write_pack
from mindcv_mnasnet.data.packs import open_pack
from mindcv_mnasnet.data.sets import in_folder, open_train, open_train_val, with_absolute_places
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.recipe import load_recipe


def folder(root: Path, images: int, name: str = "", gray: int = 0) -> Path:
    """Two classes of images whose gray value goes by number, starting at ``gray``."""
    names = {f"{'ab'[n % 2]}/{name}{n:03d}.png": flat((gray + n) % 256) for n in range(images)}
    return make_folder(root, names)


def stored(identity: Identity) -> Identity:
    return Identity.from_dict(json.loads(json.dumps(identity.to_dict())))


# --- identity ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_the_same_wherever_it_lies(tmp_path):
    known = stored(Identity.of(list_folder(folder(tmp_path / "one", 30))))
    assert (known.images, known.classes) == (30, 2)
    assert known.relation(list_folder(folder(tmp_path / "two", 30))) is Relation.SAME


def test_a_folder_that_grew_or_shrank_is_the_changed_one(tmp_path):
    known = stored(Identity.of(list_folder(folder(tmp_path / "one", 100))))
    assert known.relation(list_folder(folder(tmp_path / "more", 130))) is Relation.CHANGED
    assert known.relation(list_folder(folder(tmp_path / "less", 90))) is Relation.CHANGED


def test_other_names_and_other_images_are_told_apart(tmp_path):
    known = stored(Identity.of(list_folder(folder(tmp_path / "one", 30))))
    assert known.relation(list_folder(folder(tmp_path / "two", 30, "photo-"))) is Relation.OTHER
    assert known.relation(list_folder(folder(tmp_path / "three", 30, gray=100))) is Relation.UNCLEAR


def test_one_replaced_image_makes_no_other_set(tmp_path):
    root = folder(tmp_path, 30)
    known = Identity.of(list_folder(root))
    (root / "a" / "000.png").write_bytes(flat(200))
    assert known.relation(list_folder(root)) is Relation.SAME


def test_png_files_are_the_same_however_they_were_compressed(tmp_path):
    for level in (0, 9):
        images = {f"{name}/1.png": encode(scene(seed=ord(name)), "PNG", compress_level=level) for name in "ab"}
        make_folder(tmp_path / str(level), images)
    known = Identity.of(list_folder(tmp_path / "0"))
    assert known.relation(list_folder(tmp_path / "9")) is Relation.SAME


def test_a_pack_is_the_folder_that_it_was_made_of(tmp_path):
    index = list_folder(folder(tmp_path / "src", 30))
    write_pack(index, tmp_path / "pack", shards=2)
    packed = open_pack(tmp_path / "pack")
    assert Identity.of(index).relation(packed) is Relation.SAME
    assert Identity.of(packed).relation(open_pack(tmp_path / "pack")) is Relation.SAME
    assert Identity.of(packed).relation(list_folder(folder(tmp_path / "other", 30, "x"))) is Relation.OTHER


# --- a run's validation -----------------------------------------------------------------------------------------------


def trained(root, **keys):
    """Recipe, classes and known images of a run in a folder."""
    recipe = load_recipe(overrides={"data_dir": str(root), **keys})
    train, val = open_train_val(recipe)
    return recipe, train.class_names, described(train, val)


def recipe_with(recipe, **keys):
    """The run's recipe with what is said for one validation."""
    return replace(recipe, **keys, given=frozenset(keys))


def test_a_share_of_the_run_is_taken_of_its_own_folder_and_of_no_other(tmp_path):
    recipe, classes, known = trained(folder(tmp_path / "own", 60), val_fraction=0.2)
    own = open_known_val(recipe_with(recipe), classes, known)
    assert own.paths == open_train_val(recipe)[1].paths
    assert own.notes == ()
    folder(tmp_path / "own copy", 60)
    assert open_known_val(recipe_with(recipe, data_dir=str(tmp_path / "own copy")), classes, known).paths == own.paths
    folder(tmp_path / "other", 60, "photo-", gray=100)
    other = open_known_val(recipe_with(recipe, data_dir=str(tmp_path / "other")), classes, known)
    assert len(other) == 60
    assert "all 60 count" in other.notes[0]
    asked = recipe_with(recipe, data_dir=str(tmp_path / "other"), val_fraction=0.2)
    assert len(open_known_val(asked, classes, known)) < 30


def test_an_image_that_was_trained_on_is_not_validated_after_the_folder_grew(tmp_path):
    recipe, classes, known = trained(folder(tmp_path, 60), val_fraction=0.2)
    train, val = open_train_val(recipe)
    folder(tmp_path, 100)
    grown = open_known_val(recipe_with(recipe), classes, known)
    assert not set(train.paths) & set(grown.paths)
    assert set(val.paths) <= set(grown.paths)
    assert "set apart by name" in grown.notes[0]


def test_a_split_by_position_is_refused_after_the_folder_changed(tmp_path):
    recipe, classes, known = trained(folder(tmp_path, 60), val_fraction=0.2, split_by="position")
    assert len(open_known_val(recipe_with(recipe), classes, known)) == 12
    folder(tmp_path, 100)
    with pytest.raises(UserError, match="val_fraction"):
        open_known_val(recipe_with(recipe), classes, known)
    assert len(open_known_val(recipe_with(recipe, val_fraction=None), classes, known)) == 100


def test_renamed_images_of_the_run_are_no_other_images(tmp_path):
    recipe, classes, known = trained(folder(tmp_path, 60), val_fraction=0.2)
    for path in list(tmp_path.glob("*/*")):
        path.rename(path.with_name(f"renamed-{path.name}"))
    with pytest.raises(UserError, match="have other names"):
        open_known_val(recipe_with(recipe), classes, known)
    assert len(open_known_val(recipe_with(recipe, val_fraction=None), classes, known)) == 60


def test_other_images_under_the_same_names_have_to_be_spoken_of(tmp_path):
    recipe, classes, known = trained(folder(tmp_path / "own", 60), val_fraction=0.2)
    other = str(folder(tmp_path / "other", 60, gray=100))
    with pytest.raises(UserError, match="--val_fraction"):
        open_known_val(recipe_with(recipe, data_dir=other), classes, known)
    assert len(open_known_val(recipe_with(recipe, data_dir=other, val_fraction=None), classes, known)) == 60


def test_a_validation_folder_comes_before_the_share_and_training_images_are_named(tmp_path):
    recipe, classes, known = trained(folder(tmp_path / "own", 60), val_fraction=0.2)
    folder(tmp_path / "parts" / "val", 6)
    parts = open_known_val(recipe_with(recipe, data_dir=str(tmp_path / "parts")), classes, known)
    assert len(parts) == 6
    assert "val_fraction of the run is not applied" in parts.notes[-1]
    folder(tmp_path / "set" / "train", 30)
    folder(tmp_path / "set" / "val", 10, "v")
    recipe, classes, known = trained(tmp_path / "set")
    again = open_known_val(recipe_with(recipe, data_dir=str(tmp_path / "set" / "train")), classes, known)
    assert "trained on" in again.notes[-1]
    assert open_known_val(recipe_with(recipe), classes, known).notes == ()


@pytest.fixture
def labeled(tmp_path):
    """A run whose validation folder is flat, its labels by position: b, a, b, a, ..."""
    folder(tmp_path / "set" / "train", 30)
    make_folder(tmp_path / "set" / "val", {f"{n:02d}.png": flat(n) for n in range(10)})
    (tmp_path / "labels.txt").write_text("b\na\n" * 5)
    return trained(tmp_path / "set", val_labels=str(tmp_path / "labels.txt"))


def test_labels_of_one_set_are_not_given_to_another_by_position(labeled, tmp_path):
    recipe, classes, known = labeled
    assert open_known_val(recipe_with(recipe), classes, known).labels.tolist() == [1, 0] * 5
    other = folder(tmp_path / "other" / "val", 10, "photo-").parent
    index = open_known_val(recipe_with(recipe, data_dir=str(other)), classes, known)
    assert index.labels.tolist() == [0] * 5 + [1] * 5
    assert "labels.txt of the run is not applied" in index.notes[0]


def test_a_flat_folder_of_other_images_needs_labels_of_its_own(labeled, tmp_path):
    recipe, classes, known = labeled
    make_folder(tmp_path / "flat" / "val", {f"photo{n:02d}.png": flat(n) for n in range(10)})
    with pytest.raises(UserError, match="say --val_labels"):
        open_known_val(recipe_with(recipe, data_dir=str(tmp_path / "flat")), classes, known)
    asked = recipe_with(recipe, data_dir=str(tmp_path / "flat"), val_labels=str(tmp_path / "labels.txt"))
    assert open_known_val(asked, classes, known).labels.tolist() == [1, 0] * 5


def test_training_images_are_opened_alone_whatever_there_is_for_validation(labeled, tmp_path):
    recipe, *_ = labeled
    make_folder(tmp_path / "flat" / "val", {f"photo{n:02d}.png": flat(n) for n in range(10)})
    folder(tmp_path / "flat" / "train", 12)
    folder(tmp_path / "plain", 14)
    assert len(open_train(recipe_with(recipe))) == 30
    assert len(open_train(recipe_with(recipe, data_dir=str(tmp_path / "flat")))) == 12
    assert len(open_train(recipe_with(recipe, data_dir=str(tmp_path / "plain")))) == 14
    shared = replace(recipe, val_labels=None, val_fraction=0.2)
    assert len(open_train(recipe_with(shared, data_dir=str(tmp_path / "flat")))) == 12
    assert 0 < len(open_train(recipe_with(shared, data_dir=str(tmp_path / "plain")))) < 14


@pytest.mark.parametrize("known", [None, {"train": None, "val": None}])
def test_checkpoints_of_before_and_without_validation_carry_their_settings_over(tmp_path, known):
    recipe, classes, _ = trained(folder(tmp_path / "own", 60), val_fraction=0.2)
    other = str(folder(tmp_path / "other", 60, "photo-"))
    assert len(open_known_val(recipe_with(recipe, data_dir=other), classes, known)) < 30


def test_no_digits_are_written_where_a_folder_is_named(tmp_path):
    recipe = load_recipe(overrides={"dataset": "digits", "data_dir": str(tmp_path / "digits")})
    target = tmp_path / "photos"
    target.mkdir()
    for asked in (recipe_with(recipe, data_dir=str(target)), in_folder(recipe, str(target))):
        with pytest.raises(UserError):
            open_known_val(asked, None, None)
    assert list(target.iterdir()) == []


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_with_its_own_images_only(tmp_path):
    recipe, _, known = trained(folder(tmp_path / "own", 60), val_fraction=0.2)
    assert require_same(known, *open_train_val(recipe), allowed=False) == []
    for name, other in (("names", folder(tmp_path / "1", 60, "x")), ("contents", folder(tmp_path / "2", 60, gray=99))):
        there = open_train_val(replace(recipe, data_dir=str(other)))
        with pytest.raises(UserError, match="--allow_changes data_dir"):
            require_same(known, *there, allowed=False)
        assert require_same(known, *there, allowed=True), name


def test_other_images_for_validation_are_said(tmp_path):
    folder(tmp_path / "train", 30)
    folder(tmp_path / "val", 10)
    recipe, _, known = trained(tmp_path)
    folder(tmp_path / "val", 12)
    (note,) = require_same(known, *open_train_val(recipe), allowed=False)
    assert "accuracies do not compare" in note


def test_places_of_data_are_kept_as_they_are_seen_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = with_absolute_places(load_recipe(overrides={"data_dir": "data/set", "val_labels": "labels.txt"}))
    assert (kept.data_dir, kept.val_labels) == (str(tmp_path / "data/set"), str(tmp_path / "labels.txt"))
    digits = load_recipe(overrides={"dataset": "digits"})
    assert with_absolute_places(digits).data_dir == str(tmp_path / "data" / "digits")
    assert with_absolute_places(digits).fingerprint() == digits.fingerprint()


# --- parts ------------------------------------------------------------------------------------------------------------


def test_validation_that_lacks_classes_or_is_the_training_folder_is_said(tmp_path):
    numbered_folder(tmp_path / "train", 9)
    make_folder(tmp_path / "val", {"class2/1.png": flat(5)})
    recipe = load_recipe(overrides={"data_dir": str(tmp_path)})
    assert "1 of the 3 classes" in open_train_val(recipe)[1].notes[-1]
    same = load_recipe(overrides={"data_dir": str(tmp_path), "val_split": "train"})
    assert "are the same" in open_train_val(same)[1].notes[-1]
