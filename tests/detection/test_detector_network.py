"""The detector as a cell: what it taps, counts, names and computes, with our operators and without."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from mindcv_mnasnet.detection.network import OWN_PARTS, SSDLite, create_detector
from mindcv_mnasnet.kernels.build import kernels
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.networks.cost import detector_cost
from mindcv_mnasnet.networks.detector import Detector
from mindcv_mnasnet.networks.network import resolve

BLOCKS = "r1_k3_s22_e1_o8 r1_k3_s22_e1_o8 r1_k3_s22_e3_o8 r2_k3_s22_e3_o8_se0.25"
SIDE, CLASSES = 64, 2


def tiny() -> Detector:
    """A detector with six maps that compiles in seconds."""
    network = resolve(None, blocks=BLOCKS, stem=8, head=16, num_classes=CLASSES, image_size=SIDE, dropout=0.0)
    return Detector(network, (16, 16, 16, 8))


def images(side: int = SIDE) -> ms.Tensor:
    return ms.Tensor(np.random.default_rng(0).normal(size=(2, 3, side, side)).astype(np.float32))


class Tap(nn.Cell):
    """The finest map as the detector gives it, and as the layers before it compute it one by one."""

    def __init__(self, model: SSDLite):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, x):
        tapped = self.model.maps(x)[0]
        x = self.model.stem(x)
        for index, block in enumerate(self.model.blocks):
            if index < self.model.tapped_block:
                x = block(x)
        unit = self.model.blocks[self.model.tapped_block].expand
        return tapped, ops.relu(unit.bn(unit.conv(x)))


@pytest.mark.parametrize(
    ("name", "own_operators"),
    [
        ("mnasnet-a1", True),
        ("mnasnet-small", False),
        pytest.param("mnasnet-a1", False, marks=pytest.mark.slow),
        pytest.param("mnasnet-small", True, marks=pytest.mark.slow),
    ],
)
def test_the_finest_map_is_the_expansion_before_the_depthwise_convolution(cpu, name, own_operators):
    if own_operators and not kernels().path:
        pytest.skip("no operators here")
    model = create_detector(Detector(resolve(name, num_classes=2, image_size=SIDE)), kernels=own_operators)
    model.set_train(False)
    tapped, expected = (one.asnumpy() for one in Tap(model)(images()))
    assert tapped.shape == (2, model.detector.map_widths[0], 4, 4)
    np.testing.assert_allclose(tapped, expected, rtol=1e-5, atol=1e-6)
    assert (tapped > 0).any()


@pytest.mark.parametrize("name", ["mnasnet-a1", "mnasnet-b1", "mnasnet-d1", "mnasnet-small"])
def test_the_built_network_has_the_parameters_that_are_counted(cpu, name):
    detector = Detector(resolve(name, num_classes=90, image_size=320))
    parameters = list(create_detector(detector).get_parameters())
    trained = sum(p.size for p in parameters if not p.name.endswith(("moving_mean", "moving_variance")))
    cost = detector_cost(detector)
    assert (trained, sum(p.size for p in parameters)) == (cost.params, cost.params_with_bn)


def test_the_backbone_has_the_names_of_a_classifiers_parameters(cpu):
    detector = tiny()
    ours = {p.name for p in create_detector(detector).get_parameters()}
    theirs = {p.name for p in create_model(detector.network).get_parameters()}
    assert {name for name in ours if not name.startswith(OWN_PARTS)} == {
        name for name in theirs if not name.startswith("classifier.")
    }


def test_answers_stand_in_the_order_of_the_anchors(cpu):
    """A number that only one cell's anchor can know comes out at that anchor's place."""
    model = create_detector(tiny(), kernels=False)
    model.set_train(False)
    head = model.predictors[0].boxes
    head.depthwise = nn.Identity()
    head.output = nn.Conv2d(24, 12, 1, has_bias=True, weight_init="zeros", pad_mode="valid")
    head.output.bias.set_data(ms.Tensor(np.arange(12, dtype=np.float32)))
    weight = np.zeros((12, 24, 1, 1), np.float32)
    weight[:, 0] = 100
    head.output.weight.set_data(ms.Tensor(weight))
    places = np.zeros((1, 24, 4, 4), np.float32)
    places[0, 0] = np.arange(16).reshape(4, 4)
    answer = head(ms.Tensor(places)).asnumpy()[0]
    expected = 100 * np.arange(16)[:, None] + np.arange(12)
    np.testing.assert_array_equal(answer, expected.reshape(48, 4))


class Both(nn.Cell):
    """Answers and gradients in training."""

    def __init__(self, model: SSDLite):
        super().__init__(auto_prefix=False)
        self.model = model
        self.weights = ms.ParameterTuple(p for p in model.get_parameters() if p.requires_grad)
        self.gradient = ops.value_and_grad(self.forward, None, self.weights, has_aux=True)

    def forward(self, x):
        logits, codes = self.model(x)
        return ops.sum(ops.square(logits)) + ops.sum(ops.sin(codes)), (logits, codes)

    def construct(self, x):
        (_, answers), gradients = self.gradient(x)
        return answers, gradients


def test_our_operators_train_the_same_network(cpu):
    if not kernels().path:
        pytest.skip("no operators here")
    found = []
    for own_operators in (False, True):
        model = create_detector(tiny(), kernels=own_operators)
        model.set_train()
        answers, gradients = Both(model)(images())
        found.append([one.asnumpy() for one in (*answers, *gradients)])
    assert found[0][0].shape == (2, model.detector.anchor_count(), CLASSES + 1)
    largest = max(np.abs(one).max() for one in found[0][2:])
    for plain, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=2e-3, atol=1e-4 * largest)


def test_focal_training_begins_with_low_scores(cpu):
    biases = [
        p for p in create_detector(tiny(), class_loss="focal").get_parameters() if "classes.output.bias" in p.name
    ]
    assert len(biases) == 6
    for bias in biases:
        np.testing.assert_allclose(1 / (1 + np.exp(-bias.asnumpy())), 0.01, rtol=1e-5)
