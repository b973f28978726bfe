"""The authors' TensorFlow checkpoints: real ones, written by TensorFlow, read, refused and written back."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tiny import tensor

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.parameters import load_parameters
from mindcv_mnasnet.networks.network import Network, resolve
from mindcv_mnasnet.weights.tensorflow import read_tensorflow, write_tensorflow
from mindcv_mnasnet.weights.tensorflow_names import NAME_MAPS, authors_layout, our_names, variable_names

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"
GRAPH = REFERENCE / "tf_mnasnet_small_w050_224.npz"
NAMES = Path(__file__).with_name("reference") / "authors_a1_variable_names.json"
EMA = "/ExponentialMovingAverage"

Arrays = dict[str, np.ndarray]


def save(prefix: Path, arrays: Arrays) -> Path:
    """A checkpoint of variables under these names, by TensorFlow itself."""
    tf = pytest.importorskip("tensorflow")
    prefix.parent.mkdir(parents=True, exist_ok=True)
    values = [tf.constant(value) for value in arrays.values()]
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=list(arrays), shape_and_slices=[""] * len(arrays), tensors=values
    )
    return prefix


def without_keras(names: list[str]) -> dict[str, str]:
    """Names as ``use_keras=False`` spells them: no level of the model's own, numbers from 0 in every scope."""
    places: dict[tuple[str, str], list[tuple[int, str, str]]] = {}
    for name in names:
        layer, _, leaf = name.replace("mnas_net_model/", "").rpartition("/")
        scope, kind, number = re.fullmatch(r"(.*)/([a-z_0-9]*?(?:2d|dense|tion))(?:_(\d+))?", layer).groups()
        places.setdefault((scope, kind), []).append((int(number or 0), leaf, name))
    renamed = {}
    for (scope, kind), layers in places.items():
        numbers = sorted({number for number, _, _ in layers})
        for number, leaf, name in layers:
            rank = numbers.index(number)
            renamed[name] = f"{scope}/{kind}{f'_{rank}' if rank else ''}/{leaf}"
    return renamed


def small(**overrides) -> Network:
    return resolve("mnasnet-small", width_mult=0.5, num_classes=5, **overrides)


def weights(network: Network, seed: int = 0) -> Arrays:
    """Random tensors of a network, statistics included."""
    rng = np.random.default_rng(seed)
    shapes = {p.name: p.shape for p in create_model(network).get_parameters()}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def variables(network: Network, tensors: Arrays) -> Arrays:
    """Those tensors under the authors' names, in their layout."""
    return {name: authors_layout(ours, tensors[ours]) for ours, name in variable_names(network).items()}


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """(prefix, tensors) of a small network's checkpoint; tests copy what they spoil."""
    tensors = weights(small())
    return save(tmp_path_factory.mktemp("example") / "model.ckpt", variables(small(), tensors)), tensors


def refusal(path: Path, raw: bool = False) -> str:
    with pytest.raises(UserError) as refused:
        read_tensorflow(path, raw)
    (sentence,) = str(refused.value).splitlines()
    return sentence


@pytest.mark.skipif(not GRAPH.exists(), reason="the authors' graph is not here")
@pytest.mark.parametrize("scheme", NAME_MAPS)
def test_the_authors_graph_gives_the_same_logits(cpu, tmp_path, scheme):
    """Random weights and one image through the authors' TensorFlow code (small x 0.5, 224 pixels)."""
    with np.load(GRAPH) as stored:
        arrays = {name.replace("|", "/"): stored[name] for name in stored.files}
    graph = {name: value for name, value in arrays.items() if not name.startswith("__")}
    names = dict(zip(graph, graph, strict=True)) if scheme == "keras" else without_keras(list(graph))
    prefix = save(tmp_path / "model.ckpt-7", {names[name]: value for name, value in graph.items()})
    tensors, network, _ = read_tensorflow(prefix)
    assert (network.family, network.width_mult, network.num_classes) == ("small", 0.5, 1000)
    assert (network.padding, network.bn_eps, network.residual_rule) == ("same", 1e-3, "declared")
    model = create_model(network).set_train(False)
    load_parameters(model.get_parameters(), tensors, "the graph")
    logits = model(tensor(np.ascontiguousarray(arrays["__x"].transpose(0, 3, 1, 2)))).asnumpy()
    assert np.abs(logits - arrays["__logits"]).max() < 1e-4 * arrays["__logits"].std()


@pytest.mark.parametrize("scheme", NAME_MAPS)
def test_names_are_those_of_the_authors_graph(scheme):
    expected = json.loads(NAMES.read_text())[scheme if scheme == "tf_layers" else "keras_layers"]
    ours = variable_names(resolve("mnasnet-a1"), scheme)
    assert sorted(ours.values()) == sorted(expected)
    assert our_names(reversed(expected)) == ours


@pytest.mark.parametrize("scheme", NAME_MAPS)
@pytest.mark.parametrize("model", ["mnasnet-a1", "mnasnet-b1", "mnasnet-small"])
def test_round_trips_are_bit_identical(tmp_path, model, scheme):
    network = resolve(model, width_mult=0.35, num_classes=3)
    pytest.importorskip("tensorflow")
    tensors = weights(network)
    write_tensorflow(tmp_path / "model.ckpt", tensors, network, scheme)
    read, found, _ = read_tensorflow(tmp_path / "model.ckpt")
    assert same(read, tensors)
    assert found.layers() == network.layers()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.ckpt.data-00000-of-00001", "model.ckpt.index"]


def test_averages_are_taken_unless_raw_ones_are_asked_for(tmp_path):
    averaged, raw = weights(small(), 1), weights(small(), 2)
    stored = {"global_step": np.int64(7)}
    for name, value in variables(small(), raw).items():
        stored |= {name: value, f"{name}/RMSProp": value, f"{name}/RMSProp_1": value}
    stored |= {f"{name}{EMA}": value for name, value in variables(small(), averaged).items()}
    prefix = save(tmp_path / "model.ckpt", stored)
    tensors, _, note = read_tensorflow(prefix)
    assert same(tensors, averaged)
    assert "EMA" in note
    assert same(read_tensorflow(prefix, raw=True)[0], raw)


def test_incomplete_averages_are_not_mixed_with_raw_ones(tmp_path):
    stored = variables(small(), weights(small()))
    some = {f"{name}{EMA}": value for name, value in list(stored.items())[:-1]}
    prefix = save(tmp_path / "model.ckpt", stored | some)
    assert "have no average (EMA)" in refusal(prefix)
    assert len(read_tensorflow(prefix, raw=True)[0]) == len(stored)


def test_a_checkpoint_without_averages_says_so(example):
    assert "no averaged (EMA) ones" in read_tensorflow(example[0])[2]


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_every_file_of_a_checkpoint_stands_for_it(example, suffix):
    prefix, tensors = example
    assert same(read_tensorflow(f"{prefix}{suffix}")[0], tensors)


def test_a_folder_stands_for_what_its_checkpoint_file_names(tmp_path, example):
    newest = weights(small(), 5)
    save(tmp_path / "model.ckpt-1", variables(small(), weights(small(), 4)))
    save(tmp_path / "model.ckpt-2", variables(small(), newest))
    assert "2 checkpoints" in refusal(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-2"\n')
    assert same(read_tensorflow(tmp_path)[0], newest)


def pack(path: Path, folder: Path, root: str = "mnasnet-a1") -> Path:
    with tarfile.open(path, "w:gz") as file:
        file.add(folder, root)
    return path


def test_an_archive_is_read_and_its_saved_model_passed_over(tmp_path, example):
    tensors = weights(small(), 6)
    folder = tmp_path / "content"
    save(folder / "model.ckpt", variables(small(), tensors))
    save(folder / "saved_model" / "variables" / "variables", variables(small(), example[1]))
    assert same(read_tensorflow(pack(tmp_path / "mnasnet-small.tgz", folder))[0], tensors)
    for part in folder.glob("model.ckpt*"):
        part.unlink()
    assert same(read_tensorflow(pack(tmp_path / "only.tgz", folder))[0], example[1])


def spoil(prefix: Path, target: Path, change) -> Path:
    """A copy of a checkpoint whose data file went through ``change``."""
    for part in prefix.parent.iterdir():
        content = part.read_bytes()
        (target / part.name).write_bytes(change(content) if ".data-" in part.name else content)
    return target / prefix.name


def test_damaged_data_are_refused(tmp_path, example):
    cut, flipped, absent = (tmp_path / name for name in ("cut", "flipped", "absent"))
    for folder in (cut, flipped, absent):
        folder.mkdir()
    assert "truncated" in refusal(spoil(example[0], cut, lambda data: data[: len(data) // 2]))
    middle = len(example[0].with_name("model.ckpt.data-00000-of-00001").read_bytes()) // 2
    one_bit = spoil(example[0], flipped, lambda data: data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    assert "damaged" in refusal(one_bit)
    spoil(example[0], absent, lambda data: data).with_name("model.ckpt.data-00000-of-00001").unlink()
    assert "has an index, but no" in refusal(absent)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    pytest.importorskip("tensorflow")
    assert "no TensorFlow checkpoint" in refusal(tmp_path / "nothing")
    assert "no file in it ends in .index" in refusal(tmp_path)
    (tmp_path / "junk.index").write_bytes(b"junk" * 100)
    (tmp_path / "junk.data-00000-of-00001").write_bytes(b"junk" * 100)
    assert "damaged or not a TensorFlow checkpoint" in refusal(tmp_path / "junk")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v | {"resnet/conv2d/kernel": np.zeros(3, np.float32)}, "no part of a MnasNet: resnet/conv2d/kernel"),
        (lambda v: v | {"mnasnet-small/mnas_stem/conv2d_9/kernel": np.zeros(3, np.float32)}, "mnas_stem"),
        (lambda v: v | {"other/mnas_stem/conv2d/bias": np.zeros(3, np.float32)}, "several models"),
        (lambda v: {n: x for n, x in v.items() if "mnas_blocks_3/batch_normalization_2/beta" not in n}, "blocks_3"),
        (lambda v: {n: x for n, x in v.items() if "mnas_stem" not in n}, "no stem"),
        (lambda v: {n: x for n, x in v.items() if "mnas_blocks_14/" not in n}, ""),
        (lambda v: {n: x.astype(np.float64) for n, x in v.items()}, "not float32"),
        (lambda v: {n: np.zeros((2, *x.shape[1:]), np.float32) if "dense/k" in n else x for n, x in v.items()}, ""),
    ],
    ids=["foreign", "twice", "two models", "missing", "no stem", "no last block", "doubles", "misshapen"],
)
def test_variables_that_are_not_exactly_a_networks_are_refused(tmp_path, change, said):
    assert said in refusal(save(tmp_path / "model.ckpt", change(variables(small(), weights(small())))))


def test_a_truncated_archive_is_refused(tmp_path, example):
    whole = pack(tmp_path / "whole.tgz", example[0].parent).read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 100):
        (tmp_path / "cut.tgz").write_bytes(whole[:length])
        assert "truncated" in refusal(tmp_path / "cut.tgz")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"padding": "symmetric"}, "padding same"),
        ({"bn_eps": 1e-5}, "bn_eps 0.001"),
        ({"width_mult": 1.0, "residual_rule": "actual"}, "shortcut"),
    ],
)
def test_a_network_that_the_authors_code_would_compute_otherwise_is_not_written(tmp_path, overrides, said):
    with pytest.raises(UserError, match=said):
        write_tensorflow(tmp_path / "model.ckpt", {}, resolve("mnasnet-small", **overrides))
    assert not list(tmp_path.iterdir())


def test_tensors_that_are_not_the_networks_are_not_written(tmp_path):
    with pytest.raises(UserError, match="missing or left over"):
        write_tensorflow(tmp_path / "model.ckpt", {}, small())
    assert not list(tmp_path.iterdir())
