"""The network as MindSpore cells, built from an ``arch.Network``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mindcv_mnasnet import arch, runtime
from mindcv_mnasnet.checkpoint import Checkpoint, read_checkpoint
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.weights import hub

__all__ = [
    "ConvBN",
    "MBConv",
    "MnasNet",
    "SqueezeExcite",
    "create_model",
    "freeze",
    "initialise",
    "load_parameters",
    "start_from",
]


class ConvBN(nn.Cell):
    """Convolution without bias, batch norm, and ReLU unless ``relu`` is False. NCHW in, NCHW out."""

    def __init__(
        self,
        network: arch.Network,
        in_width: int,
        out_width: int,
        kernel: int = 1,
        stride: int = 1,
        group: int = 1,
        relu: bool = True,
    ):
        super().__init__()
        same = network.padding == "same" or kernel == 1
        self.conv = nn.Conv2d(
            in_width,
            out_width,
            kernel,
            stride,
            pad_mode="same" if same else "pad",
            padding=0 if same else kernel // 2,
            group=group,
            weight_init="zeros",
        )
        self.bn = nn.BatchNorm2d(out_width, eps=network.bn_eps, momentum=network.bn_momentum)
        self.relu = nn.ReLU() if relu else None

    def construct(self, x):
        x = self.bn(self.conv(x))
        return x if self.relu is None else self.relu(x)


class SqueezeExcite(nn.Cell):
    """Channel gates from the mean over space: 1x1, ReLU, 1x1, sigmoid, both with bias."""

    def __init__(self, width: int, squeezed: int):
        super().__init__()
        self.reduce = nn.Conv2d(width, squeezed, 1, has_bias=True, weight_init="zeros", bias_init="zeros")
        self.expand = nn.Conv2d(squeezed, width, 1, has_bias=True, weight_init="zeros", bias_init="zeros")

    def construct(self, x):
        gates = ops.relu(self.reduce(ops.mean(x, (2, 3), True)))
        return x * ops.sigmoid(self.expand(gates))


class MBConv(nn.Cell):
    """Mobile inverted bottleneck: expand, depthwise, gate, project, and the shortcut where the layer has one."""

    def __init__(self, network: arch.Network, layer: arch.Layer):
        super().__init__()
        mid = layer.mid_width
        self.residual = layer.residual
        self.expand = ConvBN(network, layer.in_width, mid) if layer.expand > 1 else None
        self.depthwise = ConvBN(network, mid, mid, layer.kernel, layer.stride, group=mid)
        self.se = SqueezeExcite(mid, layer.se_width) if layer.se_width else None
        self.project = ConvBN(network, mid, layer.out_width, relu=False)

    def construct(self, x, keep=None):
        """``keep``: (batch, 1, 1, 1) factors of the residual branch for drop-connect, or None."""
        y = x if self.expand is None else self.expand(x)
        y = self.depthwise(y)
        if self.se is not None:
            y = self.se(y)
        y = self.project(y)
        if not self.residual:
            return y
        return x + (y if keep is None else y * keep)


class MnasNet(nn.Cell):
    """A MnasNet classifier, or with ``features_only`` its feature maps.

    Call with images (batch, channels, height, width), normalised; returns logits (batch, classes), or the last map of
    every reduction, finest first (``feature_channels`` and ``feature_reductions`` describe them).

    In training, dropout and drop-connect compare their rates with ``draws``, uniform numbers in [0, 1) of shape
    (batch, ``draw_columns``); without ``draws`` the device draws them, which no seed of a checkpoint can repeat.
    """

    def __init__(self, network: arch.Network, features_only: bool = False):
        super().__init__()
        layers = network.layers()
        self.network = network
        self.features_only = features_only
        self.stem = ConvBN(network, network.in_channels, network.stem_width, 3, network.stem_stride)
        self.blocks = nn.CellList([MBConv(network, layer) for layer in layers])
        self._describe_features(layers)
        rates = [network.drop_connect * i / len(layers) if layer.residual else 0.0 for i, layer in enumerate(layers)]
        self.drop_connect_rates = tuple(rates)
        self.dropout = 0.0 if features_only else network.dropout
        self.dropped_blocks = sum(rate > 0 for rate in rates)
        self.draw_columns = self.dropped_blocks + (network.head_width if self.dropout > 0 else 0)
        if not features_only:
            self.head = ConvBN(network, layers[-1].out_width, network.head_width)
            self.classifier = nn.Dense(network.head_width, network.num_classes, weight_init="zeros", bias_init="zeros")

    def _describe_features(self, layers: tuple[arch.Layer, ...]) -> None:
        stage_reductions = self.network.reductions
        last_of = {self.network.stem_stride: -1} | {stage_reductions[x.stage]: i for i, x in enumerate(layers)}
        wanted = sorted((index, reduction) for reduction, index in last_of.items() if reduction > 1)
        self.feature_blocks = tuple(index for index, _ in wanted)
        self.feature_reductions = tuple(reduction for _, reduction in wanted)
        widths = [self.network.stem_width, *(layer.out_width for layer in layers)]
        self.feature_channels = tuple(widths[index + 1] for index in self.feature_blocks)

    def depths(self) -> dict[str, int]:
        """Each parameter's distance from the classifier in stages: 0 for head and classifier, most for the stem."""
        stages = len(self.network.blocks)
        stage_of = [layer.stage for layer in self.network.layers()]
        found = {}
        for name, _ in self.parameters_and_names():
            part, index = name.split(".")[:2]
            found[name] = {"stem": stages + 1}.get(part, 0) if part != "blocks" else stages - stage_of[int(index)]
        return found

    def construct(self, x, draws=None):
        if self.training and self.draw_columns > 0 and draws is None:
            draws = ops.rand(x.shape[0], self.draw_columns)
        features: Any = ()
        x = self.stem(x)
        if -1 in self.feature_blocks:
            features = (*features, x)
        column = 0
        for index, block in enumerate(self.blocks):
            rate = self.drop_connect_rates[index]
            if self.training and rate > 0:
                kept = (draws[:, column] >= rate).astype(x.dtype) / (1 - rate)
                x = block(x, kept.reshape(-1, 1, 1, 1))
                column += 1
            else:
                x = block(x)
            if index in self.feature_blocks:
                features = (*features, x)
        if self.features_only:
            return features
        return self.classify(x, draws)

    def classify(self, x, draws):
        """Logits from the last feature map."""
        x = ops.mean(self.head(x), (2, 3))
        if self.training and self.dropout > 0:
            kept = (draws[:, self.dropped_blocks :] >= self.dropout).astype(x.dtype)
            x = x * kept / (1 - self.dropout)
        return self.classifier(x)


def initialise(model: nn.Cell, seed: int = 0) -> None:
    """Set all weights as the authors' code does; equal seeds give equal weights on every rank.

    Convolutions: normal, std sqrt(2 / (k * k * out)); depthwise std sqrt(2 / (k * k)) (their fan-out is one filter);
    dense: uniform in +-1 / sqrt(out). Batch norms and biases keep MindSpore's ones and zeros.
    """
    for name, cell in model.cells_and_names():
        if not isinstance(cell, nn.Conv2d | nn.Dense):
            continue
        rng = np.random.default_rng([seed, *name.encode()])
        shape = cell.weight.shape
        if isinstance(cell, nn.Dense):
            bound = shape[0] ** -0.5
            values = rng.uniform(-bound, bound, shape)
        else:
            fan_out = shape[2] * shape[3] * shape[0] // cell.group
            values = rng.normal(0, (2 / fan_out) ** 0.5, shape)
        cell.weight.set_data(ms.Tensor(values.astype(np.float32)))


def freeze(model: MnasNet, what: int | str) -> None:
    """Keep parts fixed, batch-norm statistics included: ``"backbone"`` (all but the classifier), or the stem and the
    first N stages. Call after ``set_train``, which would unfreeze the statistics.

    Raises:
        UserError: the network has fewer stages.
    """
    layers, stages = model.network.layers(), len(model.network.blocks)
    if what == "backbone":
        cells = [cell for name, cell in model.name_cells().items() if name != "classifier"]
    elif 0 <= int(what) <= stages:
        cells = [model.stem, *(b for b, layer in zip(model.blocks, layers, strict=True) if layer.stage < int(what))]
    else:
        raise UserError(f"freeze: {what} stages, but {model.network.family or 'the network'} has {stages}")
    for cell in cells:
        cell.set_train(False)
        for parameter in cell.get_parameters():
            parameter.requires_grad = False


def load_parameters(parameters: Iterable[ms.Parameter], tensors: Mapping[str, np.ndarray], origin: str) -> None:
    """Set parameters from tensors of the same names and shapes; all of them, or none and an error.

    Raises:
        UserError: listing the first missing, left-over and misshapen tensors.
    """
    by_name = {parameter.name: parameter for parameter in parameters}
    missing = [name for name in by_name if name not in tensors]
    extra = [name for name in tensors if name not in by_name]
    odd = [n for n, p in by_name.items() if n in tensors and tuple(tensors[n].shape) != tuple(p.shape)]
    if missing or extra or odd:
        listed = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for what, names in (("missing", missing), ("left over", extra), ("of another shape", odd))
            if names
        ]
        raise UserError(f"{origin} does not fit the network: {'; '.join(listed)}")
    for name, parameter in by_name.items():
        parameter.set_data(ms.Tensor(np.array(tensors[name], order="C"), parameter.dtype))


def start_from(model: MnasNet, checkpoint: Checkpoint) -> str:
    """Set a network's parameters from a checkpoint; its classifier stays as it is where the classes differ.

    Returns:
        A sentence on what was taken.
    Raises:
        UserError: the checkpoint is of another network.
    """
    theirs = checkpoint.network.num_classes
    same_classes = theirs == model.network.num_classes
    left_out = ("head.", "classifier.") if model.features_only else () if same_classes else ("classifier.",)
    parameters = [p for p in model.get_parameters() if not p.name.startswith(left_out)]
    weights = {name: value for name, value in checkpoint.weights().items() if not name.startswith(left_out)}
    load_parameters(parameters, weights, str(checkpoint.path))
    fresh = "classifier." in left_out and not model.features_only
    head = f"; classifier new: {model.network.num_classes} classes instead of {theirs}" if fresh else ""
    kind = "averaged (EMA)" if checkpoint.has_ema else "raw"
    return f"started from {len(weights)} {kind} tensors of {checkpoint.path}{head}"


def create_model(
    model: str | arch.Network = "mnasnet_100",
    *,
    pretrained: bool = False,
    features_only: bool = False,
    seed: int = 0,
    **overrides: Any,
) -> MnasNet:
    """Build an initialised network from any source's model name, or from an ``arch.Network``.

    Args:
        pretrained: start from the weights that the name's source published, see ``weights.hub.pretrained``; with
            another number of classes the classifier stays a new one.
        overrides: fields of ``arch.Network`` (``num_classes``, ``width_mult``, ``dropout``, ``blocks``, ...).
    Raises:
        UserError: unknown names, impossible values, or weights that are not published or do not fit.
        JobError: the weights could not be downloaded.
    """
    runtime.tune_cpu()
    if isinstance(model, arch.Network):
        network = dataclasses.replace(model, **overrides)
    else:
        network = arch.resolve(model, **overrides)
    if pretrained and isinstance(model, arch.Network):
        raise UserError("published weights are found by a model's name; a description of a network has none")
    cell = MnasNet(network, features_only)
    initialise(cell, seed)
    if pretrained:
        wanted = {name: overrides[name] for name in ("width_mult", "image_size") if name in overrides}
        start_from(cell, read_checkpoint(hub.pretrained(str(model), **wanted)))
    return cell
