"""A trained network as plain convolutions with bias: batch norms folded in, paddings spelled out, no framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

import numpy as np

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.detector import Detector
from mindcv_mnasnet.networks.network import Layer, Network

Tensor = TypeVar("Tensor")


@dataclass(frozen=True)
class Conv:
    """A convolution: ``weight`` (out, in / groups, k, k), ``bias`` (out,), ``pad`` rows and columns (before, after)."""

    name: str
    weight: np.ndarray
    bias: np.ndarray
    stride: int = 1
    pad: tuple[int, int] = (0, 0)
    groups: int = 1
    activation: Literal["relu", "sigmoid"] | None = None

    @property
    def kernel(self) -> int:
        return int(self.weight.shape[2])

    @property
    def depthwise(self) -> bool:
        return self.groups > 1


@dataclass(frozen=True)
class Block:
    """An MBConv: expand, spatial, gates (mean over space, ``reduce``, ``expand_gate``), project, shortcut.

    ``spatial`` is the depthwise or plain k x k convolution. ``layer`` tells whether the shortcut is pooled.
    """

    name: str
    layer: Layer
    expand: Conv | None
    spatial: Conv
    reduce: Conv | None
    expand_gate: Conv | None
    project: Conv | None


@dataclass(frozen=True)
class Folded:
    """The whole classifier for images of one size; after ``head`` come the mean over space and the dense layer.

    ``classifier_weight`` (classes, head width), ``classifier_bias`` (classes,). A part of a network, which is only
    timed, has no stem or no head; ``network`` then has the part's own input channels and image size.
    """

    network: Network
    stem: Conv | None
    blocks: tuple[Block, ...]
    head: Conv | None
    classifier_weight: np.ndarray
    classifier_bias: np.ndarray


class Features(ABC, Generic[Tensor]):
    """The feature extractor of a folded network in a runtime's operators, whose tensors are of type ``Tensor``."""

    @abstractmethod
    def conv(self, x: Tensor, conv: Conv) -> Tensor:
        """A convolution with its bias and activation."""

    @abstractmethod
    def gated(self, x: Tensor, name: str, reduce: Conv, expand: Conv) -> Tensor:
        """Squeeze-and-excitation of the block ``name``."""

    @abstractmethod
    def joined(self, x: Tensor, shortcut: Tensor, block: Block) -> Tensor:
        """A block's output and its input, added."""

    def features(self, x: Tensor, folded: Folded) -> Tensor:
        """Stem, blocks and head, as far as there are any."""
        if folded.stem is not None:
            x = self.conv(x, folded.stem)
        for block in folded.blocks:
            shortcut = x
            if block.expand is not None:
                x = self.conv(x, block.expand)
            x = self.conv(x, block.spatial)
            if block.reduce is not None and block.expand_gate is not None:
                x = self.gated(x, block.name, block.reduce, block.expand_gate)
            if block.project is not None:
                x = self.conv(x, block.project)
            if block.layer.residual:
                x = self.joined(x, shortcut, block)
        return x if folded.head is None else self.conv(x, folded.head)


@dataclass(frozen=True)
class FoldedDetector:
    """A detector: a network without a classifier, and what is put on it.

    ``extras`` are (reduce, depthwise, expand) of each; ``predictors`` (spatial, output) of classes and of boxes, for
    each map. The first map is the tensor ``tapped``, the second the backbone's head.
    """

    detector: Detector
    backbone: Folded
    extras: tuple[tuple[Conv, Conv, Conv], ...]
    predictors: tuple[tuple[tuple[Conv, Conv], tuple[Conv, Conv]], ...]

    @property
    def tapped(self) -> str:
        """Name of the convolution that gives the finest map."""
        return f"blocks.{self.detector.tapped_block}.expand"


def fold_detector(detector: Detector, tensors: Mapping[str, np.ndarray]) -> FoldedDetector:
    """The same as :func:`fold` for a detector's checkpoint, for images of ``detector.network.image_size``."""
    folder = _Folder(detector.network, tensors)
    sizes, widths = detector.map_sizes(), detector.map_widths

    def predictor(number: int, task: str) -> tuple[Conv, Conv]:
        name = f"predictors.{number}.{task}"
        spatial = folder.conv(f"{name}.depthwise", sizes[number], groups=widths[number])
        return spatial, folder.gate(f"{name}.output", None)

    extras = []
    for number, width in enumerate(detector.extras):
        name, size = f"extras.{number}", sizes[number + 1]
        spatial = folder.conv(f"{name}.depthwise", size, 2, groups=width // 2)
        extras.append((folder.conv(f"{name}.reduce", size), spatial, folder.conv(f"{name}.expand", size)))
    return FoldedDetector(
        detector=detector,
        backbone=fold(detector.network, tensors, classifier=False),
        extras=tuple(extras),
        predictors=tuple((predictor(number, "classes"), predictor(number, "boxes")) for number in range(len(sizes))),
    )


def fold(network: Network, tensors: Mapping[str, np.ndarray], classifier: bool = True) -> Folded:
    """Fold the tensors of a checkpoint (``Checkpoint.weights()``) for images of ``network.image_size``.

    Folding is done in float64 and rounded once, to float32. Without ``classifier`` its two arrays are empty.

    Raises:
        UserError: a tensor is missing.
    """
    folder = _Folder(network, tensors)
    size = network.image_size
    stem = folder.conv("stem", size, network.stem_stride)
    size = -(-size // network.stem_stride)
    blocks = []
    for index, layer in enumerate(network.layers()):
        name = f"blocks.{index}"
        blocks.append(
            Block(
                name=name,
                layer=layer,
                expand=folder.conv(f"{name}.expand", size) if layer.expands else None,
                spatial=folder.conv(f"{name}.spatial", size, layer.stride)
                if layer.conv
                else folder.conv(f"{name}.depthwise", size, layer.stride, groups=layer.mid_width),
                reduce=folder.gate(f"{name}.se.reduce", "relu") if layer.se_width else None,
                expand_gate=folder.gate(f"{name}.se.expand", "sigmoid") if layer.se_width else None,
                project=folder.conv(f"{name}.project", size, activation=None) if layer.projects else None,
            )
        )
        size = -(-size // layer.stride)
    return Folded(
        network=network,
        stem=stem,
        blocks=tuple(blocks),
        head=folder.conv("head", size),
        classifier_weight=folder.tensor("classifier.weight") if classifier else np.zeros((0, network.head_width)),
        classifier_bias=folder.tensor("classifier.bias") if classifier else np.zeros(0),
    )


def parts(folded: Folded) -> list[Folded]:
    """The stem, every block, and the head with the classifier, each as if it were a network."""
    assert folded.stem is not None
    whole = folded.network
    found = [replace(folded, blocks=(), head=None)]
    size = -(-whole.image_size // whole.stem_stride)
    for block in folded.blocks:
        own = replace(whole, in_channels=block.layer.in_width, image_size=size)
        found.append(replace(folded, network=own, stem=None, blocks=(block,), head=None))
        size = -(-size // block.layer.stride)
    own = replace(whole, in_channels=folded.blocks[-1].layer.out_width, image_size=size)
    return [*found, replace(folded, network=own, stem=None, blocks=())]


class _Folder:
    def __init__(self, network: Network, tensors: Mapping[str, np.ndarray]):
        self._network, self._tensors = network, tensors

    def tensor(self, name: str) -> np.ndarray:
        if name not in self._tensors:
            raise UserError(f"the weights have no tensor {name}")
        return np.asarray(self._tensors[name], np.float32)

    def conv(
        self, name: str, size: int, stride: int = 1, groups: int = 1, activation: Literal["relu"] | None = "relu"
    ) -> Conv:
        norm = {key: self.tensor(f"{name}.bn.{key}").astype(np.float64) for key in _NORM}
        factor = norm["gamma"] / np.sqrt(norm["moving_variance"] + self._network.bn_eps)
        weight = self.tensor(f"{name}.conv.weight").astype(np.float64) * factor[:, None, None, None]
        bias = norm["beta"] - norm["moving_mean"] * factor
        pad = _padding(self._network.padding, weight.shape[2], stride, size)
        return Conv(name, weight.astype(np.float32), bias.astype(np.float32), stride, pad, groups, activation)

    def gate(self, name: str, activation: Literal["relu", "sigmoid"] | None) -> Conv:
        return Conv(name, self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"), activation=activation)


_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def _padding(rule: str, kernel: int, stride: int, size: int) -> tuple[int, int]:
    """Rows before and after; TensorFlow's SAME pads the least for ceil(size / stride) outputs, the odd row last."""
    if rule == "symmetric":
        return kernel // 2, kernel // 2
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
