"""The detector as a MindSpore cell: a MnasNet whose blocks feed SSDLite's extras and predictors."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.kernels.build import kernels as built_kernels
from mindcv_mnasnet.kernels.cells import Depthwise, NormAct
from mindcv_mnasnet.model.accelerate import accelerate, put
from mindcv_mnasnet.model.layers import ConvBN
from mindcv_mnasnet.model.mnasnet import MnasNet
from mindcv_mnasnet.model.parameters import initialize, load_parameters
from mindcv_mnasnet.model.quantization import PREFIXES as QUANTIZED_PARTS
from mindcv_mnasnet.networks.detector import Detector
from mindcv_mnasnet.run.checkpoint import Checkpoint

#: Where the names of the parameters begin that no classifier has.
OWN_PARTS = ("extras.", "predictors.")
OUTPUT_STD = 0.03  # of the predictors' last weights before training, as in TensorFlow's and torchvision's SSDLite
FOCAL_PRIOR = 0.01  # score of every slot before training with focal loss, whose first steps diverge otherwise


class DepthwiseConvBN(ConvBN):
    """A depthwise 3x3 convolution with batch norm and ReLU; ``middle`` is None or computes the same faster."""

    def __init__(self, detector: Detector, width: int, stride: int = 1):
        super().__init__(detector.network, width, width, 3, stride, group=width)
        self.middle: nn.Cell | None = None

    relu: nn.Cell

    def construct(self, x):
        if self.middle is not None:
            return self.middle(x)
        return self.relu(self.bn(self.conv(x)))


class Extra(nn.Cell):
    """1x1 convolution to half of the output's width, depthwise 3x3 of stride 2, 1x1; batch norm and ReLU after each."""

    def __init__(self, detector: Detector, in_width: int, out_width: int):
        super().__init__()
        network, half = detector.network, out_width // 2
        self.reduce = ConvBN(network, in_width, half)
        self.depthwise = DepthwiseConvBN(detector, half, 2)
        self.expand = ConvBN(network, half, out_width)

    def construct(self, x):
        return self.expand(self.depthwise(self.reduce(x)))


class Predictor(nn.Cell):
    """Depthwise 3x3 with batch norm and ReLU, then 1x1 with bias: ``values`` numbers for each anchor of a map.

    (N, width, H, W) -> (N, H * W * anchors, values), cell by cell.
    """

    def __init__(self, detector: Detector, width: int, anchors: int, values: int):
        super().__init__()
        self.values = values
        self.depthwise = DepthwiseConvBN(detector, width)
        self.output = nn.Conv2d(
            width, anchors * values, 1, has_bias=True, weight_init="zeros", bias_init="zeros", pad_mode="valid"
        )

    def construct(self, x):
        answer = ops.transpose(self.output(self.depthwise(x)), (0, 2, 3, 1))
        return answer.reshape(answer.shape[0], -1, self.values)


class MapPredictor(nn.Cell):
    """Both predictors of one map."""

    def __init__(self, detector: Detector, width: int, anchors: int):
        super().__init__()
        self.classes = Predictor(detector, width, anchors, detector.slots)
        self.boxes = Predictor(detector, width, anchors, 4)

    def construct(self, x):
        return self.classes(x), self.boxes(x)


class SSDLite(MnasNet):
    """Images (N, channels, H, W), normalized, to (logits (N, anchors, slots), codes (N, anchors, 4)).

    Parameters of the backbone have the names that they have in a classifier. ``maps`` gives the feature maps.
    """

    def __init__(self, detector: Detector):
        super().__init__(detector.network, features_only=True, tapped_block=detector.tapped_block)
        self.detector, self.features_only = detector, False
        layers = detector.network.layers()
        self.head = ConvBN(detector.network, layers[-1].out_width, detector.network.head_width)
        widths = detector.map_widths
        extras = [Extra(detector, before, after) for before, after in pairwise(widths[1:])]
        self.extras = nn.CellList(extras)
        pairs = zip(widths, detector.anchors_per_cell, strict=True)
        self.predictors = nn.CellList([MapPredictor(detector, width, anchors) for width, anchors in pairs])
        self.tapped_block = detector.tapped_block

    def maps(self, x, random_inputs=None):
        """The maps that are predicted from, finest first; the first is the tapped expansion itself."""
        if self.training and self.random_columns > 0 and random_inputs is None:
            random_inputs = ops.rand(x.shape[0], self.random_columns)
        found: Any = ()
        x = self.stem(x)
        column = 0
        for index, block in enumerate(self.blocks):
            rate = self.drop_connect_rates[index]
            keep = None
            if self.training and rate > 0:
                keep = ((random_inputs[:, column] >= rate).astype(x.dtype) / (1 - rate)).reshape(-1, 1, 1, 1)
                column += 1
            if index == self.tapped_block:
                x, expanded = block(x, keep)
                found = (expanded,)
            else:
                x = block(x, keep)
        x = self.head(x)
        found = (*found, x)
        for extra in self.extras:
            x = extra(x)
            found = (*found, x)
        return found

    def construct(self, x, random_inputs=None):
        logits: Any = ()
        codes: Any = ()
        for feature, predictor in zip(self.maps(x, random_inputs), self.predictors):  # noqa: B905 - a graph's zip
            of_classes, of_boxes = predictor(feature)
            logits, codes = (*logits, of_classes), (*codes, of_boxes)
        return ops.cat(logits, 1), ops.cat(codes, 1)


def create_detector(detector: Detector, *, seed: int = 0, class_loss: str = "softmax", kernels: bool = True) -> SSDLite:
    """Build an initialized detector.

    Args:
        class_loss: with "focal" all classes begin at a score of 1 %.
        kernels: let it use our own operators where there are some: on CPUs.
    """
    runtime.tune_cpu()
    cell = SSDLite(detector)
    initialize(cell, seed)
    _start_predictors(cell, seed, class_loss)
    if kernels and (library := built_kernels().path):
        _accelerate(cell, library)
    return cell


def _start_predictors(cell: SSDLite, seed: int, class_loss: str) -> None:
    """First values of the layers that answer: small, so that no slot begins by being sure of itself."""
    rng = np.random.default_rng([seed, *b"predictors"])
    for predictor in cell.predictors:
        for output in (predictor.classes.output, predictor.boxes.output):
            weights = rng.normal(0, OUTPUT_STD, output.weight.shape)
            output.weight.set_data(ms.Tensor(weights.astype(np.float32)))
        if class_loss == "focal":
            prior = -math.log((1 - FOCAL_PRIOR) / FOCAL_PRIOR)
            bias = predictor.classes.output.bias
            bias.set_data(ms.Tensor(np.full(bias.shape, prior, np.float32)))


def _accelerate(cell: SSDLite, library: str) -> None:
    """Our operators, with the tapped expansion left as a tensor of its own."""
    accelerate(cell, library)
    tapped = cell.blocks[cell.tapped_block]
    put(tapped, "middle", Depthwise(library, tapped.depthwise.conv, None, tapped.depthwise.bn))
    for extra in cell.extras:
        for unit in (extra.reduce, extra.expand):
            put(unit, "fused", NormAct(library, unit.bn, relu=True))
    spatial = [extra.depthwise for extra in cell.extras]
    spatial += [one.depthwise for predictor in cell.predictors for one in (predictor.classes, predictor.boxes)]
    for unit in spatial:
        put(unit, "middle", Depthwise(library, unit.conv, None, unit.bn))


def start_detector(model: SSDLite, checkpoint: Checkpoint, new_head: bool = False) -> str:
    """Set a detector's parameters from a checkpoint of a classifier or of a detector.

    The backbone has to fit; extras and predictors stay new where the checkpoint has none of their shape, and a
    classifier is left over.

    Args:
        new_head: predictors stay new in any case.
    Returns:
        A sentence on what was taken.
    Raises:
        UserError: the checkpoint is of another backbone.
    """
    weights = {
        name: value
        for name, value in checkpoint.weights().items()
        if not name.startswith(("classifier.", *QUANTIZED_PARTS))
    }
    parameters = {parameter.name: parameter for parameter in model.get_parameters()}

    def fits(name: str) -> bool:
        if new_head and name.startswith("predictors."):
            return False
        return name in weights and tuple(weights[name].shape) == tuple(parameters[name].shape)

    taken = [name for name in parameters if not name.startswith(OWN_PARTS) or fits(name)]
    offered = {name: value for name, value in weights.items() if not name.startswith(OWN_PARTS) or name in taken}
    load_parameters([parameters[name] for name in taken], offered, str(checkpoint.path))
    kind = "averaged (EMA)" if checkpoint.chosen() == "ema" else "raw"
    new = len(parameters) - len(taken)
    rest = f"; {new} tensors of extras and predictors are new" if new else ""
    return f"started from {len(taken)} {kind} tensors of {checkpoint.path}{rest}"
