"""Block strings: strict reading, canonical writing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.blocks import BlockSpec, format_block, parse_block, parse_blocks

AUTHORS_A1 = (
    "r1_k3_s11_e1_i32_o16_noskip r2_k3_s22_e6_i16_o24 r3_k5_s22_e3_i24_o40_se0.25 r4_k3_s22_e6_i40_o80 "
    "r2_k3_s11_e6_i80_o112_se0.25 r3_k5_s22_e6_i112_o160_se0.25 r1_k3_s11_e6_i160_o320"
)


def specs(most):
    """Any block whose repeats, expansion and width are at most ``most``."""
    whole = st.integers(1, most)
    return st.builds(
        lambda skip, **values: BlockSpec(**values, skip=skip != "none", pool=skip == "pool"),
        repeats=whole,
        kernel=st.sampled_from([1, 3, 5, 7, 9]),
        stride=st.sampled_from([1, 2]),
        expand=whole,
        out=whole,
        se_ratio=st.floats(0, 1),
        skip=st.sampled_from(["none", "identity", "pool"]),
        conv=st.booleans(),
    )


CANONICAL = st.from_regex(
    r"r[1-9][0-9]{0,2}_k[13579]_s(11|22)_e[1-9]_o[1-9][0-9]{0,3}"
    r"(_se(0\.[0-9]{0,3}[1-9]|1))?(_conv)?(_noskip|_pool)?",
    fullmatch=True,
)


@given(specs(99_999))
def test_parsing_inverts_formatting(spec):
    assert parse_block(format_block(spec)) == spec


@given(CANONICAL)
def test_formatting_inverts_parsing(text):
    assert format_block(parse_block(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "r1",
        "r1_k3_s11_e1",
        "r0_k3_s11_e1_o8",
        "r01_k3_s11_e1_o8",
        "r1_k4_s11_e1_o8",
        "r1_k3_s12_e1_o8",
        "r1_k3_s33_e1_o8",
        "r1_k3_s1_e1_o8",
        "r1_k3_s11_e0_o8",
        "r1_k3_s11_e1.5_o8",
        "r1_k3_s11_e1_o-8",
        "r1_k3_s11_e1_o8_se1.5",
        "r1_k3_s11_e1_o8_se.25",
        "r1_k3_s11_e1_o8_noskip_se0.25",
        "r1_k3_s11_e1_o8_skip",
        "r1_k3_s11_e1_o8_noskip_pool",
        "r1_k3_s11_e1_o8_pool_conv",
        "R1_k3_s11_e1_o8",
        " r1_k3_s11_e1_o8",
        "r1_k3_s11_e1_o8\n",
        "r1_k3_s11_o8_e1",
        "r٣_k3_s11_e1_o8",
        "r1_k3_s11_e1_o" + "9" * 5000,
        None,
        3,
    ],
)
def test_anything_else_is_refused_by_name(text):
    with pytest.raises(UserError, match="block"):
        parse_block(text)


def test_the_authors_declared_inputs_are_read_and_dropped():
    blocks, declared = parse_blocks(AUTHORS_A1)
    assert declared == 32
    assert [format_block(block) for block in blocks[:3]] == [
        "r1_k3_s11_e1_o16_noskip",
        "r2_k3_s22_e6_o24",
        "r3_k5_s22_e3_o40_se0.25",
    ]
    assert parse_blocks(AUTHORS_A1.split()) == (blocks, declared)


def test_a_declared_input_must_follow_from_the_block_before():
    with pytest.raises(UserError, match="declares 24 input channels, but the one before it gives 16"):
        parse_blocks(AUTHORS_A1.replace("i16_o24", "i24_o24"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("repeats", 0),
        ("repeats", 1.0),
        ("kernel", 2),
        ("stride", 3),
        ("expand", "6"),
        ("out", True),
        ("se_ratio", 2),
        ("se_ratio", float("nan")),
        ("skip", 1),
        ("conv", None),
        ("pool", "yes"),
    ],
)
def test_impossible_values_are_named(key, value):
    values = {"repeats": 1, "kernel": 3, "stride": 1, "expand": 6, "out": 8, key: value}
    with pytest.raises(UserError, match=f"^{key} is "):
        BlockSpec(**values)
