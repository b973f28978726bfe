"""The random cut: boxes follow their pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import encode, scene
from tiny_detector import recipe

from mindcv_mnasnet.detection.augment import OVERLAPS, RandomCut
from mindcv_mnasnet.detection.data import preparation
from mindcv_mnasnet.detection.index import Truth

HEIGHT, WIDTH = 60, 90


def drawn(seed: int) -> np.ndarray:
    return RandomCut.draw(np.random.default_rng(seed))


def random_boxes(seed: int, count: int) -> np.ndarray:
    """Boxes whose edges are whole pixels, as shares."""
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.integers(0, WIDTH + 1, (count, 2)), 1), np.sort(rng.integers(0, HEIGHT + 1, (count, 2)), 1)
    x[:, 1], y[:, 1] = np.minimum(x[:, 0] + 20, WIDTH), np.minimum(y[:, 0] + 16, HEIGHT)
    x[:, 0], y[:, 0] = x[:, 1] - 20, y[:, 1] - 16
    return np.stack([x[:, 0] / WIDTH, y[:, 0] / HEIGHT, x[:, 1] / WIDTH, y[:, 1] / HEIGHT], 1).astype(np.float32)


@given(st.integers(0, 2**31), st.integers(1, 4))
def test_a_box_shows_the_pixels_that_it_showed(seed, count):
    boxes = random_boxes(seed, count)
    cut = RandomCut(vertical_flip=0.5)(HEIGHT, WIDTH, boxes, drawn(seed))
    top, left, tall, wide = cut.box
    for corners, index in zip(cut.corners, cut.kept, strict=True):
        image = np.zeros((HEIGHT, WIDTH), bool)
        x0, y0, x1, y1 = np.rint(boxes[index] * [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(int)
        image[y0:y1, x0:x1] = True
        shown = cut.of(image[top : top + tall, left : left + wide])
        ys, xs = np.nonzero(shown)
        expected = [xs.min() / wide, ys.min() / tall, (xs.max() + 1) / wide, (ys.max() + 1) / tall]
        np.testing.assert_allclose(corners, expected, atol=1e-5)


@given(st.integers(0, 2**31), st.sampled_from(OVERLAPS[:-1]))
def test_some_box_keeps_the_least_share_of_its_area(seed, least):
    boxes = random_boxes(seed, 3)
    cut = RandomCut((least,))(HEIGHT, WIDTH, boxes, drawn(seed))
    assert len(cut.kept) > 0
    _, _, tall, wide = cut.box
    own = boxes[cut.kept]
    before = (own[:, 2] - own[:, 0]) * (own[:, 3] - own[:, 1])
    inside = (cut.corners[:, 2] - cut.corners[:, 0]) * (cut.corners[:, 3] - cut.corners[:, 1])
    inside = inside * tall * wide / (HEIGHT * WIDTH)
    assert (inside / before).max() >= least - 1e-4


def test_crops_and_flips_happen_and_whole_images_too():
    cutter = RandomCut(vertical_flip=0.2)
    cuts = [cutter(HEIGHT, WIDTH, random_boxes(seed, 2), drawn(seed)) for seed in range(200)]
    whole = [cut.box == (0, 0, HEIGHT, WIDTH) for cut in cuts]
    assert 0.1 < np.mean(whole) < 0.6
    assert 0.35 < np.mean([cut.mirrored for cut in cuts]) < 0.65
    assert 0.1 < np.mean([cut.upside_down for cut in cuts]) < 0.3
    assert not any(RandomCut()(HEIGHT, WIDTH, random_boxes(seed, 2), drawn(seed)).upside_down for seed in range(50))


@pytest.mark.parametrize("cutter", [RandomCut((), 0.0), RandomCut((1.0,), 0.0)])
def test_without_augmentation_an_image_stays_as_it_is(cutter):
    boxes = random_boxes(1, 3)
    cut = cutter(HEIGHT, WIDTH, boxes, drawn(1))
    assert (cut.box, cut.mirrored, cut.kept.tolist()) == ((0, 0, HEIGHT, WIDTH), False, [0, 1, 2])
    np.testing.assert_allclose(cut.corners, boxes, atol=1e-6)


def test_as_many_numbers_are_drawn_for_any_image():
    assert len(drawn(1)) == len(drawn(2))
    cut = RandomCut()(HEIGHT, WIDTH, np.zeros((0, 4), np.float32), drawn(3))
    assert cut.corners.shape == (0, 4)


@pytest.mark.parametrize("size", [(40, 50), (301, 170)])
def test_without_augmentation_training_sees_the_pixels_of_evaluation(tmp_path, size):
    """Also of JPEG files that are decoded at half of their size."""
    keys = {"crop_overlaps": "1.0", "hflip": 0.0, "color_jitter": 0.0}
    asked = recipe(tmp_path, tmp_path, **keys)
    prepared = preparation(asked, asked.detector(asked.network(2)))
    data = encode(scene(*size), "JPEG")
    truth = Truth(*size, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    trained, _ = next(prepared.decoders(np.random.default_rng(0)))(data, "image.jpg", truth)
    evaluated, label = prepared.whole(data, "image.jpg", 7)
    assert label == 7
    assert np.array_equal(trained, evaluated)
    assert (trained.shape[0] < size[1]) == (size == (301, 170))
