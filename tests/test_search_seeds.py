"""What a search in a band begins with: references, as wide as the band allows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.search.seeds import fitted
from mindcv_mnasnet.search.space_files import read_space

SPACE = {
    "stem": 16,
    "strides": [[1, 2], 2, 1, 2],
    "filters": [32, 64, 64, 128],
    "layers": [1, 2, 2, 1],
    "decisions": {
        "operator": ["mbconv"],
        "expansion": [1, 3],
        "kernel": [3, 5],
        "filters": [0.25, 0.5, 0.75, 1, 1.5],
        "layers": [-1, 0, 1],
    },
}
FILTERS = 3  # its place among a stage's decisions


@pytest.fixture(scope="module")
def space():
    return read_space("wide", SPACE, {"image_size": 32})


def madds(space, tokens):
    return network_cost(space.network(tokens)).madds


def widened(space, tokens, choice):
    """All widths of one choice."""
    count = len(space.choices)
    return tuple(choice if place % count == FILTERS else token for place, token in enumerate(tokens))


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.2, 2.0))
def test_only_widths_change_and_few_networks_are_asked_for(space, seed, share):
    assert space.choices[FILTERS][0] == "filters"
    tokens = space.random(np.random.default_rng(seed))
    asked = []

    def accept(one):
        asked.append(one)
        return abs(madds(space, one) / madds(space, tokens) - share) < 0.075 * share

    found = fitted(space, tokens, share, accept)
    assert len(asked) <= 40
    assert len(set(asked)) == len(asked)
    if found is not None:
        assert found == asked[-1]
        assert widened(space, found, 0) == widened(space, tokens, 0)


@given(seed=st.integers(0, 2**32 - 1), choice=st.sampled_from([0, 1, 2, 4]))
def test_proportions_are_kept_where_the_space_has_them(space, seed, choice):
    tokens = widened(space, space.random(np.random.default_rng(seed)), 3)
    wanted = widened(space, tokens, choice)
    assert fitted(space, tokens, madds(space, wanted) / madds(space, tokens), lambda one: True) == wanted


def test_between_two_scales_some_widths_are_of_either(space):
    """A band of 15 % lies between the networks at 0.5 and at 0.75."""
    tokens = widened(space, space.random(np.random.default_rng(1)), 3)
    narrow, wide = (madds(space, widened(space, tokens, choice)) / madds(space, tokens) for choice in (1, 2))
    middle = (narrow * wide) ** 0.5
    found = fitted(space, tokens, middle, lambda one: 0.93 < madds(space, one) / madds(space, tokens) / middle < 1.07)
    assert found is not None
    assert {token for place, token in enumerate(found) if place % len(space.choices) == FILTERS} == {1, 2}


def test_nothing_is_found_where_nothing_is_accepted(space):
    tokens = space.random(np.random.default_rng(2))
    assert fitted(space, tokens, 0.5, lambda one: False) is None
    assert fitted(space, tokens, 1e-6, lambda one: True) is None
