"""timm's and torchvision's own evaluation beside ours: their transforms on photographs, their weights converted."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from libraries_images import FOLDER, photographs
from PIL import Image
from processes import cli
from test_parity_weights import TIMM

import validate
from mindcv_mnasnet.data.augment import central_square, tf1_bilinear
from mindcv_mnasnet.data.sets import open_val
from mindcv_mnasnet.inference import predict
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe
from mindcv_mnasnet.weights.conventions import recipe_for
from mindcv_mnasnet.weights.convert import convert
from mindcv_mnasnet.weights.labels import imagenet_class_names

pytestmark = pytest.mark.usefixtures("cpu")
TORCHVISION = ("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3")


def pixels_of(recipe: Recipe) -> np.ndarray:
    """Every photograph as our network sees it, uint8 (N, H, W, C), in the order of their paths."""
    from mindcv_mnasnet.data.pipeline import eval_batches

    index = open_val(load_recipe(overrides={**recipe.to_dict(), "data_dir": str(FOLDER)}), imagenet_class_names())
    plan = Plan.make(recipe, None, len(index), 1, 1)
    found = np.concatenate([images.asnumpy() for images, _ in eval_batches(index, recipe, plan)])[: len(index)]
    order = np.argsort([index.name(number) for number in range(len(index))])
    return found[order]


def timm_transform(size: int = 224, normalize: bool = True):
    from timm.data import create_transform

    return create_transform(
        input_size=size, interpolation="bicubic", crop_pct=0.875, normalize=normalize, use_prefetcher=not normalize
    )


def torchvision_transform(torchvision, short: int, size: int = 224):
    """``weights.transforms()`` of torchvision's MnasNets without the last step, which is the same for all."""
    transforms = torchvision.transforms
    return transforms.Compose([transforms.Resize(short), transforms.CenterCrop(size), transforms.PILToTensor()])


def theirs(transform) -> np.ndarray:
    return np.stack([np.asarray(transform(Image.open(path).convert("RGB"))) for path in photographs()])


@pytest.mark.parametrize("size", [224, 96])
def test_our_pixels_are_timms(timm, size):
    photographs()
    recipe = recipe_for("timm", timm_network(), None).at_size(size)
    expected = theirs(timm_transform(size, normalize=False)).transpose(0, 2, 3, 1)
    assert np.array_equal(pixels_of(recipe), expected)


@pytest.mark.parametrize("short", [256, 232])
def test_our_pixels_are_torchvisions(torchvision, short):
    photographs()
    recipe = load_recipe(
        overrides={"val_resize": short, "val_interpolation": "pilbilinear", "eval_crop": "center_round"}
    )
    expected = theirs(torchvision_transform(torchvision, short)).transpose(0, 2, 3, 1)
    assert np.array_equal(pixels_of(recipe), expected)


def timm_network():
    from mindcv_mnasnet.networks.network import resolve

    return resolve("mnasnet_100.rmsp_in1k")


@cache
def labels() -> np.ndarray:
    names = {name: number for number, name in enumerate(imagenet_class_names())}
    return np.array([names[path.parent.name] for path in photographs()])


def require_same_evaluation(model, transform, tmp_path: Path) -> None:
    """validate.py on the converted state of a torch model counts what the model does, and answers alike."""
    import torch

    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    with torch.no_grad():
        batches = [torch.stack([transform(Image.open(p).convert("RGB")) for p in part]) for part in parts()]
        expected = np.concatenate([model.eval()(batch).numpy() for batch in batches])
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors")

    words = (tmp_path / "ours.safetensors", "--data_dir", FOLDER, "--json", tmp_path / "rows.json")
    assert cli(*words, "--val_batch_size", "40", program=validate) == 0
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    ranks = (expected > expected[np.arange(len(expected)), labels()][:, None]).sum(1)
    assert row["images"] == len(expected)
    assert row["top1"] == pytest.approx(100 * (ranks < 1).mean())
    assert row["top5"] == pytest.approx(100 * (ranks < 5).mean())

    classifier = predict.open_classifier(str(tmp_path / "ours.safetensors"), batch_size=40)
    names = [str(path) for path in photographs()]
    ours = np.concatenate([classifier.logits(images) for _, images in classifier.opened.batches(names)])
    assert np.abs(ours - expected).max() < 1e-3 * expected.std()


def test_every_name_that_the_libraries_offer_is_compared(timm, torchvision):
    assert sorted(timm.list_models("*mnasnet*")) == sorted(TIMM)
    assert sorted(torchvision.models.list_models(include="mnasnet*")) == sorted(TORCHVISION)


def parts() -> list[list[Path]]:
    found = photographs()
    return [found[start : start + 40] for start in range(0, len(found), 40)]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "semnasnet_050" else pytest.mark.slow) for name in TIMM]
)
def test_validation_equals_timms(timm, tmp_path, name):
    photographs()
    require_same_evaluation(timm.create_model(name), timm_transform(), tmp_path)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "mnasnet0_5" else pytest.mark.slow) for name in TORCHVISION]
)
def test_validation_equals_torchvisions(torchvision, tmp_path, name):
    photographs()
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    model = torchvision.models.get_model(name, weights=None)
    require_same_evaluation(model, weights.transforms(), tmp_path)


def test_our_squares_are_resized_as_tensorflow_1_does():
    """Equal but where a value lies halfway between two numbers and float32 decides."""
    tf = pytest.importorskip("tensorflow")
    for path in photographs()[::10]:
        square = central_square(np.asarray(Image.open(path).convert("RGB")), 224)
        resized = tf.compat.v1.image.resize_bilinear(square[None].astype(np.float32), (224, 224)).numpy()[0]
        ours = tf1_bilinear(square, 224).astype(np.float32)
        assert np.abs(ours - resized).max() < 0.501
        assert (ours != np.rint(resized)).mean() < 1e-3
