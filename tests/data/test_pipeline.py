"""Batches: the order, the shares of several devices, replays, broken images."""

from __future__ import annotations

import threading
from dataclasses import replace

import mindspore.dataset as ds
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encode, flat, make_folder, numbered_folder, scene

from mindcv_mnasnet.data import pipeline
from mindcv_mnasnet.data.index import ImageIndex, list_folder
from mindcv_mnasnet.data.pack_writer import write_pack
from mindcv_mnasnet.data.packs import open_pack
from mindcv_mnasnet.errors import JobError
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import load_recipe

COUNT = 50


def recipe(**keys):
    given_keys = {"image_resize": 16, "batch_size": 4, "val_batch_size": 4, "color_jitter": 0, "hflip": 0, "seed": 3}
    return load_recipe(overrides=given_keys | keys)


def plan_for(asked, image_index, world=1):
    return Plan.make(asked, len(image_index), len(image_index), world, cores=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Flat images whose value tells their place in the image_index, through any crop."""
    return numbered_folder(tmp_path_factory.mktemp("numbered"), COUNT)


@pytest.fixture(scope="module")
def image_index(folder):
    return list_folder(folder)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    return list_folder(
        make_folder(root, {f"c{n % 2}/{n:02d}.jpg": encode(scene(64, 48, n), "JPEG") for n in range(24)})
    )


def places(images):
    """The place in the image_index that each flat image tells."""
    return images.asnumpy()[:, 0, 0, 0].tolist()


def train(image_index, asked, epoch=0, rank=0, world=1):
    return pipeline.train_batches(image_index, asked, plan_for(asked, image_index, world), epoch, rank, world)


def train_places(image_index, asked, epoch=0, rank=0, world=1):
    return [places(images) for images, _ in train(image_index, asked, epoch, rank, world)]


def flatten(batches):
    return [place for batch in batches for place in batch]


def test_a_batch_is_uint8_images_and_int32_labels_that_belong_together(image_index):
    batches = train(image_index, recipe())
    assert len(batches) == COUNT // 4
    for images, labels in batches:
        assert images.shape == (4, 16, 16, 3)
        assert images.asnumpy().dtype == np.uint8
        assert labels.asnumpy().dtype == np.int32
        assert image_index.labels[places(images)].tolist() == labels.asnumpy().tolist()


def test_an_epoch_is_a_permutation_that_changes_with_epoch_and_seed(image_index):
    cases = ((recipe(), 0), (recipe(), 1), (recipe(seed=4), 0))
    orders = [flatten(train_places(image_index, asked, epoch)) for asked, epoch in cases]
    for order in orders:
        assert len(set(order)) == len(order) == 48
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert flatten(train_places(image_index, recipe(shuffle=False))) == list(range(48))


@pytest.mark.parametrize("world", [2, 3])
def test_the_order_does_not_depend_on_the_number_of_devices(image_index, world):
    alone = train_places(image_index, recipe(batch_size=4 * world))
    shares = [train_places(image_index, recipe(), rank=rank, world=world) for rank in range(world)]
    assert [flatten(parts) for parts in zip(*shares, strict=True)] == alone


def test_a_last_batch_is_filled_from_the_start_of_the_epoch(image_index):
    batches = train_places(image_index, recipe(drop_remainder=False))
    assert len(batches) == 13
    assert batches[-1][2:] == batches[0][:2]
    assert set(flatten(batches)) == set(range(COUNT))
    tiny = image_index.subset([7])
    assert train_places(tiny, recipe(drop_remainder=False)) == [[7] * 4]


@settings(max_examples=300)
@given(st.integers(1, 200), st.integers(1, 17), st.integers(1, 9))
def test_evaluation_has_every_image_once_on_any_number_of_devices(images, batch, world):
    image_index = ImageIndex("", tuple(map(str, range(images))), np.zeros(images, np.int32), ("a",))
    asked = replace(recipe(), val_batch_size=batch)
    plan = plan_for(replace(asked, drop_remainder=False), image_index, world)
    shares = []
    for rank in range(world):
        batches = pipeline.eval_batches(image_index, asked, plan, rank, world)
        shares.append(batches._source._passes[0]()[0])
        assert len(batches) == plan.val_batches
    seen = np.concatenate(shares)
    assert sorted(seen[seen >= 0]) == list(range(images))


@pytest.mark.parametrize(("batch", "world"), [(4, 1), (7, 2), (16, 3), (50, 4)])
def test_evaluation_marks_padding_by_a_label_of_minus_one(image_index, batch, world):
    asked = recipe(val_batch_size=batch)
    plan = plan_for(asked, image_index, world)
    seen = []
    for rank in range(world):
        for images, labels in pipeline.eval_batches(image_index, asked, plan, rank, world):
            assert images.shape == (plan.val_batch, 16, 16, 3)
            real = labels.asnumpy() >= 0
            seen += np.array(places(images))[real].tolist()
            assert image_index.labels[np.array(places(images))[real]].tolist() == labels.asnumpy()[real].tolist()
    assert sorted(seen) == list(range(COUNT))


def test_several_labels_per_image_stay_rows(image_index):
    rows = replace(image_index, labels=np.stack([image_index.labels, np.full(COUNT, -1, np.int32)], 1))
    asked = recipe(val_batch_size=16)
    labels = np.concatenate([one.asnumpy() for _, one in pipeline.eval_batches(rows, asked, plan_for(asked, rows))])
    assert labels.shape == (64, 2)
    assert np.array_equal(labels[:COUNT], rows.labels)
    assert np.all(labels[COUNT:] == -1)


AUGMENTED = {"hflip": 0.5, "color_jitter": 0.4, "batch_size": 5}


@pytest.mark.parametrize(
    "keys", [AUGMENTED, AUGMENTED | {"auto_augment": "randaug-m9-n2"}, AUGMENTED | {"num_parallel_workers": 1}]
)
def test_an_epoch_repeats_bit_for_bit_also_the_same_object(scenes, keys):
    asked = recipe(**keys)
    batches = train(scenes, asked, epoch=2)
    runs = [[images.asnumpy() for images, _ in one] for one in (batches, batches, train(scenes, asked, epoch=2))]
    assert len(runs[0]) == 4
    for other in runs[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_epochs_and_ranks_draw_different_crops(scenes):
    asked = recipe(**AUGMENTED, shuffle=False)
    first, second = ([images.asnumpy() for images, _ in train(scenes, asked, epoch)] for epoch in (0, 1))
    assert not any(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    alike = replace(scenes, paths=scenes.paths[:1] * 24)
    ours, theirs = ([images.asnumpy() for images, _ in train(alike, asked, 0, rank, 2)] for rank in (0, 1))
    assert not any(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_seed_of_others_is_left_as_it_was(scenes):
    ds.config.set_seed(77)
    list(train(scenes, recipe()))
    assert ds.config.get_seed() == 77


def test_evaluation_repeats_and_ignores_the_seed(scenes):
    first, second = (
        [images.asnumpy() for images, _ in pipeline.eval_batches(scenes, asked, plan_for(asked, scenes))]
        for asked in (recipe(seed=1), recipe(seed=2))
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_stream_is_its_epochs_in_turn(image_index):
    asked = recipe()
    stream = pipeline.train_stream(image_index, asked, plan_for(asked, image_index), 2, 5)
    assert len(stream) == 36
    assert stream.dataset.get_dataset_size() == 36
    expected = [batch for epoch in (2, 3, 4) for batch in train_places(image_index, asked, epoch)]
    assert [places(images) for images, _ in stream] == expected


def test_gray_networks_get_gray_images(scenes):
    asked = recipe(in_channels=1)
    for batches in (train(scenes, asked), pipeline.eval_batches(scenes, asked, plan_for(asked, scenes))):
        images, _ = next(iter(batches))
        assert images.shape == (4, 16, 16, 1)


def test_a_pack_and_its_folder_give_the_same_batches(scenes, tmp_path):
    write_pack(scenes, tmp_path / "pack", shards=3)
    packed, asked = open_pack(tmp_path / "pack"), recipe(**AUGMENTED)
    for (images, labels), (others, their_labels) in zip(train(scenes, asked, 1), train(packed, asked, 1), strict=True):
        assert np.array_equal(images.asnumpy(), others.asnumpy())
        assert np.array_equal(labels.asnumpy(), their_labels.asnumpy())


@pytest.fixture
def broken(tmp_path):
    """Twelve flat images of which number 5 is cut."""
    numbered_folder(tmp_path, 12)
    image_index = list_folder(tmp_path)
    path = tmp_path / image_index.paths[5]
    path.write_bytes(path.read_bytes()[:40])
    return image_index


def test_a_broken_image_stops_the_job_with_its_name_and_what_to_do(broken):
    asked = recipe(shuffle=False)
    batches = train(broken, asked)
    taken = []
    with pytest.raises(JobError, match=rf"{broken.paths[5]}.*check_dataset.*on_bad_image") as error:
        taken.extend(places(images) for images, _ in batches)
    assert taken in ([], [[0, 1, 2, 3]])  # what was read before it may arrive
    assert "\n" not in str(error.value)
    with pytest.raises(JobError, match=broken.paths[5]):
        list(pipeline.eval_batches(broken, asked, plan_for(asked, broken)))


def test_a_stream_that_is_sunk_ends_by_an_error_that_can_be_explained(broken):
    asked = recipe(shuffle=False)
    stream = pipeline.train_stream(broken, asked, plan_for(asked, broken), 0, 1)
    with pytest.raises(RuntimeError) as error:
        list(stream.dataset.create_tuple_iterator(num_epochs=1))
    assert broken.paths[5] in str(stream.explain(error.value))


def test_skipping_takes_the_next_good_image_and_reports_once(broken):
    asked = recipe(shuffle=False, on_bad_image="skip")
    batches = train(broken, asked)
    assert [places(images) for images, _ in batches] == [[0, 1, 2, 3], [4, 6, 6, 7], [8, 9, 10, 11]]
    (sentence,) = batches.skipped
    assert broken.paths[5] in sentence
    stream = pipeline.train_stream(broken, asked, plan_for(asked, broken), 0, 3)
    list(stream)
    assert len(stream.skipped) == 1


def test_skipping_masks_the_image_in_evaluation(broken):
    asked = recipe(on_bad_image="skip")
    batches = pipeline.eval_batches(broken, asked, plan_for(asked, broken))
    labels = np.concatenate([one.asnumpy() for _, one in batches])
    assert np.flatnonzero(labels < 0).tolist() == [5]
    assert len(batches.skipped) == 1


def test_nothing_but_broken_images_ends_by_an_error_also_when_skipping(tmp_path):
    image_index = list_folder(make_folder(tmp_path, {f"{n % 2}/{n}.jpg": b"no" for n in range(8)}))
    with pytest.raises(JobError, match="not one of its images"):
        list(train(image_index, recipe(on_bad_image="skip")))


def test_failing_storage_ends_the_job_even_when_skipping(image_index, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pathlib.Path.read_bytes", fail)
    with pytest.raises(JobError, match="Input/output error"):
        list(train(image_index, recipe(on_bad_image="skip")))


def test_a_image_that_only_the_decoder_refuses_is_found(tmp_path):
    """A PNG whose chunks are whole around nonsense: the check lets it pass, the decoder does not."""
    import zlib

    content = flat(1)
    start = content.index(b"IDAT")
    length = int.from_bytes(content[start - 4 : start], "big")
    chunk = b"IDAT" + bytes(length)
    nonsense = content[:start] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + content[start + 8 + length :]
    numbered_folder(tmp_path, 8)
    (tmp_path / "class0" / "0001.png").write_bytes(nonsense)
    with pytest.raises(JobError, match=r"class0/0001\.png"):
        list(train(list_folder(tmp_path), recipe()))


def test_leaving_an_epoch_early_leaves_no_threads(scenes):
    for epoch in range(3):
        for _ in train(scenes, recipe(), epoch):
            break
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("read-image")]


def test_labels_and_order_survive_a_subset(image_index):
    part = image_index.subset([40, 2, 17, 9])
    for images, labels in train(part, recipe(shuffle=False)):
        assert places(images) == [40, 2, 17, 9]
        assert labels.asnumpy().tolist() == part.labels.tolist()
