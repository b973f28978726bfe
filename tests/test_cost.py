"""Costs against published and independently counted numbers."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.networks.reported import Reported, load_reported

REFERENCE = Path(__file__).with_name("reference")

# trainable parameters, with BN statistics, multiply-adds at 224: counted on the models of timm, torchvision, MindCV
# and the authors' graph
GOLDEN = {
    "mnasnet-a1": (3_887_038, 3_920_526, 311_579_072),
    "mnasnet-b1": (4_383_312, 4_421_232, 314_415_872),
    "mnasnet-small": (2_030_264, 2_047_192, 68_339_184),
    "mnasnet_small": (2_030_264, 2_047_192, 68_339_184),
    "mnasnet_050": (2_218_512, 2_239_136, 104_455_968),
    "mnasnet_075": (3_170_208, 3_200_016, 215_493_104),
    "mnasnet-d1": (3_638_404, 3_686_428, 967_705_824),
}


def classifiers_of(source: str) -> list[Reported]:
    return [entry for entry in load_reported() if entry.source == source and entry.mean_ap is None]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_costs(name):
    cost = network_cost(resolve(name), 224)
    assert (cost.params, cost.params_with_bn, cost.madds) == GOLDEN[name]


AUTHORS_TABLE = [entry for entry in load_reported() if (entry.source, entry.model) == ("tf", "mnasnet-a1")]


@pytest.mark.parametrize("entry", AUTHORS_TABLE, ids=lambda entry: f"{entry.image_size}-{entry.width_mult}")
def test_the_authors_table_to_the_printed_digit(entry):
    cost = network_cost(resolve("mnasnet-a1", width_mult=entry.width_mult), entry.image_size)
    assert (f"{cost.params / 1e6:.1f}", f"{cost.madds_authors_rule / 1e6:.1f}") == (
        f"{entry.params_m:.1f}",
        f"{entry.madds_m:.1f}",
    )


@pytest.mark.parametrize(
    "entry", [e for e in load_reported() if e.source == "torchvision" and e.mean_ap is None], ids=lambda e: e.model
)
def test_torchvisions_own_counts(entry):
    cost = network_cost(entry.network())
    assert cost.params == round(entry.params_m * 1e6)
    assert int(cost.madds / 1e6) == entry.madds_m


@pytest.mark.parametrize(
    "entry", [e for e in load_reported() if e.source == "mindcv" and e.mean_ap is None], ids=lambda e: e.checkpoint
)
def test_mindcvs_parameter_column_counts_bn_statistics(entry):
    """Two decimals, rounded in most rows and cut in one."""
    assert network_cost(entry.network()).params_with_bn / 1e6 == pytest.approx(entry.params_m, abs=0.01)


def test_parameters_of_the_authors_graph():
    shapes = json.loads((REFERENCE / "authors_small_w050_shapes.json").read_text())
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    cost = network_cost(resolve("mnasnet-small", width_mult=0.5))
    assert cost.params_with_bn == sum(sizes.values())
    assert cost.params == sum(size for name, size in sizes.items() if "|moving_" not in name)


@given(
    st.sampled_from(["a1", "b1", "small", "d1", "d1_320"]),
    st.sampled_from([None, 0.35, 0.9, 1.4]),
    st.integers(32, 320),
    st.integers(1, 1000),
    st.integers(1, 4),
)
def test_size_changes_work_and_classes_change_the_classifier_only(family, width, size, classes, channels):
    network = resolve(family, width_mult=width, num_classes=classes, in_channels=channels)
    cost, wider = network_cost(network, size), network_cost(resolve(family, width_mult=width, in_channels=channels))
    assert wider.params - cost.params == (1000 - classes) * (network.head_width + 1)
    assert network_cost(network, 2 * size).madds > cost.madds
    assert cost.madds_authors_rule > cost.madds


def test_layers_sum_to_the_totals_and_have_unique_names():
    cost = network_cost(resolve("mnasnet-a1"))
    names = [layer.name for layer in cost.layers]
    assert len(set(names)) == len(names)
    by_name = {layer.name: layer for layer in cost.layers}
    assert (by_name["stem"].params, by_name["classifier"].params) == (3 * 3 * 3 * 32 + 64, 1280 * 1000 + 1000)
    assert by_name["blocks.3.se.reduce"].out_width == 6  # a quarter of the block's input of 24, not of the expanded 72


def test_the_stems_stride_quadruples_the_work_of_what_follows():
    slow, fast = (network_cost(resolve("b1", stem_stride=stride, num_classes=1), 64).madds for stride in (1, 2))
    assert slow == pytest.approx(4 * fast, rel=0.01)


@pytest.mark.parametrize("size", [0, -224, 2.5, "224"])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(UserError, match="image_size"):
        network_cost(resolve("b1"), size)
