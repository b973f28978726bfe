"""Weight files: every tensor mapped once, round trips bit for bit, hostile files refused with nothing written."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weight_files import network, stored, tensors, write

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.families import CONVENTIONS
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.run.checkpoint import read_checkpoint, write_checkpoint
from mindcv_mnasnet.weights.conventions import recipe_for
from mindcv_mnasnet.weights.convert import convert
from mindcv_mnasnet.weights.detect import network_of
from mindcv_mnasnet.weights.files import read_stored, write_stored
from mindcv_mnasnet.weights.labels import imagenet_class_names
from mindcv_mnasnet.weights.name_maps import NAME_MAPS, shapes
from mindcv_mnasnet.weights.read import read_weights

MADE_BY = {"timm": ("a1", "b1", "small", "d1"), "torchvision": ("b1",), "mindcv": ("b1",)}


CASES = [(source, family) for source, families in MADE_BY.items() for family in families]


@pytest.mark.parametrize(("source", "family"), CASES)
@settings(max_examples=15, deadline=None)
@given(width=st.sampled_from([0.35, 0.5, 0.75, 1.0, 1.3, 1.4, 0.6, 2.0]), classes=st.integers(1, 1001))
def test_the_network_is_recognized_from_names_and_shapes(source, family, width, classes):
    net = resolve(family, width_mult=width, num_classes=classes, **CONVENTIONS[source])
    known = shapes(net)
    found = network_of({theirs: known[ours] for ours, theirs in NAME_MAPS[source].names(net).items()}, source)
    assert (found.layers(), found.num_classes, found.family) == (net.layers(), classes, family)
    assert (found.padding, found.bn_eps, found.residual_rule) == (net.padding, net.bn_eps, net.residual_rule)


@pytest.mark.parametrize(("source", "family"), CASES)
def test_every_tensor_has_one_name_of_each_source(source, family):
    net = network(source, family)
    names = NAME_MAPS[source].names(net)
    assert list(names) == list(shapes(net))
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize(("source", "family"), CASES)
def test_a_round_trip_is_bit_identical(tmp_path, source, family):
    suffix = {"mindcv": ".ckpt", "torchvision": ".pth"}.get(source, ".safetensors")
    if suffix == ".pth":
        pytest.importorskip("torch")
    src = write(tmp_path / f"theirs{suffix}", source, network(source, family))
    ours, back = tmp_path / "ours.safetensors", tmp_path / f"back{suffix}"
    there = convert(src, ours)
    again = convert(ours, back, target=source)
    assert there.checksum == again.checksum
    first, second = read_stored(src), read_stored(back)
    assert first.counters == second.counters
    assert first.tensors.keys() == second.tensors.keys()
    assert all(np.array_equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


def test_what_the_weights_need_travels_with_them(tmp_path):
    net = resolve("mnasnet0_75")
    src = tmp_path / "mnasnet0_75-7090bc5f.safetensors"
    write(src, "torchvision", net)
    convert(src, tmp_path / "ours.safetensors", source="torchvision")
    checkpoint = read_checkpoint(tmp_path / "ours.safetensors")
    recipe = checkpoint.recipe
    assert (checkpoint.network.bn_eps, checkpoint.network.padding) == (1e-5, "symmetric")
    assert (recipe.image_resize, recipe.short_side(), recipe.val_interpolation) == (224, 232, "pilbilinear")
    assert (recipe.eval_crop, recipe.val_resize, recipe.at_size(96).short_side()) == ("center_round", None, 99)
    assert checkpoint.class_names == imagenet_class_names()
    assert checkpoint.meta["source"] == "torchvision"
    assert checkpoint.meta["reported"]["top1"] == 71.18


def test_a_file_under_its_published_name_is_taken_for_what_it_is(tmp_path):
    """MindCV published mnasnet_075 twice, with different accuracies."""
    for name, top1 in (("mnasnet_075-465d366d.ckpt", 71.81), ("mnasnet_075-083b2bc4-910v2.ckpt", 71.77)):
        weights = read_weights(write(tmp_path / name, "mindcv", resolve("mnasnet_075")))
        assert weights.source == f"mindcv/{name}"
        assert weights.reported is not None
        assert weights.reported["top1"] == top1


def test_another_epsilon_is_made_up_for_in_the_variances(tmp_path):
    net = network("mindcv", "b1")
    src = write(tmp_path / "mindcv.ckpt", "mindcv", net)
    convert(src, tmp_path / "timm.safetensors", target="timm")
    ours, theirs = read_weights(src), read_weights(tmp_path / "timm.safetensors")
    assert (ours.network.bn_eps, theirs.network.bn_eps) == (1e-3, 1e-5)
    for name, value in ours.tensors.items():
        if name.endswith("moving_variance"):
            np.testing.assert_allclose(value + 1e-3, theirs.tensors[name] + 1e-5, rtol=1e-6)
        else:
            assert np.array_equal(value, theirs.tensors[name])


def test_variances_too_small_to_make_up_are_made_up_for_in_the_factors(tmp_path):
    net = network("timm", "b1")
    values = stored("timm", net)
    values.tensors["bn1.running_var"][::2] = 1e-6
    write_stored(tmp_path / "timm.safetensors", values)
    convert(tmp_path / "timm.safetensors", tmp_path / "x.ckpt")
    theirs, ours = read_weights(tmp_path / "timm.safetensors").tensors, read_weights(tmp_path / "x.ckpt").tensors
    before, after = (
        each["stem.bn.gamma"] / np.sqrt(each["stem.bn.moving_variance"].astype(np.float64) + eps)
        for each, eps in ((theirs, 1e-5), (ours, 1e-3))
    )
    np.testing.assert_allclose(after, before, rtol=1e-6)
    assert ours["stem.bn.moving_variance"].min() == 0


def test_another_padding_is_refused(tmp_path):
    src = write(tmp_path / "own.safetensors", "timm", network("timm", "b1"))
    ours = tmp_path / "ours.safetensors"
    convert(src, ours)
    with pytest.raises(UserError, match="padding"):
        convert(ours, tmp_path / "tf", target="tf")


def test_the_first_layout_of_torchvision_is_recognized():
    """Version 1 scaled neither the stem nor the first block: another network at every width but 1."""
    scaled = resolve("mnasnet0_5")
    first, *others = scaled.blocks
    old = dataclasses.replace(
        scaled,
        family=None,
        width_mult=None,
        blocks=(first, *(dataclasses.replace(block, out=scaled.round_width(block.out)) for block in others)),
    )
    known = shapes(old)
    assert known["stem.conv.weight"][0] == 32
    found = network_of({t: known[o] for o, t in NAME_MAPS["torchvision"].names(old).items()}, "torchvision")
    assert shapes(found) == known


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("bn1.weight"), "missing"),
        (lambda t: t.update({"surplus.weight": np.zeros(3, np.float32)}), "left over"),
        (lambda t: t.update({"bn1.weight": np.zeros(5, np.float32)}), "another shape"),
    ],
)
def test_a_tensor_too_few_too_many_or_misshapen_is_listed_and_nothing_written(tmp_path, change, said):
    content = stored("timm", network("timm", "a1"))
    change(content.tensors)
    write_stored(tmp_path / "theirs.safetensors", content)
    with pytest.raises(UserError, match=said):
        convert(tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.safetensors"]


@pytest.mark.parametrize(("source", "width"), [("timm", 0.5), ("torchvision", 1.4), ("mindcv", 0.75)])
def test_the_nearest_network_has_the_width_of_the_weights(source, width):
    net = network(source, "b1", width=width)
    known = {theirs: shapes(net)[ours] for ours, theirs in NAME_MAPS[source].names(net).items()}
    with pytest.raises(UserError, match=rf"the nearest is b1 x {width}: 1 left over \(surplus\.weight\)$"):
        network_of({**known, "surplus.weight": (3,)}, source)


@pytest.mark.parametrize("shape", [(), (3,), (0, 3), (0, 3, 3, 3), (8, 0, 3, 3)])
@pytest.mark.parametrize("model", [None, "mnasnet_100"])
@pytest.mark.parametrize("name", ["conv_stem.weight", "classifier.weight"])
def test_tensors_of_another_number_of_dimensions_are_named(tmp_path, shape, model, name):
    content = stored("timm", resolve("mnasnet_100", num_classes=7))
    values = {**content.tensors, name: np.zeros(shape, np.float32)}
    write_stored(tmp_path / "x.safetensors", dataclasses.replace(content, tensors=values))
    with pytest.raises(UserError, match=rf"of another shape \({name}"):
        read_weights(tmp_path / "x.safetensors", model=model)


def test_another_model_than_the_one_named_is_refused(tmp_path):
    src = write(tmp_path / "theirs.safetensors", "timm", network("timm", "a1", 1.0, 1000))
    with pytest.raises(UserError, match="does not fit the network"):
        convert(src, tmp_path / "ours.safetensors", model="semnasnet_075")


def test_what_torchvision_and_mindcv_cannot_build_is_not_written(tmp_path):
    own = dataclasses.replace(network("torchvision", "b1", 1.0), blocks=network("torchvision", "b1").blocks[:5])
    values = {NAME_MAPS["own"].names(own)[name]: value for name, value in tensors(own).items()}
    write_checkpoint(
        tmp_path / "own.safetensors",
        values,
        {
            "recipe": recipe_for("own", own, None).to_dict(),
            "network": own.to_dict(),
            "class_names": [*"abcdefg"],
            "source": None,
        },
    )
    for target, name in (("torchvision", "x.pth"), ("mindcv", "x.ckpt")):
        with pytest.raises(UserError, match="has no model for these weights"):
            convert(tmp_path / "own.safetensors", tmp_path / name, target=target)
    src = write(tmp_path / "theirs.safetensors", "torchvision", network("torchvision", "b1"))
    convert(src, tmp_path / "ours.safetensors")
    with pytest.raises(UserError, match=r"from \.pth alone"):
        convert(tmp_path / "ours.safetensors", tmp_path / "back.safetensors", target="torchvision")
