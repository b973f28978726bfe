"""Parameters and multiply-adds of a network, layer by layer, walked from its description."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mindcv_mnasnet.networks.blocks import check_whole
from mindcv_mnasnet.networks.detector import Detector
from mindcv_mnasnet.networks.network import Layer, Network

SIGMOID_OPERATIONS = 64  # what the authors' counter charges per element of a squeeze-and-excitation gate


@dataclass(frozen=True)
class LayerCost:
    """One layer with weights, or the element-wise work after it (``kernel`` 0).

    ``madds`` counts multiply-adds of convolutions and classifier. ``authors_operations`` counts as the authors' table
    does, in single operations: its multiply-adds are half of them.
    """

    name: str
    kernel: int
    in_width: int
    out_width: int
    out_size: int
    params: int
    bn_statistics: int
    madds: int
    authors_operations: int


@dataclass(frozen=True)
class Cost:
    """Totals for one image.

    ``params`` are the trainable ones; ``params_with_bn`` adds BN's moving mean and variance, as MindCV's tables do.
    ``madds_authors_rule`` is what the authors' table of 25 sizes shows.
    """

    layers: tuple[LayerCost, ...]

    @property
    def params(self) -> int:
        return sum(layer.params for layer in self.layers)

    @property
    def params_with_bn(self) -> int:
        return self.params + sum(layer.bn_statistics for layer in self.layers)

    @property
    def madds(self) -> int:
        return sum(layer.madds for layer in self.layers)

    @property
    def madds_authors_rule(self) -> float:
        return sum(layer.authors_operations for layer in self.layers) / 2


def network_cost(network: Network, image_size: int | None = None) -> Cost:
    """Count a network at a square image of ``image_size`` pixels (None: the network's own)."""
    size = network.image_size if image_size is None else image_size
    check_whole("image_size", size)
    return Cost(tuple(_walk(network, size)))


def detector_cost(detector: Detector, image_size: int | None = None) -> Cost:
    """The same for a detector: its backbone up to the head, the extras and the predictors, without post-processing."""
    size = detector.network.image_size if image_size is None else image_size
    check_whole("image_size", size)
    return Cost(tuple(_walk_detector(detector, size)))


def _walk_detector(detector: Detector, size: int) -> Iterator[LayerCost]:
    yield from (layer for layer in _walk(detector.network, size) if layer.name != "classifier")
    sizes, widths = detector.map_sizes(size), detector.map_widths
    for number, out_width in enumerate(detector.extras):
        half, before, after = out_width // 2, sizes[number + 1], sizes[number + 2]
        yield _conv(f"extras.{number}.reduce", 1, widths[number + 1], half, before)
        yield _conv(f"extras.{number}.depthwise", 3, half, half, after, groups=half)
        yield _conv(f"extras.{number}.expand", 1, half, out_width, after)
    for number, (width, side, anchors) in enumerate(zip(widths, sizes, detector.anchors_per_cell, strict=True)):
        for task, values in (("classes", detector.slots), ("boxes", 4)):
            name = f"predictors.{number}.{task}"
            yield _conv(f"{name}.depthwise", 3, width, width, side, groups=width)
            yield _biased(f"{name}.output", width, anchors * values, side)


def _walk(network: Network, size: int) -> Iterator[LayerCost]:
    size = _strided(size, network.stem_stride)
    yield _conv("stem", 3, network.in_channels, network.stem_width, size)
    width = network.stem_width
    for number, layer in enumerate(network.layers()):
        yield from _block(f"blocks.{number}", layer, size)
        size, width = _strided(size, layer.stride), layer.out_width
    yield _conv("head", 1, width, network.head_width, size)
    yield _biased("classifier", network.head_width, network.num_classes)


def _block(name: str, layer: Layer, size: int) -> Iterator[LayerCost]:
    if layer.expands:
        yield _conv(f"{name}.expand", 1, layer.in_width, layer.mid_width, size)
    size = _strided(size, layer.stride)
    width = layer.gated_width
    if layer.conv:
        yield _conv(f"{name}.spatial", layer.kernel, layer.in_width, width, size)
    else:
        yield _conv(f"{name}.depthwise", layer.kernel, width, width, size, groups=width)
    if layer.se_width:
        yield _biased(f"{name}.se.reduce", width, layer.se_width)
        yield _biased(f"{name}.se.expand", layer.se_width, width)
        gate = SIGMOID_OPERATIONS * width + width * size * size
        yield LayerCost(f"{name}.se.scale", 0, width, width, size, 0, 0, 0, gate)
    if layer.projects:
        yield _conv(f"{name}.project", 1, width, layer.out_width, size)
    if layer.pool and layer.stride > 1:
        pooled = layer.stride**2 * min(layer.in_width, layer.out_width) * size * size
        yield LayerCost(f"{name}.pool", 0, layer.in_width, layer.out_width, size, 0, 0, 0, pooled)
    if layer.residual:
        added = layer.out_width * size * size
        yield LayerCost(f"{name}.add", 0, layer.out_width, layer.out_width, size, 0, 0, 0, added)


def _conv(name: str, kernel: int, in_width: int, out_width: int, size: int, groups: int = 1) -> LayerCost:
    """A convolution with batch normalization, which the authors fold into one addition per output."""
    weights = kernel * kernel * in_width // groups * out_width
    madds = weights * size * size
    operations = 2 * madds + out_width * size * size
    return LayerCost(name, kernel, in_width, out_width, size, weights + 2 * out_width, 2 * out_width, madds, operations)


def _biased(name: str, in_width: int, out_width: int, size: int = 1) -> LayerCost:
    """A 1x1 convolution with a bias; on one pixel it is what a dense layer is too."""
    weights, pixels = in_width * out_width, size * size
    operations = (2 * weights + out_width) * pixels
    return LayerCost(name, 1, in_width, out_width, size, weights + out_width, 0, weights * pixels, operations)


def _strided(size: int, stride: int) -> int:
    return -(-size // stride)
