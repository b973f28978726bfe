"""Weights of the real libraries, converted: the same logits as theirs on real images."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.parameters import load_parameters
from mindcv_mnasnet.run.checkpoint import read_checkpoint
from mindcv_mnasnet.weights.convert import convert

pytestmark = pytest.mark.usefixtures("cpu")
SIZE = 96


def images() -> np.ndarray:
    """Four crops of scikit-learn's two photographs, normalized, NCHW."""
    photos = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    crops = [photo[top : top + 384 : 4, left : left + 384 : 4] for photo in photos for top, left in ((0, 0), (40, 250))]
    scaled = np.stack(crops).astype(np.float32) / 255
    normalized = (scaled - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return np.ascontiguousarray(normalized.transpose(0, 3, 1, 2), np.float32)


def logits_of(path: Path) -> np.ndarray:
    """Of a converted checkpoint, by our network."""
    checkpoint = read_checkpoint(path)
    model = create_model(checkpoint.network)
    load_parameters(model.get_parameters(), checkpoint.weights(), str(path))
    return model.set_train(False)(ms.Tensor(images())).asnumpy()


def require_equal(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert theirs.std() > 1e-3, "logits that do not vary compare nothing"
    assert np.abs(ours - theirs).max() < 1e-4 * theirs.std()


def shaken(model):
    """A torch model with batch norms as after training, evaluated; its logits."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.num_batches_tracked.fill_(1234)
    with torch.no_grad():
        return model.eval()(torch.from_numpy(images())).numpy()


TIMM = (
    *("mnasnet_050", "mnasnet_075", "mnasnet_100", "mnasnet_140", "mnasnet_small"),
    *("semnasnet_050", "semnasnet_075", "semnasnet_100", "semnasnet_140"),
)


@pytest.mark.parametrize(("name", "suffix"), [*((name, ".pth") for name in TIMM), ("semnasnet_050", ".safetensors")])
def test_timm(timm, tmp_path, name, suffix):
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=20)
    theirs = shaken(model)
    path, ours, back = tmp_path / f"theirs{suffix}", tmp_path / "ours.safetensors", tmp_path / f"back{suffix}"
    torch.save(model.state_dict(), path) if suffix == ".pth" else save_file(model.state_dict(), path)
    report = convert(path, ours)
    require_equal(logits_of(ours), theirs)
    assert report.parameters == sum(v.numel() for n, v in model.state_dict().items() if "num_batches" not in n)

    convert(ours, back, target="timm")
    from timm.models import load_state_dict

    state = load_state_dict(str(back))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    timm.create_model(name, num_classes=20).load_state_dict(state)


@pytest.mark.parametrize("name", ["mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"])
def test_torchvision(torchvision, tmp_path, name):
    import torch

    torch.manual_seed(0)
    build = getattr(torchvision.models, name)
    model = build(num_classes=20)
    theirs = shaken(model)
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
    require_equal(logits_of(tmp_path / "ours.safetensors"), theirs)

    convert(tmp_path / "ours.safetensors", tmp_path / "back.pth", target="torchvision")
    state = torch.load(tmp_path / "back.pth", weights_only=True)
    again = build(num_classes=20)
    again.load_state_dict(state)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["mnasnet_050", "mnasnet_075", "mnasnet_100", "mnasnet_130", "mnasnet_140"])
def test_mindcv(tmp_path, name):
    mindcv = pytest.importorskip("mindcv")
    model = mindcv.create_model(name, num_classes=20).set_train(False)
    rng = np.random.default_rng(0)
    for parameter in model.get_parameters():
        if parameter.name.endswith(("gamma", "moving_variance")):
            parameter.set_data(ms.Tensor(rng.uniform(0.5, 1.5, parameter.shape).astype(np.float32)))
        elif parameter.ndim == 1:
            parameter.set_data(ms.Tensor(rng.normal(0, 0.2, parameter.shape).astype(np.float32)))
        else:
            std = (2 / np.prod(parameter.shape[1:])) ** 0.5
            parameter.set_data(ms.Tensor(rng.normal(0, std, parameter.shape).astype(np.float32)))
    ms.save_checkpoint(model, str(tmp_path / "theirs.ckpt"))
    convert(tmp_path / "theirs.ckpt", tmp_path / "ours.safetensors")
    require_equal(logits_of(tmp_path / "ours.safetensors"), model(ms.Tensor(images())).asnumpy())

    convert(tmp_path / "ours.safetensors", tmp_path / "back.ckpt")
    back, theirs = (ms.load_checkpoint(str(tmp_path / name)) for name in ("back.ckpt", "theirs.ckpt"))
    assert all(np.array_equal(back[key].asnumpy(), value.asnumpy()) for key, value in theirs.items())
    assert not ms.load_param_into_net(mindcv.create_model(name, num_classes=20), back)[0]
