"""What is in a folder, which class is which label, and how a folder is split."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from image_files import flat, make_folder, numbered_folder

from mindcv_mnasnet.data.index import ImageIndex, list_folder, split
from mindcv_mnasnet.data.walk import LeftOut, class_folders, image_suffixes, images_under
from mindcv_mnasnet.errors import UserError

DOT = flat(1)


def test_labels_follow_the_sorted_class_names(tmp_path):
    make_folder(tmp_path, {"zebra/1.png": DOT, "ape/2.PNG": DOT, "ape/1.jpeg": DOT, "Öwl/1.png": DOT})
    image_index = list_folder(tmp_path)
    assert image_index.class_names == ("ape", "zebra", "Öwl")
    assert image_index.paths == ("ape/1.jpeg", "ape/2.PNG", "zebra/1.png", "Öwl/1.png")
    assert image_index.labels.tolist() == [0, 0, 1, 2]
    assert image_index.labels.dtype == np.int32
    assert image_index.name(0) == str(tmp_path / "ape/1.jpeg")


def test_hidden_entries_do_not_exist_and_other_files_are_counted(tmp_path):
    make_folder(tmp_path, {"a/1.png": DOT, "b/1.png": DOT, "a/.DS_Store": b"", ".git/1.png": DOT, "a/._1.png": DOT})
    make_folder(tmp_path, {"readme.txt": b"", "a/list.csv": b"", "b/list.csv": b""})
    image_index = list_folder(tmp_path)
    assert image_index.paths == ("a/1.png", "b/1.png")
    (note,) = image_index.notes
    assert "3 files" in note
    assert ".csv (2)" in note


def test_links_to_classes_and_images_are_followed(tmp_path):
    make_folder(tmp_path / "real", {"one/1.png": DOT, "two/1.png": DOT})
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "one").symlink_to(tmp_path / "real" / "one")
    make_folder(tmp_path / "linked", {"other/0.png": DOT})
    (tmp_path / "linked" / "other" / "1.png").symlink_to(tmp_path / "real" / "two" / "1.png")
    image_index = list_folder(tmp_path / "linked")
    assert image_index.paths == ("one/1.png", "other/0.png", "other/1.png")
    assert all(image_index.read(index) == DOT for index in range(3))


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ({"readme.txt": b""}, "no images"),
        ({"1.png": DOT}, "one folder per class"),
        ({"a/1.png": DOT, "empty/readme.txt": b""}, "'empty'"),
        ({"imagenet/1.png": DOT}, "one level too high"),
        ({"train/a/1.png": DOT, "test/a/1.png": DOT}, "no images"),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused_with_what_is_wrong(images, says, tmp_path):
    make_folder(tmp_path, images)
    with pytest.raises(UserError, match=says):
        list_folder(tmp_path)


def test_a_working_folder_of_other_things_is_named_so_and_nothing_in_it_is_to_be_removed(tmp_path, monkeypatch):
    """As where no data_dir is given in a clone of this project."""
    make_folder(tmp_path, {"build/a.o": b"", "docs/a.md": b"", "docs2/a.md": b"", "samples/1.png": DOT})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="in the working folder hold no images, such as 'build'; point data_dir at"):
        list_folder(".")
    for name in ("more", "still more", "most"):
        make_folder(tmp_path, {f"{name}/1.png": DOT})
    with pytest.raises(UserError, match="such as 'build'; remove them, or point data_dir at"):
        list_folder(".")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read the folder"):
        list_folder(tmp_path / "nowhere")


def test_known_classes_fix_the_labels_and_may_be_missing_or_empty(tmp_path):
    make_folder(tmp_path, {"cat/1.png": DOT, "ape/.keep": b""})
    image_index = list_folder(tmp_path, ["dog", "cat", "ape"])
    assert image_index.labels.tolist() == [1]
    assert image_index.class_names == ("dog", "cat", "ape")


def test_a_folder_of_no_known_class_is_refused_by_name(tmp_path):
    make_folder(tmp_path, {"cat/1.png": DOT, "cow/1.png": DOT})
    with pytest.raises(UserError, match="'cow'"):
        list_folder(tmp_path, ["cat", "dog"])


def test_class_names_match_however_their_accents_are_encoded(tmp_path):
    make_folder(tmp_path, {"e\u0301/1.png": DOT, "f/1.png": DOT})
    assert list_folder(tmp_path, ["f", "\u00e9"]).labels.tolist() == [0, 1]


def test_folders_named_0_to_n_are_the_labels_themselves(tmp_path):
    make_folder(tmp_path, {f"{label}/1.png": DOT for label in range(12)})
    image_index = list_folder(tmp_path)
    assert image_index.class_names == tuple(str(label) for label in range(12))
    assert image_index.labels.tolist() == list(range(12))


def test_folders_named_by_numbers_index_known_classes(tmp_path):
    make_folder(tmp_path, {"10/1.png": DOT, "2/1.png": DOT})
    wordnet = [f"n{number:08d}" for number in range(1000)]
    assert list_folder(tmp_path, wordnet).labels.tolist() == [2, 10]
    with pytest.raises(UserError, match="none of the 5 classes"):
        list_folder(tmp_path, wordnet[:5])


def test_images_are_found_at_any_depth(tmp_path):
    make_folder(tmp_path, {"a/b/c/1.png": DOT, "2.jpg": DOT, "a/x.txt": b"", ".hidden/3.png": DOT})
    assert images_under(os.fspath(tmp_path)) == ["2.jpg", "a/b/c/1.png"]


def listing_of(counts: list[int]) -> ImageIndex:
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return ImageIndex("", tuple(str(n) for n in range(len(labels))), labels, tuple(str(n) for n in range(len(counts))))


@given(st.lists(st.integers(2, 40), min_size=2, max_size=8), st.floats(0.1, 0.6), st.integers(0, 2**31 - 1))
def test_a_split_is_a_partition_with_the_same_share_of_every_class(counts, fraction, seed):
    whole = listing_of(counts)
    assume(round(len(whole) * fraction) >= 1)
    first, second = split(whole, fraction, seed)
    assert sorted(first.paths + second.paths) == sorted(whole.paths)
    held_out = np.bincount(second.labels, minlength=len(counts))
    assert np.all(np.abs(held_out - np.array(counts) * fraction) <= 1)
    assert len(second) == pytest.approx(len(whole) * fraction, abs=len(counts) / 2)


def test_a_split_is_fixed_by_its_seed():
    whole = listing_of([10, 10])
    assert split(whole, 0.3, 5)[1].paths == split(whole, 0.3, 5)[1].paths
    assert len({split(whole, 0.3, seed)[1].paths for seed in range(10)}) > 5


def test_a_split_leaves_every_class_something_to_train_on_and_no_part_empty():
    first, _ = split(listing_of([1, 9]), 0.9, 0)
    assert set(first.labels) == {0, 1}
    with pytest.raises(UserError, match="val_fraction"):
        split(listing_of([1, 1]), 0.9, 0)


def test_a_subset_keeps_names_and_labels_together(tmp_path):
    image_index = list_folder(numbered_folder(tmp_path, 9))
    part = image_index.subset([7, 0])
    assert part.paths == (image_index.paths[7], image_index.paths[0])
    assert part.labels.tolist() == [2, 0]
    assert part.read(0) == image_index.read(7)


def test_folders_are_the_numbers_that_name_the_classes_all_or_none(tmp_path):
    make_folder(tmp_path, {"1/1.png": DOT, "2/1.png": DOT})
    image_index = list_folder(tmp_path, ["01", "02", "03"])
    assert image_index.labels.tolist() == [0, 1]
    assert "numbers that name the classes" in image_index.notes[0]


def test_folders_that_are_partly_names_of_classes_are_read_in_one_way(tmp_path):
    make_folder(tmp_path, {f"{label}/1.png": DOT for label in range(10)})
    assert list_folder(tmp_path, [str(number) for number in range(1, 11)]).labels.tolist() == list(range(10))


def test_one_name_written_in_two_ways_is_refused(tmp_path):
    make_folder(tmp_path, {"e\u0301/1.png": DOT, "\u00e9/1.png": DOT, "f/1.png": DOT})
    with pytest.raises(UserError, match="two ways"):
        list_folder(tmp_path)


@pytest.mark.parametrize("suffix", sorted(image_suffixes()))
def test_whatever_pillow_reads_is_an_image(tmp_path, suffix):
    make_folder(tmp_path, {f"a/1{suffix.upper()}": DOT, "b/1.png": DOT})
    assert len(list_folder(tmp_path)) == 2
    assert images_under(str(tmp_path)) == [f"a/1{suffix.upper()}", "b/1.png"]


def test_suffixes_are_those_that_pillow_can_decode():
    assert {".jpg", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tga", ".pnm", ".jp2"} <= image_suffixes()
    assert not {".pdf", ".eps", ".mpg", ".h5", ".txt", ".json", ""} & image_suffixes()


def test_a_file_without_suffix_is_an_image_where_its_content_is(tmp_path):
    make_folder(tmp_path, {"a/1": DOT, "b/1.png": DOT, "b/README": b"PNG?", "b/empty": b""})
    left_out = LeftOut()
    assert list_folder(tmp_path).paths == ("a/1", "b/1.png")
    assert images_under(tmp_path, left_out) == ["a/1", "b/1.png"]
    assert left_out.files == {"": 2}


def test_pipes_are_no_images_and_nobody_waits_for_them(tmp_path):
    make_folder(tmp_path, {"a/1.png": DOT, "b/1.png": DOT})
    os.mkfifo(tmp_path / "a" / "pipe")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    (tmp_path / "b" / "dead.png").symlink_to(tmp_path / "nowhere")
    left_out = LeftOut()
    assert images_under(tmp_path, left_out) == ["a/1.png", "b/1.png", "b/dead.png"]
    assert left_out.files == {"": 1, ".png": 1}


def test_deeper_images_are_counted_and_a_class_that_has_only_those_is_refused_with_their_number(tmp_path):
    make_folder(tmp_path, {"a/1.png": DOT, "b/1.png": DOT, "b/more/2.png": DOT, "b/more/and/3.png": DOT})
    (note,) = list_folder(tmp_path).notes
    assert class_folders(tmp_path)[1].deeper == {"b": 2}
    assert "2 images in folders below 'b'" in note
    make_folder(tmp_path, {"c/images/1.png": DOT})
    with pytest.raises(UserError, match=r"'c' \(1 images lie in folders below it\)"):
        list_folder(tmp_path)


def test_a_folder_of_runs_is_no_class(tmp_path):
    make_folder(tmp_path, {"a/1.png": DOT, "b/1.png": DOT, "mine/recipe.yaml": b"", "mine/curves.png": DOT})
    make_folder(tmp_path, {"mine/checkpoints/x": b"", "runs/r/recipe.yaml": b"", "runs/r/checkpoints/x": b""})
    make_folder(tmp_path, {"runs/r/curves.png": DOT})
    index = list_folder(tmp_path)
    assert index.class_names == ("a", "b")
    assert list_folder(tmp_path, ["b", "a"]).paths == ("b/1.png", "a/1.png")
    assert images_under(tmp_path) == ["a/1.png", "b/1.png"]
    assert "run folders" in index.notes[0]


def test_links_to_folders_are_followed_at_any_depth_and_circles_end(tmp_path):
    make_folder(tmp_path, {"real/x/1.png": DOT, "set/a/2.png": DOT})
    (tmp_path / "set" / "b").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "x" / "up").symlink_to(tmp_path / "set")
    assert images_under(tmp_path / "set") == ["a/2.png", "b/x/1.png"]
    assert list_folder(tmp_path / "set", ["a", "b"]).paths == ("a/2.png",)


def test_a_link_to_itself_is_a_dead_link(tmp_path):
    make_folder(tmp_path, {"a/0.png": DOT, "a/1.png": DOT})
    for name in ("itself.png", "itself"):
        (tmp_path / "a" / name).symlink_to(name)
        (tmp_path / name).symlink_to(name)
    assert images_under(tmp_path / "a") == ["0.png", "1.png", "itself.png"]
    assert list(class_folders(tmp_path)[0]) == ["a"]


def test_a_folder_that_cannot_be_read_is_an_error_for_everyone(tmp_path, monkeypatch):
    make_folder(tmp_path, {"a/1.png": DOT, "b/1.png": DOT})
    scan = os.scandir

    def closed(folder):
        if os.fspath(folder).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr("os.scandir", closed)
    for read in (list_folder, images_under):
        with pytest.raises(UserError, match=r"cannot read the folder .*b: Permission denied"):
            read(tmp_path)
