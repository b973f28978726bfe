"""Our small network against the authors' own graph, variable by variable."""

import re
from pathlib import Path

import numpy as np
import pytest
from mindspore import nn
from tiny import tensor

from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.layers import MBConv
from mindcv_mnasnet.model.mnasnet import MnasNet

pytestmark = pytest.mark.usefixtures("cpu")
GRAPH = Path(__file__).resolve().parents[2] / "shared" / "reference" / "tf_mnasnet_small_w050_224.npz"
ORDER = ("kernel", "depthwise_kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")

Variables = dict[str, np.ndarray]


@pytest.mark.skipif(not GRAPH.exists(), reason="the authors' graph is not here")
def test_the_authors_graph_gives_the_same_first_block_and_logits():
    """Random weights and one image through the authors' TensorFlow code (small x 0.5, 224 pixels)."""
    with np.load(GRAPH) as stored:
        arrays = {name: stored[name] for name in stored.files}
    image = tensor(np.ascontiguousarray(arrays["__x"].transpose(0, 3, 1, 2)))
    classifier, backbone = (
        create_model("mnasnet-small", width_mult=0.5, features_only=only).set_train(False) for only in (False, True)
    )
    variables = {name: value for name, value in arrays.items() if not name.startswith("__")}
    assert fill(classifier, variables) == len(variables)
    fill(backbone, variables)
    # The first block is the only one at reduction 2, so the first feature map is its output.
    for got, expected in (
        (backbone(image)[0].asnumpy().transpose(0, 2, 3, 1), arrays["__b0"]),
        (classifier(image).asnumpy(), arrays["__logits"]),
    ):
        assert np.abs(got - expected).max() < 1e-4 * expected.std()


def fill(model: MnasNet, variables: Variables) -> int:
    """Give a model the graph's variables; returns how many of them it took."""
    taken = take(model.stem.conv, variables, "stem", "conv2d") + take(
        model.stem.bn, variables, "stem", "batch_normalization"
    )
    for index, block in enumerate(model.blocks):
        taken += fill_block(block, variables, f"blocks_{index}")
    if not model.features_only:
        taken += take(model.head.conv, variables, "head", "conv2d") + take(
            model.head.bn, variables, "head", "batch_normalization"
        )
        taken += take(model.classifier, variables, "head", "dense")
    return taken


def fill_block(block: MBConv, variables: Variables, scope: str) -> int:
    units = [unit for unit in (block.expand, block.depthwise, block.project) if unit is not None]
    taken = sum(take(unit.bn, variables, scope, "batch_normalization", i) for i, unit in enumerate(units))
    full = [unit for unit in units if unit is not block.depthwise]
    taken += sum(take(unit.conv, variables, scope, "conv2d", i) for i, unit in enumerate(full))
    taken += take(block.depthwise.conv, variables, scope, "depthwise_conv2d")
    if block.se is not None:
        gates = (block.se.reduce, block.se.expand)
        taken += sum(take(conv, variables, f"{scope}|se", "conv2d", i) for i, conv in enumerate(gates))
    return taken


def take(cell: nn.Cell, variables: Variables, scope: str, kind: str, position: int = 0) -> int:
    """Fill a cell from the ``position``-th layer of a kind in a scope; their numbers rise in the order of use."""
    layers: dict[int, Variables] = {}
    for name, value in variables.items():
        if found := re.search(rf"mnas_{re.escape(scope)}\|{kind}\w*?(?:_(\d+))?\|(\w+)$", name):
            layers.setdefault(int(found[1] or 0), {})[found[2]] = value
    layer = layers[sorted(layers)[position]]
    parameters = list(cell.get_parameters())
    if isinstance(cell, nn.BatchNorm2d):
        parameters = [cell.gamma, cell.beta, cell.moving_mean, cell.moving_variance]
    values = [layer[leaf] for leaf in ORDER if leaf in layer]
    for parameter, value in zip(parameters, values, strict=True):
        axes = {4: (2, 3, 0, 1) if kind.startswith("depthwise") else (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]
        parameter.set_data(tensor(np.ascontiguousarray(value.transpose(axes))))
    return len(values)
