"""One network whose weights all networks of a search share: ``SuperNetwork``.

Candidates use the first channels of every weight (Cai et al. 2020, https://arxiv.org/abs/1908.09791), the center of
larger kernels (Stamoulis et al. 2019, https://arxiv.org/abs/1904.02877) and the first layers of every stage; one of
them is computed at a time (Guo et al. 2019, https://arxiv.org/abs/1904.00420). A static graph cannot branch: it has the
largest network, and a candidate is a tuple of masks, by which all that it does not have is multiplied by 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mindcv_mnasnet.kernels.build import kernels as built_kernels
from mindcv_mnasnet.kernels.cells import Depthwise, NormAct
from mindcv_mnasnet.model.accelerate import accelerate, put
from mindcv_mnasnet.model.layers import ConvBN, MBConv
from mindcv_mnasnet.model.parameters import initialize
from mindcv_mnasnet.networks.network import Layer, Network
from mindcv_mnasnet.search.supernet.choices import Choices

STATISTICS = (".moving_mean", ".moving_variance")
_SWITCHES = 3  # that a mask begins with: shortcut, expansion, gate


class SuperBlock(MBConv):
    """The largest block at one place; ``bypasses``: candidates with expansion 1 are among the choices.

    ``construct(x, mask)``: the mask, float32, holds three switches (add the shortcut, expand, gate by
    squeeze-and-excitation), then 1 for every channel in use in the middle, of the squeeze and of the output, then the
    kernel's taps. A layer that a candidate has not is a shortcut without output channels.
    """

    depthwise: Any  # always there, unlike in other blocks
    project: Any
    se: Any

    def __init__(self, network: Network, layer: Layer, bypasses: bool):
        super().__init__(network, replace(layer, residual=False))
        self.layer, self.bypasses = layer, bypasses and layer.expands
        ends = np.cumsum([_SWITCHES, layer.mid_width, layer.se_width, layer.out_width, layer.kernel**2])
        self.ends = tuple(int(end) for end in ends)
        self.end = None  # batch norm, mask and shortcut in one

    def mask(self, layer: Layer | None) -> np.ndarray:
        """The mask of a candidate's layer at this place, or of none there."""
        largest = self.layer
        mask = np.zeros(self.ends[-1], np.float32)
        if layer is None:
            mask[0] = 1
            return mask
        mask[:_SWITCHES] = layer.residual, layer.expands, layer.se_width > 0
        for start, width in zip(self.ends[:3], (layer.mid_width, layer.se_width, layer.out_width), strict=True):
            mask[start : start + width] = 1
        mask[self.ends[3] :] = _center(np.ones((layer.kernel,) * 2), largest.kernel).ravel()
        return mask

    def construct(self, x, mask):  # type: ignore[override]
        start, mid_end, squeeze_end, out_end, _ = self.ends
        used = mask[start:mid_end].reshape(1, -1, 1, 1)
        y = self.filter(x, mask[1], mask[out_end:].reshape(1, 1, self.layer.kernel, self.layer.kernel))
        if self.se is not None:
            y = self.gate(y, mask[2], used, mask[mid_end:squeeze_end].reshape(1, -1, 1, 1))
        # Channels in the middle meet others only in weights: masking these is cheaper than masking maps.
        y = self.project.conv.conv2d(y, self.project.conv.weight * used)
        shortcut = None if self.layer.stride > 1 else _fit(x, self.layer.out_width) * mask[0]
        if self.end is not None:
            return self.end(y, shortcut, mask[squeeze_end:out_end])
        y = self.project.bn(y) * mask[squeeze_end:out_end].reshape(1, -1, 1, 1)
        return y if shortcut is None else y + shortcut

    def filter(self, x, expands, taps):
        """Expansion and depthwise convolution."""
        weight = self.depthwise.conv.weight * taps
        if self.middle is not None and not self.bypasses:
            return self.middle(x if self.expand is None else self.expand.conv(x), weight)
        y = x if self.expand is None else self.expand(x)
        if self.bypasses:
            y = y * expands + _fit(x, self.layer.mid_width) * (1 - expands)
        if self.middle is not None:
            return self.middle(y, weight)
        return ops.relu(self.depthwise.bn(self.depthwise.conv.conv2d(y, weight)))

    def gate(self, y, gated, used, squeezed):
        """Squeeze-and-excitation where ``gated`` is 1."""
        gating = self.se.gating
        means = ops.mean(y, (2, 3), True) if gating is None else gating.mean(y)
        gates = ops.sigmoid(self.se.expand(ops.relu(self.se.reduce(means * used)) * squeezed))
        gates = gates * gated + (1 - gated)
        return y * gates if gating is None else gating.scale(y, gates)


class SuperNetwork(nn.Cell):
    """Logits (batch, classes) of one of ``choices``' networks: ``supernet(images, *supernet.masks(network))``.

    Images are normalized, float32 (batch, channels, height, width). Expansions of 1 may stand beside larger ones: the
    block's 1x1 convolution is passed by. In training batch norms take the batch's statistics, else their ``moving_*``.
    These are the last batch's, as averages over candidates say nothing about any one of them; ``Ranker`` estimates
    them anew. There is no dropout and no drop-connect.
    """

    features_only = False  # for ``accelerate``

    def __init__(self, choices: Choices, seed: int = 0, kernels: bool = True):
        super().__init__()
        largest = replace(choices.largest, bn_momentum=0.0)
        layers = largest.layers()
        self.choices = choices
        self.stem = ConvBN(largest, largest.in_channels, largest.stem_width, 3, largest.stem_stride)
        bypasses = [1 in choices.stages[layer.stage].expand for layer in layers]
        self.blocks = nn.CellList([SuperBlock(largest, *one) for one in zip(layers, bypasses, strict=True)])
        self.head = ConvBN(largest, layers[-1].out_width, largest.head_width)
        self.classifier = nn.Dense(largest.head_width, largest.num_classes, weight_init="zeros", bias_init="zeros")
        initialize(self, seed)
        if kernels and (library := built_kernels().path):
            accelerate(self, library)
            for block in self.blocks:
                put(block, "end", NormAct(library, block.project.bn, add=block.layer.stride == 1))
                if block.bypasses and block.middle is not None:
                    put(block, "middle", Depthwise(library, block.depthwise.conv, None, block.depthwise.bn))

    def construct(self, images, *masks):
        x = self.stem(images)
        for index, block in enumerate(self.blocks):
            x = block(x, masks[index])
        return self.classifier(ops.mean(self.head(x), (2, 3)))

    def masks(self, network: Network) -> tuple[ms.Tensor, ...]:
        """A network as one mask per block, float32; see ``SuperBlock``.

        Raises:
            UserError: it is not one of the choices.
        """
        self.choices.check(network)
        layers = {(layer.stage, layer.index): layer for layer in network.layers()}
        own = [block.layer for block in self.blocks]
        found = [layers.get((layer.stage, layer.index)) for layer in own]
        return tuple(ms.Tensor(block.mask(layer)) for block, layer in zip(self.blocks, found, strict=True))

    def statistics(self) -> dict[str, np.ndarray]:
        """Means and variances of all batch norms, by name; copies."""
        return {p.name: p.asnumpy().copy() for p in self.get_parameters() if p.name.endswith(STATISTICS)}

    def set_statistics(self, values: Mapping[str, np.ndarray]) -> None:
        """Take over what ``statistics`` gave, or means of it."""
        for parameter in self.get_parameters():
            if parameter.name.endswith(STATISTICS):
                parameter.set_data(ms.Tensor(values[parameter.name].astype(np.float32)))


def _fit(x, width):
    """The first channels, or zeros added to them."""
    if x.shape[1] == width:
        return x  # a slice would copy it
    if x.shape[1] > width:
        return x[:, :width]
    return ops.cat((x, ops.zeros((x.shape[0], width - x.shape[1], x.shape[2], x.shape[3]), x.dtype)), 1)


def _center(square: np.ndarray, side: int) -> np.ndarray:
    """The square in the middle of zeros, ``side`` wide."""
    return np.pad(square, (side - len(square)) // 2)
