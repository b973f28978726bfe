"""timm, where it is installed, beside ours: the same weights, images and recipe have to give the same losses."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.mnasnet import MnasNet
from mindcv_mnasnet.model.parameters import load_parameters
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.train.random_inputs import RandomLayout
from mindcv_mnasnet.train.step import TrainStep

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("cpu")
SIZE, CLASSES, BATCH, STEPS = 64, 10, 16, 20
RECIPE = {
    "opt": "rmsprop",
    "eps": 1e-3,
    "rmsprop_decay": 0.9,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "weight_decay_filter": "norm_and_bias",
    "label_smoothing": 0.1,
    "ema": True,
    "ema_decay": 0.9,
}
RATES = np.linspace(0.0, 3e-4, STEPS).astype(np.float32)  # the beginning of a warm-up


def ours_from(state: dict[str, torch.Tensor], model: MnasNet) -> dict[str, np.ndarray]:
    """timm's tensors under our names."""
    first = {"conv_dw": "depthwise.conv", "bn1": "depthwise.bn", "conv_pw": "project.conv", "bn2": "project.bn"}
    inverted = {"conv_pw": "expand.conv", "bn1": "expand.bn", "conv_dw": "depthwise.conv", "bn2": "depthwise.bn"}
    inverted |= {"se.conv_reduce": "se.reduce", "se.conv_expand": "se.expand"}
    inverted |= {"conv_pwl": "project.conv", "bn3": "project.bn"}
    outer = {"conv_stem": "stem.conv", "bn1": "stem.bn", "conv_head": "head.conv", "bn2": "head.bn"}
    norm = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    numbers = {(layer.stage, layer.index): n for n, layer in enumerate(model.network.layers())}
    found = {}
    for name, value in state.items():
        *path, leaf = name.split(".")
        if leaf == "num_batches_tracked":
            continue
        if path[0] == "blocks":
            number = numbers[int(path[1]), int(path[2])]
            kinds = inverted if model.network.blocks[int(path[1])].expand > 1 else first
            cell = f"blocks.{number}.{kinds['.'.join(path[3:])]}"
        else:
            cell = outer.get(path[0], path[0])
        found[f"{cell}.{norm[leaf] if cell.endswith('.bn') else leaf}"] = value.detach().numpy().copy()
    return found


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Four batches in turn, so that there is something to learn."""
    rng = np.random.default_rng(step % 4)
    return rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8), rng.integers(0, CLASSES, BATCH).astype(np.int32)


def train_theirs(timm, model) -> tuple[list[float], torch.nn.Module]:
    """Losses of timm's loop in float64, and its averaged model."""
    model = model.double().train()
    groups = timm.optim.param_groups_weight_decay(model, RECIPE["weight_decay"])
    optimizer = timm.optim.RMSpropTF(groups, lr=0.0, alpha=0.9, eps=RECIPE["eps"], momentum=RECIPE["momentum"])
    criterion = timm.loss.LabelSmoothingCrossEntropy(RECIPE["label_smoothing"])
    average = timm.utils.ModelEmaV3(model, decay=RECIPE["ema_decay"])
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in tiny.recipe().pixel_statistics())
    losses = []
    for step, rate in enumerate(RATES):
        images, labels = batch(step)
        x = (torch.tensor(images).permute(0, 3, 1, 2).double() - mean) / std
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        loss = criterion(model(x), torch.tensor(labels).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update(model)
        losses.append(loss.item())
    return losses, average.module


@pytest.mark.parametrize(("name", "family"), [("mnasnet_050", "b1"), ("semnasnet_050", "a1")])
def test_the_first_steps_follow_timm(timm, name, family):
    """Small logits at first and small steps: else rounding alone outgrows the tolerance in a few steps."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    theirs = timm.create_model(name, num_classes=CLASSES, drop_rate=0.0)
    theirs.classifier.weight.data *= 0.01
    network = resolve(
        family, width_mult=0.5, num_classes=CLASSES, image_size=SIZE, dropout=0.0, bn_eps=1e-5, bn_momentum=0.9
    )
    ours = create_model(network)
    start = ours_from(theirs.state_dict(), ours)
    load_parameters(ours.get_parameters(), start, "timm")
    ours.set_train()
    step = TrainStep(tiny.recipe(**RECIPE), ours, RandomLayout(SIZE), RATES)

    expected, average = train_theirs(timm, theirs)
    got = [tiny.run(step, *batch(number)) for number in range(STEPS)]

    np.testing.assert_allclose(got, expected, rtol=1e-3)
    assert np.mean(expected[:4]) - np.mean(expected[-4:]) > 0.05, "losses that do not move compare nothing"
    for ending, model in (("", theirs), ("_ema", average)):
        reference = ours_from(model.state_dict(), ours)
        moved = {name: reference[name] - start[name] for name in start}
        missed = {name: value - reference[name] for name, value in step.weight_sets()[ending].items()}
        assert length(missed) < 0.02 * length(moved)


def length(arrays: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum((array.astype(float) ** 2).sum() for array in arrays.values())))
