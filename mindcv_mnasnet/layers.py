"""The layers of a MnasNet as MindSpore cells.

``fused``, ``gating``, ``middle`` and ``join`` are None, or compute the same as the cells beside them, faster on CPUs:
``kernels.cells.accelerate`` sets them.
"""

from __future__ import annotations

from mindspore import nn, ops

from mindcv_mnasnet import arch
from mindcv_mnasnet.quantise import FLOAT, GATES, Kit


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
        kit: Kit = FLOAT,
        name: str = "",
    ):
        super().__init__()
        same = network.padding == "same" or kernel == 1
        self.conv = kit.conv(
            in_width,
            out_width,
            kernel,
            stride,
            pad_mode="same" if same else "pad",
            padding=0 if same else kernel // 2,
            group=group,
            weight_init="zeros",
        )
        self.bn = kit.norm(out_width, network.bn_eps, network.bn_momentum)
        self.relu = nn.ReLU() if relu else None
        self.point = kit.point(name, positive=relu)
        self.fused = None

    def construct(self, x):
        x = self.conv(x)
        if self.fused is not None:
            return self.fused(x)
        x = self.bn(x)
        if self.relu is not None:
            x = self.relu(x)
        return x if self.point is None else self.point(x)


class SqueezeExcite(nn.Cell):
    """Channel gates from the mean over space: 1x1, ReLU, 1x1, sigmoid, both with bias."""

    def __init__(self, width: int, squeezed: int, kit: Kit = FLOAT, name: str = ""):
        super().__init__()
        self.reduce = kit.conv(width, squeezed, 1, has_bias=True, weight_init="zeros", bias_init="zeros")
        self.expand = kit.conv(squeezed, width, 1, has_bias=True, weight_init="zeros", bias_init="zeros")
        self.reduced_point = kit.point(f"{name}.reduce", positive=True)
        self.gates_point = kit.point(f"{name}.expand", positive=True, fixed=GATES)
        self.point = kit.point(name, positive=True)
        self.gating = None

    def construct(self, x):
        if self.gating is not None:
            reduced = ops.relu(self.reduce(self.gating.mean(x)))
            return self.gating.scale(x, ops.sigmoid(self.expand(reduced)))
        reduced = ops.relu(self.reduce(ops.mean(x, (2, 3), True)))
        if self.reduced_point is None or self.gates_point is None or self.point is None:
            return x * ops.sigmoid(self.expand(reduced))
        gates = ops.sigmoid(self.expand(self.reduced_point(reduced)))
        return self.point(x * self.gates_point(gates))


class MBConv(nn.Cell):
    """Mobile inverted bottleneck: expand, depthwise, gate, project, and the shortcut where the layer has one."""

    def __init__(self, network: arch.Network, layer: arch.Layer, kit: Kit = FLOAT, name: str = ""):
        super().__init__()
        mid = layer.mid_width
        self.residual = layer.residual
        expands = layer.expand > 1
        self.expand = ConvBN(network, layer.in_width, mid, kit=kit, name=f"{name}.expand") if expands else None
        self.depthwise = ConvBN(
            network, mid, mid, layer.kernel, layer.stride, group=mid, kit=kit, name=f"{name}.depthwise"
        )
        self.se = SqueezeExcite(mid, layer.se_width, kit, f"{name}.se") if layer.se_width else None
        self.project = ConvBN(network, mid, layer.out_width, relu=False, kit=kit, name=f"{name}.project")
        self.point = kit.point(name) if layer.residual else None
        self.middle = self.join = None

    def construct(self, x, keep=None):
        """``keep``: (batch, 1, 1, 1) factors of the residual branch for drop-connect, or None."""
        if self.middle is None:
            y = self.depthwise(x if self.expand is None else self.expand(x))
        else:
            y = self.middle(x if self.expand is None else self.expand.conv(x))
        if self.se is not None:
            y = self.se(y)
        if self.join is not None and keep is None:
            return self.join(self.project.conv(y), x)
        y = self.project(y)
        if not self.residual:
            return y
        y = x + (y if keep is None else y * keep)
        return y if self.point is None else self.point(y)
