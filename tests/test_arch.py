"""Networks: families, names, width scaling, the residual rules."""

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_blocks import AUTHORS_A1, specs

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.network import Network, known_names, parse_block, resolve, round_width

AUTHORS = {
    "a1": AUTHORS_A1,
    "b1": "r1_k3_s11_e1_i32_o16_noskip r3_k3_s22_e3_i16_o24 r3_k5_s22_e3_i24_o40 r3_k5_s22_e6_i40_o80 "
    "r2_k3_s11_e6_i80_o96 r4_k5_s22_e6_i96_o192 r1_k3_s11_e6_i192_o320_noskip",
    "small": "r1_k3_s11_e1_i16_o8 r1_k3_s22_e3_i8_o16 r2_k3_s22_e6_i16_o16 r4_k5_s22_e6_i16_o32_se0.25 "
    "r3_k3_s11_e6_i32_o32_se0.25 r3_k5_s22_e6_i32_o88_se0.25 r1_k3_s11_e6_i88_o144",
    "d1": "r1_k3_s11_e9_i32_o24 r3_k3_s22_e9_i24_o36 r5_k3_s22_e9_i36_o48 r4_k5_s22_e9_i48_o96 r5_k7_s11_e3_i96_o96 "
    "r3_k3_s22_e9_i96_o80 r1_k7_s11_e6_i80_o320_noskip",
    "d1_320": "r3_k5_s11_e6_i32_o24 r4_k7_s22_e9_i24_o36 r5_k5_s22_e9_i36_o48 r5_k7_s22_e6_i48_o96 "
    "r5_k3_s11_e9_i96_o144 r5_k5_s22_e6_i144_o160 r1_k7_s11_e9_i160_o320",
}
WIDTHS = (None, 0.35, 0.5, 0.75, 1.0, 1.3, 1.4)


@pytest.mark.parametrize("family", AUTHORS)
def test_families_are_the_authors_own(family):
    assert resolve(family, blocks=AUTHORS[family]) == resolve(family)


# family, width, padding, BN epsilon, share of the old BN average, residual rule
CONVENTIONS = {
    **{f"mnasnet_{w}": ("b1", int(w) / 100, "symmetric", 1e-3, 0.99, "actual") for w in ("050", "075", "100", "140")},
    **{f"semnasnet_{w}": ("a1", int(w) / 100, "symmetric", 1e-5, 0.9, "actual") for w in ("050", "075", "100", "140")},
    **{f"mnasnet{w.replace('.', '_')}": ("b1", float(w), "symmetric", 1e-5, 0.9997, "actual") for w in ("0.5", "1.3")},
    "mnasnet0_75": ("b1", 0.75, "symmetric", 1e-5, 0.9997, "actual"),
    "mnasnet1_0": ("b1", 1.0, "symmetric", 1e-5, 0.9997, "actual"),
    "mnasnet_130": ("b1", 1.3, "symmetric", 1e-3, 0.99, "actual"),
    "mnasnet_100.rmsp_in1k": ("b1", 1.0, "symmetric", 1e-5, 0.9, "actual"),
    "mnasnet_small": ("small", 1.0, "symmetric", 1e-5, 0.9, "actual"),
    "mnasnet-small": ("small", 1.0, "same", 1e-3, 0.99, "declared"),
    "mnasnet-a1": ("a1", 1.0, "same", 1e-3, 0.99, "declared"),
    "mnasnet_a1": ("a1", 1.0, "same", 1e-3, 0.99, "declared"),
    "mnasnet-b1": ("b1", 1.0, "same", 1e-3, 0.99, "declared"),
    "mnasnet-d1": ("d1", None, "same", 1e-3, 0.99, "declared"),
    "mnasnet-d1-320": ("d1_320", None, "same", 1e-3, 0.99, "declared"),
    "mnasnet_1.3_224": ("b1", 1.3, "same", 1e-3, 0.99, "declared"),
    "small": ("small", 1.0, "symmetric", 1e-3, 0.99, "actual"),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_name_brings_the_conventions_of_its_source(name):
    network = resolve(name)
    found = (network.family, network.width_mult, network.padding, network.bn_eps, network.bn_momentum)
    assert (*found, network.residual_rule) == CONVENTIONS[name]


def test_torchvisions_rounding_examples():
    """From the docstring of torchvision's own rounding function."""
    assert (round_width(83, 1.0), round_width(84, 1.0)) == (80, 88)


@given(
    st.integers(1, 2000),
    st.floats(0.05, 4),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.none() | st.sampled_from([16, 32, 64]),
)
def test_rounding_keeps_multiples_the_minimum_and_nine_tenths(width, width_mult, divisor, min_width):
    rounded, scaled = round_width(width, width_mult, divisor, min_width), width * width_mult
    assert rounded % divisor == 0
    assert rounded >= max(0.9 * scaled, min_width or divisor)
    assert rounded <= max(scaled + divisor, min_width or divisor)


@given(st.integers(1, 2000), st.floats(0.05, 4))
def test_rounding_is_monotone(width, width_mult):
    assert round_width(width, width_mult) <= round_width(width + 1, width_mult)


@given(st.integers(1, 2000))
def test_no_multiplier_means_no_rounding(width):
    assert round_width(width, None) == width


@pytest.mark.parametrize("name", known_names())
@pytest.mark.parametrize("width", WIDTHS)
def test_widths_written_out_are_the_same_layers(name, width):
    network = resolve(name, width_mult=width)
    written = network.written_out()
    assert (written.layers(), written.stem_width, written.head) == (
        network.layers(), network.stem_width, network.head)  # fmt: skip
    assert written.written_out() == written


def test_d1_keeps_its_odd_width_only_without_multiplier():
    assert {layer.out_width for layer in resolve("d1").layers() if layer.stage == 1} == {36}
    assert {layer.out_width for layer in resolve("d1", width_mult=1.0).layers() if layer.stage == 1} == {40}


@pytest.mark.parametrize("width", WIDTHS)
def test_smalls_first_residual_follows_its_declared_input(width):
    """The authors compare 16, scaled, with the output although the stem gives 8; timm compares real widths."""
    declared = resolve("mnasnet-small", width_mult=width).layers()
    actual = resolve("mnasnet_small", width_mult=width).layers()
    assert declared[0].residual == (width in (0.35, 0.5))
    assert actual[0].residual
    assert declared[1:] == actual[1:]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("family", ["a1", "b1", "d1", "d1_320"])
def test_elsewhere_both_residual_rules_agree(family, width):
    rules = [resolve(family, width_mult=width, residual_rule=rule).layers() for rule in ("actual", "declared")]
    assert rules[0] == rules[1]


@given(st.lists(specs(40), min_size=1, max_size=7))
def test_layers_follow_from_the_blocks(blocks):
    network = Network(None, tuple(blocks))
    layers = network.layers()
    assert len(layers) == sum(block.repeats for block in blocks)
    assert layers[0].in_width == network.stem_width
    assert all(before.out_width == after.in_width for before, after in pairwise(layers))
    assert math.prod(layer.stride for layer in layers) * network.stem_stride == network.reductions[-1]
    for layer in layers:
        block = blocks[layer.stage]
        assert layer.mid_width == layer.in_width * block.expand
        assert (layer.se_width > 0) == (block.se_ratio > 0)
        alike = layer.stride == 1 and layer.in_width == layer.out_width
        assert layer.residual == (block.pool or (block.skip and alike))
        assert layer.pool == (block.pool and not alike)


def test_reductions_of_the_published_networks():
    assert {resolve(name).reductions for name in known_names()} == {(2, 4, 8, 16, 16, 32, 32)}
    assert resolve("b1", stem_stride=1).reductions == (1, 2, 4, 8, 8, 16, 16)


@pytest.mark.parametrize("name", known_names())
def test_a_description_survives_json(name):
    network = resolve(name, num_classes=7, width_mult=0.7)
    assert Network.from_dict(json.loads(json.dumps(network.to_dict()))) == network


@pytest.mark.parametrize("change", [{"color": 1}, {"stem": "32"}, {"blocks": ["x"]}, {"blocks": []}])
def test_a_stored_description_is_read_strictly(change):
    with pytest.raises(UserError):
        Network.from_dict({**resolve("a1").to_dict(), **change})
    incomplete = resolve("a1").to_dict()
    del incomplete["bn_eps"]
    with pytest.raises(UserError, match="bn_eps"):
        Network.from_dict(incomplete)


def test_own_blocks_need_no_name():
    network = resolve(None, blocks=["r1_k3_s11_e1_o8", "r2_k5_s22_e6_o16"], stem=16)
    assert (network.family, len(network.layers()), network.stem_width) == (None, 3, 16)
    assert resolve(None, blocks=[parse_block("r1_k3_s11_e1_o8")]).block_strings == ("r1_k3_s11_e1_o8",)


def test_other_blocks_are_no_longer_the_family():
    network = resolve("mnasnet-small", blocks="r1_k3_s11_e1_o8")
    assert (network.family, network.declared_stem, network.padding) == (None, None, "same")


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("mnasnet_10", {}, "nearest are .*mnasnet_100"),
        ("semnasnet_1000", {}, "nearest are semnasnet_100"),
        ("resnet50", {}, "unknown model 'resnet50'"),
        (None, {}, "model name or blocks"),
        ("b1", {"widthmult": 1}, "no field 'widthmult'; the nearest are width_mult"),
        ("b1", {"blocks": ""}, "blocks"),
        ("b1", {"blocks": None}, "blocks"),
        ("b1", {"blocks": AUTHORS["small"]}, "first block declares 16 input channels, but the stem gives 32"),
        ("b1", {"width_mult": 0}, "width_mult is 0"),
        ("b1", {"width_mult": float("nan")}, "width_mult"),
        ("b1", {"width_mult": True}, "width_mult"),
        ("b1", {"num_classes": 0}, "num_classes"),
        ("b1", {"num_classes": 2.5}, "num_classes"),
        ("b1", {"padding": "valid"}, "padding is 'valid', but must be symmetric or same"),
        ("b1", {"bn_eps": 0}, "bn_eps"),
        ("b1", {"bn_momentum": 1.0}, "bn_momentum"),
        ("b1", {"dropout": -0.1}, "dropout"),
        ("b1", {"drop_connect": "0.2"}, "drop_connect"),
        ("b1", {"stem_stride": 4}, "stem_stride"),
        ("b1", {"residual_rule": "both"}, "residual_rule"),
        ("b1", {"min_width": 0}, "min_width"),
    ],
)
def test_mistakes_are_named(name, overrides, message):
    with pytest.raises(UserError, match=message):
        resolve(name, **overrides)
