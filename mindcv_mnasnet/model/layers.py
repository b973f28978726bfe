"""The layers of a MnasNet as MindSpore cells.

``fused``, ``gating``, ``middle`` and ``join`` are None, or compute the same as the cells beside them, faster on CPUs:
``accelerate`` sets them. ``fused`` of a fake-quantized layer quantizes, and so do ``middle`` and ``join``.
"""

from __future__ import annotations

from typing import Any

from mindspore import nn, ops

from mindcv_mnasnet.model.quantization import FLOAT, GATES, LayerFactory
from mindcv_mnasnet.networks import network as arch


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
        factory: LayerFactory = FLOAT,
        name: str = "",
    ):
        super().__init__()
        same = network.padding == "same" or kernel == 1
        self.conv = factory.conv(
            in_width,
            out_width,
            kernel,
            stride,
            pad_mode="same" if same else "pad",
            padding=0 if same else kernel // 2,
            group=group,
            weight_init="zeros",
        )
        self.bn = factory.norm(out_width, network.bn_eps, network.bn_momentum)
        self.relu = nn.ReLU() if relu else None
        self.fake_quant = factory.fake_quant(name, positive=relu)
        self.fused: Any = None

    def construct(self, x):
        x = self.conv(x)
        if self.fused is not None:
            return self.fused(x)
        x = self.bn(x)
        if self.relu is not None:
            x = self.relu(x)
        return x if self.fake_quant is None else self.fake_quant(x)


class SqueezeExcite(nn.Cell):
    """Channel gates from the mean over space: 1x1, ReLU, 1x1, sigmoid, both with bias."""

    def __init__(self, width: int, squeezed: int, factory: LayerFactory = FLOAT, name: str = ""):
        super().__init__()
        self.reduce = factory.conv(width, squeezed, 1, has_bias=True, weight_init="zeros", bias_init="zeros")
        self.expand = factory.conv(squeezed, width, 1, has_bias=True, weight_init="zeros", bias_init="zeros")
        self.reduced_fake_quant = factory.fake_quant(f"{name}.reduce", positive=True)
        self.gates_fake_quant = factory.fake_quant(f"{name}.expand", positive=True, fixed=GATES)
        self.fake_quant = factory.fake_quant(name, positive=True)
        self.gating = None

    def construct(self, x):
        means = ops.mean(x, (2, 3), True) if self.gating is None else self.gating.mean(x)
        reduced = ops.relu(self.reduce(means))
        if self.reduced_fake_quant is not None:
            reduced = self.reduced_fake_quant(reduced)
        gates = ops.sigmoid(self.expand(reduced))
        if self.gates_fake_quant is not None:
            gates = self.gates_fake_quant(gates)
        y = x * gates if self.gating is None else self.gating.scale(x, gates)
        return y if self.fake_quant is None else self.fake_quant(y)


class PooledShortcut(nn.Cell):
    """Means of 2x2 pixels where the stride is 2 (at an odd edge, of those there are); channels cut or zeros added."""

    def __init__(self, in_width: int, out_width: int, stride: int):
        super().__init__()
        self.out_width, self.added = out_width, out_width - in_width
        self.pool = nn.AvgPool2d(stride, stride) if stride > 1 else None

    def construct(self, x):
        if self.added < 0:
            x = x[:, : self.out_width]
        if self.pool is not None:
            if x.shape[2] % 2:
                x = ops.cat((x, x[:, :, -1:]), 2)
            if x.shape[3] % 2:
                x = ops.cat((x, x[:, :, :, -1:]), 3)
            x = self.pool(x)
        if self.added > 0:
            x = ops.cat((x, ops.zeros((x.shape[0], self.added, x.shape[2], x.shape[3]), x.dtype)), 1)
        return x


class MBConv(nn.Cell):
    """Mobile inverted bottleneck: expand, depthwise, gate, project, and the shortcut where the layer has one.

    A layer with ``conv`` has a plain convolution, ``spatial``, in place of expansion and depthwise convolution.
    """

    def __init__(self, network: arch.Network, layer: arch.Layer, factory: LayerFactory = FLOAT, name: str = ""):
        super().__init__()
        mid = layer.gated_width
        self.residual = layer.residual
        self.expand = (
            ConvBN(network, layer.in_width, mid, factory=factory, name=f"{name}.expand") if layer.expands else None
        )
        self.depthwise: nn.Cell | None = None
        self.spatial: nn.Cell | None = None
        if layer.conv:
            self.spatial = ConvBN(
                network, layer.in_width, mid, layer.kernel, layer.stride, factory=factory, name=f"{name}.spatial"
            )
        else:
            self.depthwise = ConvBN(
                network, mid, mid, layer.kernel, layer.stride, group=mid, factory=factory, name=f"{name}.depthwise"
            )
        self.se = SqueezeExcite(mid, layer.se_width, factory, f"{name}.se") if layer.se_width else None
        self.project = None
        if layer.projects:
            self.project = ConvBN(network, mid, layer.out_width, relu=False, factory=factory, name=f"{name}.project")
        self.shortcut = PooledShortcut(layer.in_width, layer.out_width, layer.stride) if layer.pool else None
        self.fake_quant = factory.fake_quant(name) if layer.residual else None
        self.middle: nn.Cell | None = None
        self.join: nn.Cell | None = None

    def construct(self, x, keep=None):
        """``keep``: (batch, 1, 1, 1) factors of the residual branch for drop-connect, or None."""
        if self.middle is not None:
            y = self.middle(x if self.expand is None else self.expand.conv(x))
        else:
            y = x if self.expand is None else self.expand(x)
            if self.depthwise is not None:
                y = self.depthwise(y)
            if self.spatial is not None:
                y = self.spatial(y)
        return self.finish(y, x, keep)

    def finish(self, y, x, keep):
        """The block's output from its gated width ``y`` before gating, and its input ``x``."""
        if self.se is not None:
            y = self.se(y)
        if self.join is not None and self.project is not None and keep is None:
            return self.join(self.project.conv(y), x)
        if self.project is not None:
            y = self.project(y)
        if not self.residual:
            return y
        if self.shortcut is not None:
            x = self.shortcut(x)
        y = x + (y if keep is None else y * keep)
        return y if self.fake_quant is None else self.fake_quant(y)


class TappedMBConv(MBConv):
    """A block with an expansion that gives (output, expansion); ``middle`` takes the expansion, batch norm done."""

    expand: nn.Cell
    depthwise: nn.Cell

    def construct(self, x, keep=None):
        expanded = self.expand(x)
        y = self.depthwise(expanded) if self.middle is None else self.middle(expanded)
        return self.finish(y, x, keep), expanded
