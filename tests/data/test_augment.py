"""Crops and augmentations give what their names promise."""

from __future__ import annotations

from dataclasses import replace

import mindspore.dataset as ds
import numpy as np
import pytest
from image_files import encode, scene
from PIL import Image

from mindcv_mnasnet.data import augment
from mindcv_mnasnet.data.decoder import RandomCrop
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.recipe import load_recipe

PICTURE = scene(120, 90)


def recipe(**keys):
    return load_recipe(overrides=keys)


def run(images, operations):
    rows = [(np.asarray(one.convert("RGB")) if isinstance(one, Image.Image) else one,) for one in images]
    dataset = ds.GeneratorDataset(rows, ["image"], shuffle=False, python_multiprocessing=False)
    return [row[0] for row in dataset.map(operations, "image").create_tuple_iterator(num_epochs=1, output_numpy=True)]


def trained(images, asked):
    crop, generator = RandomCrop(asked), np.random.default_rng(0)
    crops = [crop(encode(one), "", crop.draw(generator)) for one in images]
    return run(crops, augment.train_operations(asked, asked.in_channels))


def evaluated(image, **keys):
    asked = recipe(**keys)
    return run([image], augment.eval_operations(asked, asked.in_channels))[0]


AUGMENTATIONS = [
    "autoaug",
    "trivialaugwide",
    "randaug",
    "randaug-m9-n2",
    "randaug-m10-n1",
    "randaug-m5.5",
    "randaug-m9-inc1",
]


@pytest.mark.parametrize("text", [None, *AUGMENTATIONS])
@pytest.mark.parametrize("channels", [1, 3])
def test_training_images_are_uint8_of_the_network_size_and_all_differ(text, channels):
    asked = recipe(auto_augment=text, image_resize=32, in_channels=channels)
    augment.check_supported(asked)
    images = trained([PICTURE] * 60, asked)
    assert {(one.shape[:2], one.dtype) for one in images} == {((32, 32), np.dtype(np.uint8))}
    assert images[0].ndim == (2 if channels == 1 else 3)
    assert len({one.tobytes() for one in images}) > 50


@pytest.mark.parametrize("text", AUGMENTATIONS)
def test_augmentation_hardly_ever_blackens_a_image(text):
    """MindSpore's own RandAugment does so to one in seven per operation; only TrivialAugment's darkest may."""
    asked = recipe(auto_augment=text, image_resize=32)
    images = trained([PICTURE] * 300, asked)
    assert np.mean([one.max() < 3 for one in images]) < 0.02


@pytest.mark.parametrize("text", ["augmix", "autoaugr", "randaug-m11-n2", "randaug-m9-mstd0.5", "randaug-n0"])
def test_augmentations_that_do_not_exist_here_are_refused_with_what_does(text):
    with pytest.raises(UserError, match=r"auto_augment.*randaug-mM-nN"):
        augment.check_supported(recipe(auto_augment=text))


def test_color_channels_other_than_one_and_three_are_refused():
    with pytest.raises(UserError, match="in_channels"):
        augment.check_supported(recipe(in_channels=4))


def test_the_operations_of_randaugment_are_equally_likely():
    space = augment._variants(augment._rand_space(27))
    assert len(space) == 28
    assert sum(operation is None for operation in space) == 2


def test_randaugment_applies_each_operation_half_of_the_time_unless_asked():
    def changed(text: str) -> float:
        keys = {"image_resize": 16, "hflip": 0, "scale": [1.0, 1.0], "ratio": [1.0, 1.0]}
        operations = augment.train_operations(recipe(auto_augment=text, **keys), 3)
        plain = run([scene(16, 16)], augment.train_operations(recipe(color_jitter=0, **keys), 3))[0]
        return float(np.mean([not np.array_equal(one, plain) for one in run([scene(16, 16)] * 600, operations)]))

    always, half = changed("randaug-m9-n1-p1"), changed("randaug-m9-n1")
    assert half == pytest.approx(always / 2, abs=0.08)  # 0.08 is four standard deviations
    assert changed("randaug-m9-n1-p0") == 0


def test_a_strength_of_zero_changes_nothing_but_by_contrast_and_equalization():
    alone = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 1, 3)))
    for operation in augment._variants(augment._rand_space(0)):
        if operation is not None and type(operation).__name__ not in ("AutoContrast", "Equalize", "Solarize"):
            assert np.abs(run([alone], [operation])[0].astype(int) - np.asarray(alone)).max() <= 1


def test_shifts_move_by_the_published_share_of_the_width():
    """150 / 331 of it at full strength (RandAugment's published code)."""
    spot = np.full((331, 331, 3), 255, np.uint8)
    spot[160:171, 160:171] = 0
    operation = augment._variants(augment._rand_space(30))[2]
    moved = run([spot], [operation])[0]
    assert np.argwhere(moved[..., 0] < 64)[:, 1].mean() - 165 == pytest.approx(150, abs=1)


@pytest.mark.parametrize(
    ("strengths", "slope"), [(augment._rand_space(30), 0.3), (augment._wide_space(96, 30), 0.99)], ids=["rand", "wide"]
)
def test_shears_keep_the_top_left_corner_as_pillow_does(strengths, slope):
    """(1, slope, 0, 0, 1, 0) of Pillow, in the published code of AutoAugment, RandAugment and TrivialAugment."""
    square = scene(96, 96)
    operations = augment._variants(strengths)
    for place, matrix in (
        (0, (1, slope, 0, 0, 1, 0)),
        (1, (1, 0, 0, slope, 1, 0)),
        (9, (1, -slope, 0, 0, 1, 0)),
        (10, (1, 0, 0, -slope, 1, 0)),
    ):
        kind, gray = Image.Transform.AFFINE, (128, 128, 128)
        expected = square.transform(square.size, kind, matrix, Image.Resampling.BILINEAR, fillcolor=gray)
        difference = np.abs(run([square], [operations[place]])[0].astype(int) - np.asarray(expected))
        assert np.median(difference) <= 1
        assert (
            difference.mean() < 3
        )  # their borders and steps are smoothed otherwise; sheared about the middle it is 50


@pytest.mark.parametrize(("text", "fill"), [("randaug-m10-n1-p1", 128), ("trivialaugwide", 0)])
def test_what_an_augmentation_uncovers_is_gray_or_black_as_published(text, fill):
    """TPU's RandAugment replaces by 128; TrivialAugment's code and torchvision's preset name no color."""
    asked = recipe(auto_augment=text, image_resize=32, hflip=0, scale=[1.0, 1.0], ratio=[1.0, 1.0])
    white = Image.new("RGB", (32, 32), (255, 255, 255))
    images = np.stack(trained([white] * 400, asked))
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]].reshape(-1, 3)
    whole = np.array([len(np.unique(one)) == 1 for one in images]).repeat(4)  # brightness and solarizing change all
    uncovered = corners[~whole & (corners < 255).all(1)]
    assert len(uncovered) > 50
    assert np.mean(np.abs(uncovered.astype(int) - fill) <= 1) > 0.6  # others lie on a smoothed border


def test_randaugment_without_numbers_is_that_of_magnitude_10_and_two_operations(monkeypatch):
    """As in timm's ``rand_augment_transform("rand")`` and MindCV's ``randaug``."""
    bins = []
    monkeypatch.setattr(augment, "_rand_space", lambda bin_, own=augment._rand_space: bins.append(bin_) or own(bin_))
    assert len(augment._auto_augment(recipe(auto_augment="randaug"))) == 2
    assert bins == [30]


def test_flips_happen_as_often_as_asked():
    always = recipe(image_resize=16, hflip=1.0, vflip=1.0, scale=[1.0, 1.0], ratio=[1.0, 1.0], color_jitter=0)
    never = recipe(image_resize=16, hflip=0.0, vflip=0.0, scale=[1.0, 1.0], ratio=[1.0, 1.0], color_jitter=0)
    turned, plain = (run([scene(16, 16)], augment.train_operations(asked, 3))[0] for asked in (always, never))
    assert np.array_equal(turned, plain[::-1, ::-1])


PLAIN = {"image_resize": 16, "color_jitter": 0, "scale": [1.0, 1.0], "ratio": [1.0, 1.0]}


@pytest.fixture
def seeded():
    """As training is: MindSpore gives this seed to every random operation."""
    before = ds.config.get_seed()
    ds.config.set_seed(5)
    yield
    ds.config.set_seed(before)


def shares_of(images: list[np.ndarray], kinds: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.mean([np.array_equal(one, kind) for one in images])) for name, kind in kinds.items()}


def test_both_flips_are_independent(seeded):
    """torchvision's RandomHorizontalFlip(0.5) and RandomVerticalFlip(0.25): 3/8, 3/8, 1/8 and 1/8."""
    whole = run([scene(16, 16)], augment.train_operations(recipe(hflip=0, **PLAIN), 3))[0]
    images = run([scene(16, 16)] * 2000, augment.train_operations(recipe(hflip=0.5, vflip=0.25, **PLAIN), 3))
    kinds = {"none": whole, "h": whole[:, ::-1], "v": whole[::-1], "both": whole[::-1, ::-1]}
    expected = {"none": 0.375, "h": 0.375, "v": 0.125, "both": 0.125}
    assert shares_of(images, kinds) == pytest.approx(expected, abs=0.045)  # four standard deviations


@pytest.mark.parametrize(("keys", "kept"), [({}, 0.25), ({"hflip": 0.5, "vflip": 0.5}, 0.0625)])
def test_the_operations_of_randaugment_are_chosen_independently(seeded, monkeypatch, keys, kept):
    """Each of two is one of A, B and half of the time, so that A and B come after another in 1/16 and 1/16."""
    darker, redder = np.array([1, 1, 1]), np.array([0, 7, 7])
    operations = [lambda image: image - darker.astype(np.uint8), lambda image: image - redder.astype(np.uint8)]
    monkeypatch.setattr(augment, "_variants", lambda strength: operations)
    asked = recipe(auto_augment="randaug-n2", **{"hflip": 0, **PLAIN, **keys})
    whole = run([scene(16, 16)], augment.train_operations(recipe(**PLAIN, hflip=0), 3))[0]
    images = run([scene(16, 16)] * 3000, augment.train_operations(asked, 3))
    made = {"none": 0, "a": darker, "b": redder, "aa": 2 * darker, "bb": 2 * redder, "ab": darker + redder}
    expected = {"none": kept, "a": kept, "b": kept, "aa": kept / 4, "bb": kept / 4, "ab": kept / 2}
    found = shares_of(images, {name: (whole - change).astype(np.uint8) for name, change in made.items()})
    assert found == pytest.approx(expected, abs=0.032)  # four standard deviations


@pytest.mark.parametrize(("width", "height"), [(120, 90), (90, 120), (121, 50), (64, 64), (320, 685)])
@pytest.mark.parametrize(("name", "pillow"), [("pilcubic", "BICUBIC"), ("pilbilinear", "BILINEAR")])
def test_center_crops_equal_pillow_and_torchvision(width, height, name, pillow):
    """torchvision.transforms.Resize(37) then CenterCrop(32): long side cut to an integer, offset rounded."""
    image = scene(width, height)
    asked = recipe(image_resize=32, val_resize=37, val_interpolation=name, eval_crop="center_round")
    size = (37, int(37 * height / width)) if width < height else (int(37 * width / height), 37)
    resized = np.asarray(image.resize(size, getattr(Image.Resampling, pillow)))
    top, left = round((resized.shape[0] - 32) / 2), round((resized.shape[1] - 32) / 2)
    ours = run([image], augment.eval_operations(asked, 3))[0]
    assert np.array_equal(ours, resized[top : top + 32, left : left + 32])
    cut = run([image], augment.eval_operations(replace(asked, eval_crop="center"), 3))[0]
    top, left = (resized.shape[0] - 32) // 2, (resized.shape[1] - 32) // 2
    assert np.array_equal(cut, resized[top : top + 32, left : left + 32])


def test_a_rounded_center_is_torchvisions_and_what_is_missing_is_black():
    """round((size - crop) / 2) to even: 3 / 2 is 2 and 5 / 2 is 2; smaller images get (1, 2) rows of black."""
    pixels = np.stack(np.mgrid[0:35, 0:37], -1).astype(np.uint8)
    assert augment.center_rounded(pixels, 32)[0, 0].tolist() == [2, 2]
    small = augment.center_rounded(np.ones((29, 40, 3), np.uint8), 32)
    assert (small[:, 0, 0] == 0).nonzero()[0].tolist() == [0, 30, 31]


def test_the_short_side_defaults_to_size_over_crop_pct():
    assert np.array_equal(
        evaluated(PICTURE, image_resize=56, crop_pct=0.875), evaluated(PICTURE, image_resize=56, val_resize=64)
    )
    assert not np.array_equal(
        evaluated(PICTURE, image_resize=56, crop_pct=0.875), evaluated(PICTURE, image_resize=56, val_resize=70)
    )


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "nearest", "area", "pilcubic", "pilbilinear"])
@pytest.mark.parametrize("crop", ["center", "center_round", "tf_square"])
def test_every_interpolation_and_crop_keeps_a_flat_image_flat(name, crop):
    gray = Image.new("RGB", (50, 70), (90, 120, 150))
    image = evaluated(gray, image_resize=32, val_interpolation=name, eval_crop=crop)
    assert image.shape == (32, 32, 3)
    assert np.array_equal(image, np.broadcast_to(np.array([90, 120, 150], np.uint8), (32, 32, 3)))


@pytest.mark.parametrize(("height", "width", "size"), [(90, 120, 224), (91, 77, 96), (10, 400, 32)])
def test_the_authors_square_is_in_the_middle_with_their_side(height, width, size):
    pixels = np.stack(np.mgrid[0:height, 0:width], -1)
    square = augment.central_square(pixels, size)
    side = int(size / (size + 32) * min(height, width))
    assert square.shape[:2] == (side, side)
    assert square[0, 0].tolist() == [(height - side + 1) // 2, (width - side + 1) // 2]


def test_bilinear_samples_lie_where_tensorflow_1_puts_them():
    """i * H / size without half-pixel centers (tf.compat.v1.image.resize_bilinear, align_corners=False)."""
    ramp = np.tile(np.arange(8, dtype=np.uint8)[:, None, None] * 20, (1, 8, 1))
    assert augment.tf1_bilinear(ramp, 4)[:, 0, 0].tolist() == [0, 40, 80, 120]
    assert augment.tf1_bilinear(ramp, 16)[:, 0, 0].tolist() == [*range(0, 150, 10), 140]
    assert augment.tf1_bilinear(ramp.transpose(1, 0, 2), 4)[0, :, 0].tolist() == [0, 40, 80, 120]
    image = np.asarray(PICTURE)
    assert np.array_equal(augment.tf1_bilinear(image[:90, :90], 90), image[:90, :90])


def test_evaluation_by_the_square_is_the_square_resized():
    whole = np.asarray(PICTURE)
    expected = augment.tf1_bilinear(augment.central_square(whole, 32), 32)
    for name in (None, "bilinear", "tf_bilinear"):  # the first two have always meant the third here
        assert np.array_equal(
            evaluated(PICTURE, image_resize=32, eval_crop="tf_square", val_interpolation=name), expected
        )
    assert recipe(eval_crop="tf_square", val_interpolation="bilinear").val_interpolation == "tf_bilinear"
    with pytest.raises(UserError, match="tf_bilinear"):
        recipe(val_interpolation="tf_bilinear")
