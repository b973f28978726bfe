"""Weight files of every kind: what is read of them, and what is refused."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import exported
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from weight_files import network, stored, tensors, write

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.network import FAMILIES
from mindcv_mnasnet.run.checkpoint import read_checkpoint, write_checkpoint
from mindcv_mnasnet.weights.convert import convert, open_weights
from mindcv_mnasnet.weights.files import read_stored, write_stored
from mindcv_mnasnet.weights.labels import class_title, imagenet_class_names
from mindcv_mnasnet.weights.mindspore_file import _lengthened, _varint, read_ckpt, write_ckpt
from mindcv_mnasnet.weights.read import read_weights

ROOT = Path(__file__).resolve().parents[1]


def test_numbers_of_16_and_64_bits_become_float32(tmp_path):
    net = network("timm", "small")
    content = stored("timm", net)
    for kind in ("float16", "float64"):
        save_file({name: value.astype(kind) for name, value in content.tensors.items()}, tmp_path / "x.safetensors")
        found = read_stored(tmp_path / "x.safetensors")
        assert {value.dtype for value in found.tensors.values()} == {np.dtype(np.float32)}
        assert kind in found.note


def test_a_suffix_in_capitals_or_none_is_as_good(tmp_path):
    src = write(tmp_path / "theirs.safetensors", "timm", network("timm", "small"))
    for name in ("theirs.SAFETENSORS", "theirs"):
        shutil.copy(src, tmp_path / name)
        assert read_stored(tmp_path / name).tensors.keys() == read_stored(src).tensors.keys()


def test_names_that_are_one_without_their_prefixes_are_refused(tmp_path):
    content = stored("timm", network("timm", "small"))
    twice = {**content.tensors, "module.bn1.bias": content.tensors["bn1.bias"] + 1}
    save_file(twice, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"has bn1\.bias twice"):
        read_stored(tmp_path / "x.safetensors")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, value):
    content = stored("timm", network("timm", "small"))
    content.tensors["conv_head.weight"][0] = value
    write_stored(tmp_path / "x.safetensors", content)
    with pytest.raises(UserError, match=r"head\.conv\.weight has values that are not finite"):
        convert(tmp_path / "x.safetensors", tmp_path / "ours.safetensors")
    content.tensors["conv_head.weight"][0] = 0
    content.tensors["bn1.running_var"][0] = -0.1
    write_stored(tmp_path / "x.safetensors", content)
    with pytest.raises(UserError, match=r"stem\.bn\.moving_variance has a variance of -0\.1"):
        convert(tmp_path / "x.safetensors", tmp_path / "ours.safetensors")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "a Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n", "Keras"),
        (b"\x1c\0\0\0TFL3", "TFLite"),
        (b"\xef\xbb\xbf<html>", "a web page"),
        (b"\x08\x08\x12\x07pytorch", "an ONNX model"),
        (bytes(257) + b"ustar\0", "a tar archive"),
        (b"\x93NUMPY\x01\0", "an array of NumPy"),
        (b"\xff\xd8\xff\xe0", "an image"),
        (b'{"message": "Not Found"}', "JSON"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0", "gzip"),
        (b"", "an empty file"),
    ],
)
def test_what_is_no_weights_is_named_for_what_it_is(tmp_path, content, said):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=said):
        convert(tmp_path / "x.pth", tmp_path / "ours.safetensors")
    (tmp_path / "x.pth").rename(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=said):
        open_weights(tmp_path / "x.safetensors")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("model/constants.pkl", "")
    with pytest.raises(UserError, match="TorchScript"):
        read_stored(tmp_path / "script.pt")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    with pytest.raises(UserError, match="SavedModel"):
        read_stored(tmp_path / "saved")


def test_what_hugging_face_says_of_the_evaluation_is_taken_and_the_rest_is_said(tmp_path):
    write(tmp_path / "model.safetensors", "timm", network("timm", "small", 1.0, 3))
    settings = {"input_size": [3, 192, 192], "crop_pct": 0.9, "interpolation": "bilinear", "mean": [0.5, 0.5, 0.5]}
    settings |= {"std": [0.25, 0.25, 0.25], "test_crop_pct": 0.95, "label_names": ["cat", "dog", "newt"]}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "mnasnet_small", "pretrained_cfg": settings}))
    for source in (tmp_path, tmp_path / "model.safetensors"):
        weights = read_weights(source)
        recipe = weights.recipe
        assert (recipe.mean, recipe.std) == ((127.5,) * 3, (63.75,) * 3)
        assert (recipe.image_resize, recipe.short_side(), recipe.val_interpolation) == (192, 213, "pilbilinear")
        assert weights.class_names == ("cat", "dog", "newt")
        assert any("test_crop_pct not used" in note for note in weights.notes)
    changed = read_weights(tmp_path, image_size=96, evaluation={"mean": [1, 2, 3], "crop_pct": 1.0})
    assert (changed.recipe.mean, changed.recipe.short_side()) == ((1, 2, 3), 96)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"label_names": ["cat", "cat", "newt"]}, "'cat' is there twice"),
        ({"pretrained_cfg": {"crop_pct": 1.4}}, r"crop_pct: 1.4 \(.*config.json\)"),
        ({"id2label": {"2": "newt", "0": "cat", "1": "dog"}, "pretrained_cfg": None}, None),
    ],
)
def test_class_names_of_hugging_face_and_what_is_wrong_there(tmp_path, config, said):
    write(tmp_path / "model.safetensors", "timm", network("timm", "small", 1.0, 3))
    (tmp_path / "config.json").write_text(json.dumps(config))
    if said is None:
        assert read_weights(tmp_path).class_names == ("cat", "dog", "newt")
    else:
        with pytest.raises(UserError, match=said):
            read_weights(tmp_path)


def test_classes_without_names_are_said_to_be_in_the_order_of_text(tmp_path):
    for classes, says in ((10, False), (11, True)):
        write(tmp_path / "x.safetensors", "timm", network("timm", "small", 1.0, classes))
        assert any("order of text" in note for note in read_weights(tmp_path / "x.safetensors").notes) == says


def test_our_own_checkpoint_takes_a_size_and_names_too(tmp_path):
    write(tmp_path / "x.safetensors", "timm", network("timm", "small", 1.0, 2))
    convert(tmp_path / "x.safetensors", tmp_path / "ours.safetensors")
    convert(tmp_path / "ours.safetensors", tmp_path / "again.safetensors", image_size=96, class_names=["cat", "dog"])
    again = read_checkpoint(tmp_path / "again.safetensors")
    assert (again.recipe.image_resize, again.recipe.short_side(), again.network.image_size) == (96, 109, 96)
    assert again.class_names == ("cat", "dog")


def test_our_own_checkpoint_handed_on_knows_its_images_and_names_no_place(tmp_path):
    write(tmp_path / "x.safetensors", "timm", network("timm", "small", 1.0, 2))
    convert(tmp_path / "x.safetensors", tmp_path / "ours.safetensors")
    first, known = read_checkpoint(tmp_path / "ours.safetensors"), {"train": None, "val": None}
    places = {"data_dir": "/home/me/photos", "val_labels": "/home/me/labels.txt", "init_from": "/home/me/a.ckpt"}
    meta = {**first.meta, "recipe": {**first.meta["recipe"], **places}, "data": known}
    write_checkpoint(tmp_path / "run.safetensors", first.tensors, meta)
    convert(tmp_path / "run.safetensors", tmp_path / "handed on.safetensors")
    assert b"/home/me" not in (tmp_path / "handed on.safetensors").read_bytes()
    assert read_checkpoint(tmp_path / "handed on.safetensors").meta["data"] == known


def test_a_resnet_is_no_mnasnet(tmp_path):
    save_file({"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}, tmp_path / "resnet.safetensors")
    with pytest.raises(UserError, match="not the names of any source"):
        convert(tmp_path / "resnet.safetensors", tmp_path / "ours.safetensors")


def test_what_is_there_is_not_overwritten_unasked(tmp_path):
    src = write(tmp_path / "theirs.safetensors", "timm", network("timm", "b1"))
    convert(src, tmp_path / "ours.safetensors")
    with pytest.raises(UserError, match="there already"):
        convert(src, tmp_path / "ours.safetensors")
    convert(src, tmp_path / "ours.safetensors", overwrite=True)


@pytest.mark.parametrize("keys", [{"model": "mnasnet_100"}, {"width_mult": 2.0}])
def test_a_checkpoint_of_ours_knows_its_network(tmp_path, digits, keys):
    src = exported.write(tmp_path / "own.safetensors", digits, "tiny")
    with pytest.raises(UserError, match="knows its network"):
        convert(src, tmp_path / "ours.safetensors", **keys)


def test_class_names_have_to_be_as_many_as_classes(tmp_path):
    src = write(tmp_path / "theirs.safetensors", "timm", network("timm", "b1"))
    with pytest.raises(UserError, match="2 are given"):
        convert(src, tmp_path / "ours.safetensors", class_names=["cat", "dog"])


def lying_header(path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1000000], "data_offsets": [0, 4000000]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"1234")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("lying.safetensors", lying_header),
        ("huge.safetensors", lambda path: path.write_bytes(struct.pack("<Q", 2**60) + b"{}")),
        ("onnx.ckpt", lambda path: path.write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x05x.y.z")),
        ("text.ckpt", lambda path: path.write_text("no checkpoint at all")),
        ("empty.ckpt", lambda path: path.write_bytes(b"")),
        ("model.onnx", lambda path: path.write_bytes(b"\x08\x08\x12\x07pytorch")),
    ],
)
def test_hostile_files_are_one_sentence_and_nothing_is_written(tmp_path, name, make):
    make(tmp_path / name)
    command = [sys.executable, ROOT / "tools" / "convert.py", tmp_path / name, tmp_path / "ours.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_truncated_file_is_refused(tmp_path, suffix, keep):
    source = "mindcv" if suffix == ".ckpt" else "timm"
    whole = write(tmp_path / f"whole{suffix}", source, network(source, "b1")).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(UserError, match=str(cut)):
        read_weights(cut)


def test_a_pickle_that_runs_code_is_not_opened(tmp_path):
    torch = pytest.importorskip("torch")

    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    torch.save({"conv_stem.weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(UserError, match="holds more than tensors"):
        convert(tmp_path / "bomb.pth", tmp_path / "ours.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["bomb.pth"]


def test_a_training_checkpoint_of_pytorch_gives_its_averaged_weights(tmp_path):
    torch = pytest.importorskip("torch")
    net = network("timm", "b1")
    averaged = {name: torch.from_numpy(value) for name, value in stored("timm", net).tensors.items()}
    plain = {f"module.{name}": value + 1 for name, value in averaged.items()}
    path = tmp_path / "training.pth.tar"
    torch.save({"epoch": 3, "state_dict": plain, "state_dict_ema": averaged}, path)
    own, raw = read_weights(path), read_weights(path, raw=True)
    assert all(np.array_equal(own.tensors[name] + 1, raw.tensors[name]) for name in own.tensors)


@pytest.mark.parametrize("key", ["ema", "model_ema", "model", "args"])
@pytest.mark.parametrize("settings", [{"decay": 0.9, "updates": {"done": 5}}, {}])
def test_settings_beside_weights_are_no_weights(tmp_path, key, settings):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(value) for name, value in stored("timm", network("timm", "b1")).tensors.items()}
    torch.save({key: settings, "net": state, "optimizer": {"state": {}, "param_groups": [1]}}, tmp_path / "x.pth")
    assert read_stored(tmp_path / "x.pth").tensors.keys() == state.keys()
    torch.save({"module": {key: {**settings, "shadow": state}}}, tmp_path / "nested.pth")
    assert read_stored(tmp_path / "nested.pth").tensors.keys() == state.keys()


def test_pytorch_files_go_round(tmp_path):
    torch = pytest.importorskip("torch")
    src = write(tmp_path / "theirs.pth", "torchvision", network("torchvision", "b1"))
    convert(src, tmp_path / "ours.safetensors")
    convert(tmp_path / "ours.safetensors", tmp_path / "back.pth", target="torchvision")
    first, second = (torch.load(path, weights_only=True) for path in (src, tmp_path / "back.pth"))
    assert isinstance(second, OrderedDict)
    assert second._metadata[""] == {"version": 2}
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first.keys() == second.keys()


def test_ckpt_files_are_mindspores(tmp_path, cpu):
    import mindspore as ms

    values = tensors(network("mindcv", "b1"))
    (tmp_path / "ours.ckpt").write_bytes(write_ckpt(values))
    theirs = ms.load_checkpoint(str(tmp_path / "ours.ckpt"))
    assert all(np.array_equal(theirs[name].asnumpy(), value) for name, value in values.items())
    ms.save_checkpoint([{"name": n, "data": ms.Tensor(v)} for n, v in values.items()], str(tmp_path / "theirs.ckpt"))
    back = read_ckpt((tmp_path / "theirs.ckpt").read_bytes())
    assert all(np.array_equal(back[name], value) for name, value in values.items())
    assert back.keys() == values.keys()


@pytest.mark.parametrize("rates", [0.1, [0.1] * 50])
@pytest.mark.parametrize("grouped", [False, True])
def test_a_training_checkpoint_of_mindspore_gives_its_weights(tmp_path, cpu, rates, grouped):
    import mindspore as ms
    from mindspore import nn

    content = stored("mindcv", network("mindcv", "b1"))

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            moving = ("moving_mean", "moving_variance")
            self.all = ms.ParameterTuple(
                ms.Parameter(value, name=name, requires_grad=not name.endswith(moving))
                for name, value in content.tensors.items()
            )

    net = Net()
    trained = net.trainable_params()
    if grouped:
        trained = [{"params": trained[::2], "lr": rates}, {"params": trained[1::2]}]
    scale = nn.DynamicLossScaleUpdateCell(1024, 2, 1000)
    step = nn.TrainOneStepWithLossScaleCell(net, nn.RMSProp(trained, rates, momentum=0.9), scale)
    ms.save_checkpoint(step, str(tmp_path / "training.ckpt"))
    found = read_stored(tmp_path / "training.ckpt")
    assert found.tensors.keys() == content.tensors.keys()
    assert all(np.array_equal(found.tensors[name], value) for name, value in content.tensors.items())
    assert "of a training's state" in found.note


@pytest.mark.parametrize("shape", [(2**69,), (2**62, 4), (0, 2**69), (2**64 - 1, 2**64 - 1)])
def test_a_shape_beyond_all_numbers_is_refused(shape):
    dims = b"".join(b"\x08" + _varint(size) for size in shape)
    tensor = _lengthened(2, dims + _lengthened(2, b"Float32"))
    with pytest.raises(ValueError, match=r"a\.b has 0 bytes"):
        read_ckpt(_lengthened(1, _lengthened(1, b"a.b") + tensor))


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_folder_without_a_name_is_no_weights(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is a folder without a weight file"):
        convert(name, tmp_path / "ours.safetensors")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_upset_the_reader_of_ckpt_files(content):
    with contextlib.suppress(ValueError):
        read_ckpt(content)


def test_classes_have_titles():
    assert class_title("n01440764") == "tench"
    assert class_title("my own class") == "my own class"
    assert len(set(imagenet_class_names())) == 1000


def test_safetensors_written_for_others_are_plain(tmp_path):
    src = write(tmp_path / "theirs.safetensors", "timm", network("timm", "small"))
    convert(src, tmp_path / "ours.safetensors")
    convert(tmp_path / "ours.safetensors", tmp_path / "again.safetensors", target="timm")
    assert load_file(tmp_path / "again.safetensors").keys() == load_file(src).keys()


@pytest.mark.parametrize("model", [None, "mnasnet_small"])
def test_a_named_model_is_adapted_to_the_colors_of_the_file(tmp_path, model):
    net = replace(network("timm", "small", width=1.0), in_channels=1, head=FAMILIES["small"].head)
    path = write(tmp_path / "grey.safetensors", "timm", net)
    assert read_weights(path, model=model).network.in_channels == 1


def test_a_width_without_a_model_is_refused(tmp_path):
    path = write(tmp_path / "a.safetensors", "timm", network("timm", "small"))
    with pytest.raises(UserError, match="width_mult: it is that of a model"):
        read_weights(path, width_mult=0.35)
