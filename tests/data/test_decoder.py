"""Whole images are decoded as MindSpore and Pillow do; random crops are distributed as MindSpore's are."""

from __future__ import annotations

import io

import mindspore.dataset as ds
import mindspore.dataset.vision as vision
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import encode, scene
from PIL import Image

from mindcv_mnasnet.data.decoder import RandomCrop, decode_whole
from mindcv_mnasnet.data.images import BadImage
from mindcv_mnasnet.recipe.recipe import load_recipe

HEIGHT, WIDTH = 150, 250


def crop_of(**keys):
    return RandomCrop(load_recipe(overrides=keys))


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 30}], ids=str)
def test_whole_jpegs_have_the_pixels_that_mindspore_and_pillow_decode(options):
    data = encode(scene(161, 97), "JPEG", **options)
    dataset = ds.NumpySlicesDataset([np.frombuffer(data, np.uint8)], ["image"], shuffle=False)
    theirs = next(iter(dataset.map(vision.Decode(), "image").create_tuple_iterator(output_numpy=True)))[0]
    assert np.array_equal(decode_whole(data, ""), theirs)


def boxes(crop, count):
    generator = np.random.default_rng(0)
    return np.array([crop.box(HEIGHT, WIDTH, crop.draw(generator)) for _ in range(count)])


def mindspores_boxes(count, **keys):
    """Where MindSpore's crops begin and end, told by an image whose red and green are row and column."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    image = np.stack([rows, columns, rows * 0], -1).astype(np.uint8)
    crop = vision.RandomResizedCrop(2, keys["scale"], keys["ratio"], vision.Inter.NEAREST)
    dataset = ds.NumpySlicesDataset([image] * count, ["image"], shuffle=False).map(crop, "image")
    corners = np.array([row[0] for row in dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)]).astype(int)
    first, middle = corners[:, 0, 0, :2], corners[:, 1, 1, :2]  # nearest: samples at 0 and half of the side
    sides = 2 * (middle - first)
    return np.concatenate([first, sides], 1)


@pytest.mark.parametrize("keys", [{"scale": (0.08, 1.0), "ratio": (0.75, 1.333)}, {"scale": (0.6, 1), "ratio": (2, 3)}])
def test_boxes_are_distributed_as_mindspores_are(keys):
    ours, theirs = boxes(crop_of(**keys), 4000), mindspores_boxes(4000, **keys)
    for column in range(4):
        shares = [np.quantile(sample[:, column], np.linspace(0.1, 0.9, 9)) for sample in (ours, theirs)]
        assert np.abs(shares[0] - shares[1]).max() <= 8


def test_boxes_are_as_often_wide_as_tall_and_so_are_mindspores():
    keys = {"scale": (0.08, 0.3), "ratio": (0.5, 2)}
    logs = [
        np.log(sample[:, 3] / sample[:, 2]) for sample in (boxes(crop_of(**keys), 4000), mindspores_boxes(4000, **keys))
    ]
    assert np.abs([sample.mean() for sample in logs]).max() < 0.03  # 0.124 where the ratio itself is drawn evenly
    quantiles = [np.quantile(sample, np.linspace(0.1, 0.9, 9)) for sample in logs]
    assert np.abs(quantiles[0] - quantiles[1]).max() < 0.08


@given(
    height=st.integers(1, 900),
    width=st.integers(1, 900),
    seed=st.integers(0, 9),
    low=st.floats(0.01, 1),
    narrow=st.floats(0.1, 3),
)
def test_boxes_lie_inside_and_are_not_empty(height, width, seed, low, narrow):
    crop = crop_of(scale=[low, 1.0], ratio=[narrow, narrow * 1.5])
    top, left, tall, wide = crop.box(height, width, crop.draw(np.random.default_rng(seed)))
    assert 0 <= top < top + tall <= height
    assert 0 <= left < left + wide <= width


@pytest.mark.parametrize("size", [(1000, 700), (1001, 703)])
@pytest.mark.parametrize(("image_resize", "shrink"), [(300, 1), (170, 2), (90, 4), (40, 8), (16, 8)])
def test_large_crops_are_decoded_small_but_never_below_the_networks_size(size, image_resize, shrink):
    crop = crop_of(image_resize=image_resize, scale=[0.5, 1.0])
    image = scene(*size).resize(size)
    smooth = Image.fromarray(np.asarray(image.resize((20, 14)))).resize(size, Image.Resampling.BICUBIC)
    draws = crop.draw(np.random.default_rng(3))
    top, left, tall, wide = crop.box(size[1], size[0], draws)
    got = crop(encode(smooth, "JPEG", quality=98, subsampling=0), "", draws)
    assert max(n for n in (1, 2, 4, 8) if n == 1 or min(tall, wide) >= n * image_resize) == shrink
    assert got.shape == (tall // shrink, wide // shrink, 3)
    assert got.flags.c_contiguous
    want = np.asarray(smooth)[top : top + tall, left : left + wide]
    want = np.asarray(Image.fromarray(want).resize(got.shape[1::-1], Image.Resampling.BOX)).astype(int)
    assert np.abs(got.astype(int) - want).mean() < 3  # cut on whole pixels of the smaller image


def test_crops_of_one_thread_do_not_share_memory():
    crop = crop_of(image_resize=16)
    generator = np.random.default_rng(0)
    first = crop(encode(scene(90, 80, 1), "JPEG"), "", crop.draw(generator))
    before = first.copy()
    crop(encode(scene(90, 80, 2), "JPEG"), "", crop.draw(generator))
    assert np.array_equal(first, before)


def test_png_and_jpeg_are_cropped_alike():
    crop, image = crop_of(image_resize=200), scene(120, 90)
    draws = crop.draw(np.random.default_rng(1))
    jpeg, png = (crop(encode(image, form), "", draws) for form in ("JPEG", "PNG"))
    assert jpeg.shape == png.shape
    top, left, tall, wide = crop.box(90, 120, draws)
    assert np.array_equal(png, np.asarray(image)[top : top + tall, left : left + wide])


def test_gray_jpegs_have_three_equal_channels():
    data = encode(scene().convert("L"), "JPEG")
    assert np.array_equal(decode_whole(data, ""), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("data", [b"\xff\xd8", b"\xff\xd8\xff\xda" + bytes(40), b"", b"\x89PNG\r\n\x1a\n" + bytes(20)])
def test_what_cannot_be_decoded_is_a_bad_image_under_its_name(data):
    crop = crop_of()
    with pytest.raises(BadImage, match=r"^kitten\.jpg: "):
        decode_whole(data, "kitten.jpg")
    with pytest.raises(BadImage, match=r"^kitten\.jpg: "):
        crop(data, "kitten.jpg", crop.draw(np.random.default_rng(0)))
