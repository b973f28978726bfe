"""Decoded images to uint8 HWC arrays of the network's size: augmentation in training, crops in evaluation.

All random operations are MindSpore's C++ ones. RandAugment and TrivialAugment are put together here, because
MindSpore's own (2.7 to 2.10) hand a shift in pixels to an operation that expects a share of the width: every shifted
image, one in seven per operation, turns black.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import mindspore.dataset.vision as vision
import numpy as np
from mindspore.dataset.vision import Inter
from PIL import Image

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.keys import DataKeys
from mindcv_mnasnet.recipe.recipe import Recipe

Operations = list[Any]  # what Dataset.map takes: MindSpore's operations and functions of an array

INTERPOLATIONS = {
    "nearest": Inter.NEAREST,
    "bilinear": Inter.BILINEAR,  # OpenCV's, as in MindCV: no smoothing when shrinking
    "bicubic": Inter.BICUBIC,  # OpenCV's too
    "area": Inter.AREA,
    "pilcubic": Inter.PILCUBIC,  # bit for bit Pillow's bicubic
}
#: Pillow's resampling, which smooths; evaluation only, where MindSpore's pilcubic may miss a pixel of the long side.
PILLOW = {"pilcubic": Image.Resampling.BICUBIC, "pilbilinear": Image.Resampling.BILINEAR}
TF_BILINEAR = "tf_bilinear"  # TensorFlow 1's grid: no half-pixel centers, no smoothing; of the authors' square only
_GRAY_FILL, _BLACK_FILL = 128, 0  # of uncovered corners: gray in published code, black in TrivialAugment's
_RANDAUG_SHARE = 0.5  # timm and MindCV apply each chosen operation half of the time, the paper always (-p1)
_MOST_LAYERS = 10
_NOTHING = (vision.RandomHorizontalFlip(0.0), 0.0)
_BINS = 31  # magnitudes 0..30, the published RandAugment's level times three


def check_supported(recipe: Recipe) -> None:
    """Refuse what the data pipeline cannot do.

    Raises:
        UserError: naming the key, its value and what is possible.
    """
    _auto_augment(recipe)
    gray(recipe.in_channels)
    for key, known in (
        ("interpolation", [*INTERPOLATIONS]),
        ("val_interpolation", [*INTERPOLATIONS, *PILLOW, TF_BILINEAR, None]),
    ):
        if getattr(recipe, key) not in known:
            raise UserError(f"{key}: {getattr(recipe, key)!r} is not one of {', '.join(map(str, known))}")


def train_operations(recipe: DataKeys, channels: int) -> Operations:
    """For random crops: resizing, flips, automatic augmentation or, without it, color jitter; in MindCV's order."""
    size = recipe.image_resize
    operations = [vision.Resize((size, size), INTERPOLATIONS[recipe.interpolation])]
    if recipe.vflip > 0:
        flips = [(vision.HorizontalFlip(), recipe.hflip), (vision.VerticalFlip(), recipe.vflip)]
        operations.append(_selected([flips], _MOST_LAYERS))
    elif recipe.hflip > 0:
        operations.append(vision.RandomHorizontalFlip(recipe.hflip))
    automatic = _auto_augment(recipe)
    if automatic is not None:
        operations += automatic
    elif recipe.color_jitter > 0:
        operations.append(vision.RandomColorAdjust(*(recipe.color_jitter,) * 3))
    return operations + gray(channels)


def eval_operations(recipe: DataKeys, channels: int) -> Operations:
    """For whole images, by ``eval_crop``: short side to ``val_resize``, then the center; or the authors' square."""
    size, name = recipe.image_resize, recipe.resampling()
    if recipe.eval_crop == "tf_square":
        if name == TF_BILINEAR:
            resize: Callable[[np.ndarray], np.ndarray] | Any = lambda image: tf1_bilinear(image, size)  # noqa: E731
        elif name in PILLOW:
            resize = lambda image: _by_pillow(image, (size, size), name)  # noqa: E731
        else:
            resize = vision.Resize((size, size), INTERPOLATIONS[name])
        return [lambda image: central_square(image, size), resize, *gray(channels)]
    short = recipe.short_side()
    if name in PILLOW:
        resize = lambda image: _by_pillow(image, _short_side(image, short), name)  # noqa: E731
    else:
        resize = vision.Resize(short, INTERPOLATIONS[name])
    crop: Any = vision.CenterCrop(size)
    if recipe.eval_crop == "center_round":
        crop = lambda image: center_rounded(image, size)  # noqa: E731
    return [resize, crop, *gray(channels)]


def center_rounded(image: np.ndarray, size: int) -> np.ndarray:
    """The middle (size, size, C) of (H, W, C) as torchvision cuts it: offsets round to even, what is missing is black.

    timm's evaluation calls torchvision's. MindSpore, and so MindCV, rounds offsets down.
    """
    missing = [max(size - length, 0) for length in image.shape[:2]]
    if any(missing):
        image = np.pad(image, [*((lack // 2, (lack + 1) // 2) for lack in missing), (0, 0)])
    top, left = (round((length - size) / 2) for length in image.shape[:2])
    return image[top : top + size, left : left + size]


def central_square(image: np.ndarray, size: int) -> np.ndarray:
    """The square of side int(size / (size + 32) * shorter side) in the middle, as the authors cut it."""
    height, width = image.shape[:2]
    side = max(int(size / (size + 32) * min(height, width)), 1)
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    return image[top : top + side, left : left + side]


def tf1_bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, C) uint8 to (size, size, C) as ``tf.compat.v1.image.resize_bilinear``: sample i lies at i * H / size."""
    return np.rint(_lerp(_lerp(image.astype(np.float32), size, 0), size, 1)).astype(np.uint8)


def _lerp(image: np.ndarray, size: int, axis: int) -> np.ndarray:
    length = image.shape[axis]
    where = np.arange(size, dtype=np.float32) * np.float32(length / size)
    low = np.minimum(where.astype(np.int64), length - 1)
    share = (where - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    start = image.take(low, axis)
    return start + (image.take(np.minimum(low + 1, length - 1), axis) - start) * share


def _by_pillow(image: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize(size[::-1], PILLOW[name]))


def _short_side(image: np.ndarray, short: int) -> tuple[int, int]:
    """Height and width with the shorter one ``short``; the other is cut to an integer, as torchvision does."""
    height, width = image.shape[:2]
    return (short, int(short * width / height)) if height < width else (int(short * height / width), short)


def gray(channels: int) -> Operations:
    """The conversion for networks of one input channel.

    Raises:
        UserError: a number of channels that images are not read as.
    """
    if channels not in (1, 3):
        raise UserError(f"in_channels: {channels}; images are read as 3 (color) or 1 (gray)")
    return [vision.ConvertColor(vision.ConvertMode.COLOR_RGB2GRAY)] if channels == 1 else []


def _auto_augment(recipe: DataKeys) -> Operations | None:
    text, size = recipe.auto_augment, recipe.image_resize
    if text is None:
        return None
    if text == "autoaug":
        policy = vision.AutoAugmentPolicy.IMAGENET
        return [vision.AutoAugment(policy, Inter.BILINEAR, _GRAY_FILL)]
    if text == "trivialaugwide":
        return [_one_of([_variants(_wide_space(size, bin_), _BLACK_FILL) for bin_ in range(_BINS)])]
    number = r"(\d+(?:\.\d+)?)"  # without numbers it is randaug-m10-n2, as in timm and MindCV
    match = re.fullmatch(rf"randaug(?:-m(?P<m>{number})|-n(?P<n>\d+)|-p(?P<p>{number})|-inc1|-mstd0)*", text)
    magnitude, count = (float(match["m"] or 10), int(match["n"] or 2)) if match else (-1.0, 0)
    share = float(match["p"] or _RANDAUG_SHARE) if match else 0.0
    if not 0 <= magnitude <= 10 or not 1 <= count <= _MOST_LAYERS or not 0 <= share <= 1:
        raise UserError(
            f"auto_augment: {text!r} is not supported; possible are autoaug, trivialaugwide and randaug-mM-nN-pP "
            "with M from 0 to 10, N from 1 to 10 and P from 0 to 1, such as randaug-m9-n2"
        )
    space = _variants(_rand_space(round(magnitude * (_BINS - 1) / 10)))
    return [_one_of([space], share, layer) for layer in range(count)]


def _one_of(spaces: list[list[Any]], share: float = 1.0, place: int = 0) -> Any:
    """One operation of all, each as likely as it occurs, applied with probability ``share``; None changes nothing."""
    operations = [operation for space in spaces for operation in space]
    return _selected([[_NOTHING if one is None else (one, share)] for one in operations], place)


def _selected(policies: list[list[tuple[Any, float]]], place: int) -> Any:
    """One of ``policies``, drawn independently of what is at another ``place``.

    MindSpore seeds all random operations of a pipeline alike: where two draw equally many numbers for an image, both
    decide alike. Therefore each place draws more of them than the one before.
    """
    return vision.RandomSelectSubpolicy([[*policy, *[_NOTHING] * place] for policy in policies])


def _rand_space(bin_: int) -> dict[str, float]:
    """RandAugment's strengths (https://arxiv.org/abs/1909.13719), in the increasing form of torchvision's code."""
    level = bin_ / (_BINS - 1)
    return {
        "shear": 0.3 * level,
        "shift": 150 / 331 * level,
        "rotate": 30 * level,
        "enhance": 0.9 * level,
        "bits": 8 - round(4 * level),
        "threshold": 255 * (1 - level),
    }


def _wide_space(size: int, bin_: int) -> dict[str, float]:
    """TrivialAugment's wide strengths (https://arxiv.org/abs/2103.10158) as in torchvision; shifts to 32 pixels."""
    level = bin_ / (_BINS - 1)
    return {
        "shear": 0.99 * level,
        "shift": min(32 / size, 1.0) * level,
        "rotate": 135 * level,
        "enhance": 0.99 * level,
        "bits": 8 - round(6 * level),
        "threshold": 255 * (1 - level),
    }


def _variants(strength: dict[str, float], fill: int = _GRAY_FILL) -> list[Any]:
    """The fourteen operations of both papers, each twice: with either sign, or twice the same."""
    shear, shift, enhance = strength["shear"], strength["shift"], strength["enhance"]

    def affine(angle: float = 0.0, right: float = 0.0, down: float = 0.0) -> Any:
        return vision.Affine(angle, [right, down], 1.0, [0.0, 0.0], Inter.BILINEAR, fill)

    def bend(right: float = 0.0, down: float = 0.0) -> Any:
        """Keeps the top left corner where it is, as Pillow and both papers do; MindSpore's would keep the middle."""
        angles = [float(np.degrees(np.arctan(slope))) for slope in (right, down)]
        return vision.Affine(0.0, [-right / 2, -down / 2], 1.0, angles, Inter.BILINEAR, fill)

    signed = [
        operation
        for sign in (1.0, -1.0)
        for operation in (
            bend(right=sign * shear),
            bend(down=sign * shear),
            affine(right=sign * shift),
            affine(down=sign * shift),
            affine(angle=sign * strength["rotate"]),
            vision.AdjustBrightness(1 + sign * enhance),
            vision.AdjustSaturation(1 + sign * enhance),
            vision.AdjustContrast(1 + sign * enhance),
            vision.AdjustSharpness(1 + sign * enhance),
        )
    ]
    unsigned = [
        vision.Posterize(int(strength["bits"])),
        vision.Solarize((strength["threshold"], 255.0)),
        vision.AutoContrast(),
        vision.Equalize(),
        None,
    ]
    return signed + unsigned * 2
