"""Search spaces: what is in them, both ways between tokens and networks, limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.latency.table import part_keys
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import FAMILIES, format_block, resolve
from mindcv_mnasnet.search.candidates import reference_network, tokens_of
from mindcv_mnasnet.search.covering import networks_covering
from mindcv_mnasnet.search.limits import Limits
from mindcv_mnasnet.search.space_files import load_space, read_space

PRESETS = ("paper", "a1", "open")
seeds = st.integers(0, 2**32 - 1)
TINY = {
    "stem": 8,
    "strides": [1, 2],
    "filters": [8, 16],
    "layers": [1, 2],
    "decisions": {"operator": ["sepconv", "mbconv3"], "kernel": [3, 5], "filters": [0.5, 1], "layers": [-1, 0]},
}


def test_the_paper_has_432_choices_per_block_and_seven_blocks():
    """Section 4.1 and figure 4 of the paper; 2 * 3 * 2 * ... of SEARCH's later space."""
    paper = load_space("paper")
    assert (paper.choices_per_stage, len(paper.strides), paper.length) == (432, 7, 42)
    assert paper.filters == (16, 24, 32, 64, 96, 160, 320)
    assert paper.layers == (1, 2, 3, 4, 3, 3, 1)
    assert load_space("a1").choices_per_stage == 432
    assert load_space("open").length == 7 * 6


def test_a_block_of_one_layer_cannot_lose_it():
    paper = load_space("paper")
    assert paper.size == 432**5 * (432 * 2 // 3) ** 2
    assert min(block.repeats for block in paper.blocks(tuple(one[0] for one in paper.allowed))) == 1


@pytest.mark.parametrize(
    ("family", "space", "reasons"),
    [
        ("a1", "a1", []),
        ("a1", "paper", ["block 5 has filters 112"]),
        ("a1", "open", ["block 1 has skip none"]),
        ("b1", "paper", ["block 6 has filters 192"]),
        ("b1", "a1", ["block 5 has filters 96", "block 6 has filters 192"]),
    ],
)
def test_published_networks_are_inside_or_outside_by_a_choice(family, space, reasons):
    """A1's fifth block has 112 filters: 1.17 of MobileNetV2's 96, which the paper's own choices cannot say."""
    assert load_space(space).reasons_outside(FAMILIES[family].blocks) == reasons


@pytest.mark.parametrize("space", PRESETS)
def test_small_is_outside_every_preset_by_its_widths(space):
    reasons = load_space(space).reasons_outside(FAMILIES["small"].blocks)
    assert "block 1 has filters 8" in reasons
    with pytest.raises(UserError, match=r"not in space .*: .*block 1 has filters 8"):
        load_space(space).encode(FAMILIES["small"].blocks)


@pytest.mark.parametrize("name", PRESETS)
@given(seed=seeds)
def test_encoding_inverts_decoding(name, seed):
    space = load_space(name)
    tokens = space.random(np.random.default_rng(seed))
    assert space.encode([format_block(block) for block in space.blocks(tokens)]) == tokens
    assert space.encode(space.network(tokens).blocks) == tokens


def test_a_stage_may_choose_its_stride():
    space = read_space("strides", TINY | {"strides": [2, [1, 2]]}, {"image_size": 16})
    assert space.size == 2 * read_space("tiny", TINY).size
    rng = np.random.default_rng(0)
    drawn = [space.random(rng) for _ in range(100)]
    assert {tuple(block.stride for block in space.blocks(tokens)) for tokens in drawn} == {(2, 1), (2, 2)}
    assert all(space.encode(space.blocks(tokens)) == tokens for tokens in drawn)
    assert space.reasons_outside("r1_k3_s11_e1_o8 r1_k3_s22_e3_o16")[0] == "block 1 has stride 1, not 2"


@given(seed=seeds)
def test_a_network_is_found_however_its_blocks_are_written(seed):
    """Cut into single layers, with ``noskip`` where no shortcut is: the layers are what counts."""
    space = read_space("strides", TINY | {"strides": [2, [1, 2]]}, {"image_size": 16})
    network = space.network(space.random(np.random.default_rng(seed)))
    single = [
        replace(network.blocks[one.stage], repeats=1, stride=one.stride, skip=one.residual) for one in network.layers()
    ]
    found = tokens_of(space, replace(network, blocks=tuple(single)))
    assert found is not None
    assert space.network(found).layers() == network.layers()
    for change in ({"out": 7}, {"kernel": 7}, {"stride": 1}, {"se_ratio": 0.5}):
        assert tokens_of(space, replace(network, blocks=(replace(single[0], **change), *single[1:]))) is None
    assert tokens_of(space, replace(network, blocks=(*single, *single, *single))) is None
    assert tokens_of(space, replace(network, blocks=tuple(single), stem=16)) == found


def test_a_published_network_is_found_by_its_layers():
    """A1's first block is ``noskip``, which says nothing between different widths; ``open`` has shortcuts only."""
    space = load_space("open")
    like = space.network(tuple(one[0] for one in space.allowed))
    found = tokens_of(space, reference_network("mnasnet-a1", like))
    assert found is not None
    assert space.network(found).layers() == resolve("a1").layers()


@given(seed=seeds)
def test_a_mutation_changes_one_decision_and_stays_inside(seed):
    space = load_space("paper")
    rng = np.random.default_rng(seed)
    tokens = space.random(rng)
    changed = space.mutate(tokens, rng)
    assert sum(a != b for a, b in zip(tokens, changed, strict=True)) == 1
    assert len(space.blocks(changed)) == 7


def test_every_network_of_a_small_space_is_drawn_alike():
    space = read_space("tiny", TINY)
    rng = np.random.default_rng(0)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(space.size * 100):
        tokens = space.random(rng)
        counts[tokens] = counts.get(tokens, 0) + 1
    assert len(counts) == space.size
    assert min(counts.values()) > 50
    assert max(counts.values()) < 160


def test_limits_hold_at_both_ends():
    network = load_space("a1").network(load_space("a1").random(np.random.default_rng(0)))
    cost = network_cost(network)
    assert Limits(cost.params, cost.params, cost.madds, cost.madds).allow(network)
    assert Limits().allow(network)
    for side in ("params", "madds"):
        value = getattr(cost, side)
        assert not Limits(**{f"min_{side}": value + 1}).allow(network)
        assert not Limits(**{f"max_{side}": value - 1}).allow(network)


@pytest.mark.parametrize("strides", [[1, 2], [[1, 2], [1, 2]]])
def test_a_table_of_the_covering_networks_has_every_part_of_every_network(strides):
    space = read_space("tiny", TINY | {"strides": strides}, {"image_size": 16})
    covered = {key for network in networks_covering(space) for key in part_keys(network)}
    rng = np.random.default_rng(0)
    for _ in range(300):
        assert set(part_keys(space.network(space.random(rng)))) <= covered


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stride": [1, 2]}, "unknown key 'stride'; the nearest known key is strides"),
        ({"layers": [1]}, "different lengths"),
        ({"strides": [1, 3]}, "strides is 3"),
        ({"strides": [1, [1, 1]]}, "strides is \\[1, 1\\]"),
        ({"decisions": {"operator": ["mbconv9"]}}, "operator is 'mbconv9'"),
        ({"decisions": {"operator": ["mbconv"]}}, "needs the decision expansion"),
        ({"decisions": {"operator": ["mbconv3"], "expansion": [3]}}, "says its expansion"),
        ({"decisions": {"operator": ["mbconv3"], "kernels": [3]}}, "unknown decision 'kernels'; the nearest"),
        ({"decisions": {"operator": ["mbconv3"], "se": [2]}}, "se is 2"),
        ({"decisions": {"operator": ["mbconv3"], "kernel": []}}, "kernel is \\[\\]"),
        ({"decisions": {"kernel": [3]}}, "begins with operator"),
    ],
)
def test_mistakes_in_a_space_are_named(change, sentence):
    with pytest.raises(UserError, match=sentence):
        read_space("mine", {**TINY, **change})


def test_an_unknown_space_lists_the_presets(tmp_path):
    with pytest.raises(UserError, match="presets are paper, a1, open"):
        load_space("papr")
    with pytest.raises(UserError, match="No such file"):
        load_space(tmp_path / "none.yaml")
