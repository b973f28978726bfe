"""A supernet: the networks that share its weights, and what each of them computes in it."""

from __future__ import annotations

from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
from supernets import (
    CANDIDATES,
    CHOICES,
    CHOSEN,
    CLASSES,
    LARGE,
    SMALL,
    inherited,
    net,
    normal,
    places_of,
    randomize,
    used,
    values,
)

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.kernels.build import kernels as built_kernels
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.parameters import load_parameters
from mindcv_mnasnet.search.space import Space
from mindcv_mnasnet.search.supernet.choices import Choices
from mindcv_mnasnet.search.supernet.network import SuperNetwork
from mindcv_mnasnet.weights.name_maps import shapes


@pytest.fixture(scope="module", params=[False, True], ids=["MindSpore's operators", "our operators"])
def supernet(request, cpu):
    if request.param and not built_kernels().path:
        pytest.skip(built_kernels().note)
    cell = randomize(SuperNetwork(CHOICES, kernels=request.param))
    cell.set_train(False)
    return cell


@pytest.fixture(scope="module")
def candidates():
    """Candidates of their own, compiled once for both supernets."""
    return {}


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_masked_network_is_the_network_with_the_inherited_weights(supernet, candidates, name):
    network = CANDIDATES[name]
    if name not in candidates:
        candidates[name] = create_model(network, kernels=False).set_train(False)
    alone = candidates[name]
    load_parameters(alone.get_parameters(), inherited(supernet, network), "the supernet")
    expected = alone(normal()).asnumpy()
    found = supernet(normal(), *supernet.masks(network)).asnumpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_one_graph_serves_all_candidates(supernet):
    supernet(normal(), *supernet.masks(CANDIDATES["largest"]))
    compiled = set(supernet.compile_cache)
    for network in CANDIDATES.values():
        supernet(normal(), *supernet.masks(network))
    assert set(supernet.compile_cache) == compiled


def test_what_a_candidate_does_not_use_changes_nothing(supernet):
    expected = supernet(normal(), *supernet.masks(CHOSEN)).asnumpy()
    before = values(supernet)
    marked = {name: np.full_like(value, 3) for name, value in before.items()}
    for parameter in supernet.get_parameters():
        parameter.set_data(ms.Tensor(marked[parameter.name]))
    rename = places_of(CHOSEN)
    own = {rename(name): shape for name, shape in shapes(CHOSEN).items()}
    for parameter in supernet.get_parameters():
        if parameter.name in own:
            value, inner = marked[parameter.name], own[parameter.name]
            value[used(value.shape, inner)] = before[parameter.name][used(value.shape, inner)]
            parameter.set_data(ms.Tensor(value))
    found = supernet(normal(), *supernet.masks(CHOSEN)).asnumpy()
    load_parameters(supernet.get_parameters(), before, "the test")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_in_training_too_a_candidate_is_the_network_alone(cpu):
    supernet = randomize(SuperNetwork(CHOICES))
    alone = create_model(CHOSEN)
    load_parameters(alone.get_parameters(), inherited(supernet, CHOSEN), "the supernet")
    supernet.set_train()
    alone.set_train()
    found = supernet(normal(), *supernet.masks(CHOSEN)).asnumpy()
    np.testing.assert_allclose(found, alone(normal()).asnumpy(), atol=1e-5)


def test_choices_hold_their_networks_and_all_mixtures():
    rng = np.random.default_rng(0)
    assert CHOICES.size == (2 * 2 * 2 * 2 * 2 * 2) * (2 * 2 * 2 * 2 * 2 * 2) * (2 * 2)
    for network in [net(SMALL), net(LARGE), CHOICES.smallest, CHOICES.largest, *(CHOICES.draw(rng) for _ in range(20))]:
        CHOICES.check(network)
    drawn = {CHOICES.draw(rng).block_strings for _ in range(20)}
    assert len(drawn) > 15


def test_a_search_space_becomes_choices():
    space = Space(
        "s", 8, ((1,), (2,)), (8, 16), (1, 2),
        (("operator", ("sepconv", "mbconv3")), ("kernel", (3, 5)), ("se", (0, 0.25)), ("filters", (0.5, 1)),
         ("layers", (-1, 0, 1))),
    )  # fmt: skip
    choices = Choices.of_space(space, num_classes=CLASSES)
    assert choices.size == space.size
    rng = np.random.default_rng(0)
    for _ in range(20):
        choices.check(space.network(space.random(rng), num_classes=CLASSES))
        assert not space.reasons_outside(choices.draw(rng).blocks)


@pytest.mark.parametrize(
    ("networks", "words"),
    [
        ([net("r1_k3_s11_e1_o8_conv")], "plain convolutions"),
        ([net("r1_k3_s22_e3_o8_pool")], "pooled shortcuts"),
        ([net("r1_k3_s11_e3_o8"), net("r1_k3_s22_e3_o8")], "one stride"),
        ([net("r1_k3_s11_e3_o8"), net("r1_k3_s11_e3_o8", stem=4)], "stem 4"),
        ([net("r1_k3_s11_e3_o8"), net("r1_k3_s11_e3_o8 r1_k3_s11_e3_o8")], "2 blocks"),
        ([], "a network at least"),
    ],
    ids=["conv", "pool", "strides", "stems", "depths", "none"],
)
def test_what_cannot_share_weights_is_refused(networks, words):
    with pytest.raises(UserError, match=words):
        Choices.of(networks)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kernel": 7}, "kernel 7"),
        ({"expand": 6}, "expand 6"),
        ({"stride": 2}, "one stride"),
        ({"conv": True}, "plain convolutions"),
        ({"pool": True}, "pooled"),
    ],
    ids=str,
)
def test_a_network_outside_is_refused(change, words):
    network = net(LARGE)
    outside = replace(network, blocks=(replace(network.blocks[0], **change), *network.blocks[1:]))
    with pytest.raises(UserError, match=words):
        CHOICES.check(outside)
