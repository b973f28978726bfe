"""Checkpoints as the libraries themselves write them, read, and ours loaded by the libraries."""

from __future__ import annotations

import argparse
import shutil
from collections import OrderedDict

import numpy as np
import pytest
from test_parity_weights import images, logits_of, require_equal, shaken

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.weights.convert import convert, open_weights
from mindcv_mnasnet.weights.files import read_stored
from mindcv_mnasnet.weights.mindspore_file import read_ckpt
from mindcv_mnasnet.weights.read import read_weights

pytestmark = pytest.mark.usefixtures("cpu")


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


# --- torch ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(timm):
    import torch

    torch.manual_seed(0)
    return timm.create_model("mnasnet_small", num_classes=5)


def test_timms_saver(timm, model, tmp_path):
    """Its checkpoints hold a Namespace, the optimizer, a NumPy metric, and averaged weights."""
    import torch

    averaged = timm.utils.ModelEmaV3(model, decay=0.9)
    with torch.no_grad():
        for parameter in averaged.module.parameters():
            parameter += 1
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    saver = timm.utils.CheckpointSaver(
        model,
        optimizer,
        args=argparse.Namespace(model="mnasnet_small", lr=np.float64(0.1)),
        model_ema=averaged,
        checkpoint_dir=str(tmp_path),
        recovery_dir=str(tmp_path),
    )
    saver.save_checkpoint(3, metric=np.float64(71.5))
    (path,) = tmp_path.glob("checkpoint-*.pth.tar")
    raw, own = read_stored(path, raw=True), read_stored(path)
    assert np.allclose(own.tensors["conv_stem.weight"], raw.tensors["conv_stem.weight"] + 1)
    assert "state_dict_ema" in own.note
    assert np.array_equal(raw.tensors["conv_stem.weight"], model.state_dict()["conv_stem.weight"].numpy())


def test_torchvisions_references(torchvision, tmp_path):
    """Their model_ema is torch's AveragedModel: module. before every name, and n_averaged; args are a Namespace."""
    import torch

    model = torchvision.models.mnasnet0_5(num_classes=5)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    content = {"model": model.state_dict(), "optimizer": torch.optim.SGD(model.parameters(), 0.1).state_dict()}
    content |= {"epoch": 1, "args": argparse.Namespace(lr=0.5), "model_ema": averaged.state_dict()}
    torch.save(content, tmp_path / "checkpoint.pth")
    weights = read_weights(tmp_path / "checkpoint.pth")
    assert weights.network.family == "b1"
    assert any("model_ema" in note for note in weights.notes)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("key", ["state_dict", "model", "ema_state_dict", "model_state_dict"])
def test_wrapped_and_compiled_models(model, tmp_path, prefix, key):
    import torch

    state = OrderedDict((prefix + name, value) for name, value in model.state_dict().items())
    torch.save({key: state, "epoch": 1}, tmp_path / "x.pth")
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    assert same(read_stored(tmp_path / "x.pth").tensors, read_stored(tmp_path / "plain.pth").tensors)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_widths_of_numbers(model, tmp_path, kind, suffix):
    import torch
    from safetensors.torch import save_file

    state = {n: v.to(getattr(torch, kind)) if v.is_floating_point() else v for n, v in model.state_dict().items()}
    save = torch.save if suffix == ".pth" else save_file
    save(state, tmp_path / f"x{suffix}")
    found = read_stored(tmp_path / f"x{suffix}").tensors
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}
    assert all(np.array_equal(value, state[name].float().numpy()) for name, value in found.items())


@pytest.mark.parametrize("wrap", [lambda s: {"checkpoint": {"model": {"state_dict": s}}}, lambda s: {"teacher": s}])
def test_weights_are_found_at_any_depth(model, tmp_path, wrap):
    import torch

    inner = {f"backbone.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 1, **wrap(inner)}, tmp_path / "x.pth")
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    assert same(read_stored(tmp_path / "x.pth").tensors, read_stored(tmp_path / "plain.pth").tensors)


@pytest.mark.parametrize("other", ["float8_e5m2", "sparse"])
def test_tensors_that_numpy_does_not_know_are_read_or_refused_by_name(model, tmp_path, other):
    import torch
    from safetensors.torch import save_file

    state = dict(model.state_dict())
    weight = state["conv_head.weight"]
    state["conv_head.weight"] = weight.to_sparse() if other == "sparse" else weight.to(getattr(torch, other))
    torch.save(state, tmp_path / "x.pth")
    expected = state["conv_head.weight"].to_dense().float().numpy()
    assert np.array_equal(read_stored(tmp_path / "x.pth").tensors["conv_head.weight"], expected)
    if other != "sparse":
        save_file(state, tmp_path / "x.safetensors")
        with pytest.raises(UserError, match="F8_E5M2"):
            open_weights(tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["x.PTH", "x", "x.safetensors"])
def test_a_file_of_torch_is_known_by_its_content(model, tmp_path, name):
    import torch

    torch.save(model.state_dict(), tmp_path / "plain.pth")
    shutil.copy(tmp_path / "plain.pth", tmp_path / name)
    assert same(read_stored(tmp_path / name).tensors, read_stored(tmp_path / "plain.pth").tensors)


def test_what_is_no_state_dict_is_named(model, tmp_path):
    import torch

    torch.save(model, tmp_path / "whole.pth")
    with pytest.raises(UserError, match=r"a pickled timm\.models\.\S+, and is not opened; save the state_dict"):
        read_stored(tmp_path / "whole.pth")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pth")
    with pytest.raises(UserError, match="TorchScript"):
        read_stored(tmp_path / "script.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds a list"):
        read_stored(tmp_path / "list.pth")


def test_a_file_of_torch_is_opened_as_a_checkpoint(model, tmp_path):
    import torch

    theirs = shaken(model)
    torch.save(model.state_dict(), tmp_path / "x.pth")
    checkpoint = open_weights(tmp_path / "x.pth")
    convert(tmp_path / "x.pth", tmp_path / "x.safetensors")
    assert same(checkpoint.weights(), open_weights(tmp_path / "x.safetensors").weights())
    require_equal(logits_of(tmp_path / "x.safetensors"), theirs)


@pytest.mark.parametrize("name", ["mnasnet0_5", "mnasnet0_75"])
def test_torchvisions_first_layout_goes_back_as_such(torchvision, tmp_path, name):
    """Version 1 has another start at widths other than 1; torchvision rebuilds it for a state of that version."""
    import torch

    model = getattr(torchvision.models, name)(num_classes=5)
    state = model.state_dict()
    depth = torchvision.models.mnasnet._get_depths(model.alpha)
    for key, shape in {"0": (32, 3, 3, 3), "3": (32, 1, 3, 3), "6": (16, 32, 1, 1)}.items():
        state[f"layers.{key}.weight"] = torch.randn(shape)
    for key, width in {"1": 32, "4": 32, "7": 16}.items():
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"layers.{key}.{leaf}"] = torch.rand(width)
    inner = state["layers.8.0.layers.0.weight"].shape[0] // depth[1] * 16
    state["layers.8.0.layers.0.weight"] = torch.randn(inner, 16, 1, 1)
    for leaf in ("1.weight", "1.bias", "1.running_mean", "1.running_var", "4.weight", "4.bias"):
        state[f"layers.8.0.layers.{leaf}"] = torch.rand(inner)
    for leaf in ("4.running_mean", "4.running_var"):
        state[f"layers.8.0.layers.{leaf}"] = torch.rand(inner)
    state["layers.8.0.layers.3.weight"] = torch.randn(inner, 1, 3, 3)
    state["layers.8.0.layers.6.weight"] = torch.randn(depth[2], inner, 1, 1)
    torch.save(state, tmp_path / "old.pth")
    convert(tmp_path / "old.pth", tmp_path / "ours.safetensors")
    convert(tmp_path / "ours.safetensors", tmp_path / "back.pth", target="torchvision")
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back._metadata[""]["version"] == 1
    again = getattr(torchvision.models, name)(num_classes=5)
    again.load_state_dict(back)
    with torch.no_grad():
        theirs = again.eval()(torch.from_numpy(images())).numpy()
    require_equal(logits_of(tmp_path / "ours.safetensors"), theirs)


def test_every_small_variance_of_timm_reaches_mindcv(timm, model, tmp_path):
    import torch

    model = timm.create_model("mnasnet_050", num_classes=5)
    theirs = shaken(model)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var[::3] = 1e-6
                module.weight[::3] *= 1e-2
        theirs = model.eval()(torch.from_numpy(images())).numpy()
    torch.save(model.state_dict(), tmp_path / "x.pth")
    convert(tmp_path / "x.pth", tmp_path / "x.ckpt")
    convert(tmp_path / "x.ckpt", tmp_path / "x.safetensors")
    require_equal(logits_of(tmp_path / "x.safetensors"), theirs)


# --- MindSpore and MindCV -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [False, True])
def test_the_whole_train_step_of_mindcv(tmp_path, ema):
    mindcv = pytest.importorskip("mindcv")
    import mindspore as ms
    from mindcv.loss import create_loss
    from mindcv.optim import create_optimizer
    from mindcv.utils import create_trainer

    net = mindcv.create_model("mnasnet_050", num_classes=5)
    optimizer = create_optimizer(net.trainable_params(), "momentum", lr=0.1)
    settings = {"amp_level": "O0", "amp_cast_list": None, "loss_scale_type": "fixed", "ema": ema}
    trainer = create_trainer(net, create_loss(), optimizer, metrics=None, **settings)
    step = trainer.train_network
    for parameter in step.get_parameters():
        if parameter.name.startswith("ema."):
            parameter.set_data(parameter + 1)
    beside = {"epoch": 3, "lr": 0.1, "best": True, "note": "text"}
    ms.save_checkpoint(step, str(tmp_path / "x.ckpt"), append_dict=beside, crc_check=True)
    weights, raw = read_weights(tmp_path / "x.ckpt"), read_weights(tmp_path / "x.ckpt", raw=True)
    assert weights.network.family == "b1"
    own = {parameter.name: parameter.asnumpy() for parameter in net.get_parameters()}
    assert np.array_equal(raw.tensors["stem.conv.weight"], own["features.0.weight"])
    assert np.array_equal(weights.tensors["stem.conv.weight"], own["features.0.weight"] + int(ema))
    content = bytearray((tmp_path / "x.ckpt").read_bytes())
    content[1000] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        read_ckpt(bytes(content))


@pytest.mark.parametrize("kind", ["float16", "float64", "bfloat16"])
def test_other_widths_of_numbers_of_mindspore(tmp_path, kind):
    import mindspore as ms

    value = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    tensor = ms.Tensor(value).astype(getattr(ms, kind))
    ms.save_checkpoint([{"name": "a.b", "data": tensor}], str(tmp_path / "x.ckpt"))
    found = read_ckpt((tmp_path / "x.ckpt").read_bytes())["a.b"]
    assert np.array_equal(found.astype(np.float32), tensor.astype(ms.float32).asnumpy())
