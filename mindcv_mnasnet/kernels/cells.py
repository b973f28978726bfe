"""The operators of ``operators.cpp`` as MindSpore cells beside the cells of a model, whose parameters they share.

All take and give float32 NCHW tensors. To MindSpore operators of one name are one operator, and all get the gradient of
the first: whatever has a gradient of its own has a name of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

KERNEL_SIZES = (3, 5, 7)  # of depthwise convolutions
# Operators as they are: what + and ops.assign wrap around them takes MindSpore longer to compile.
mul, assign, zeros = ops.Mul(), ops.Assign(), ops.ZerosLike()


def operator(library: str, name: str, shape: Callable[..., Any], outputs: int = 1, bprop: Any = None) -> ops.Custom:
    """The operator ``mnasnet_{name}``; ``shape`` gives its outputs' shapes by those of its inputs."""

    def kinds(x, *_):
        if x != ms.TensorType(ms.float32):
            raise TypeError(f"the operators of kernels take float32, not {x}; build the network with kernels=False")
        return ms.float32 if outputs == 1 else (ms.float32,) * outputs

    return ops.Custom(f"{library}:mnasnet_{name}", shape, kinds, func_type="aot", bprop=bprop)


def integers(*values: int) -> ms.Tensor:
    """A tensor of settings."""
    return ms.Tensor(np.array(values, np.int32))


def floats(*values: float) -> ms.Tensor:
    """A tensor of settings."""
    return ms.Tensor(np.array(values, np.float32))


def keep_statistics(norm, mean, variance):
    """Set a batch norm's moving statistics."""
    assign(norm.moving_mean, mean)
    assign(norm.moving_variance, variance)


class NormAct(nn.Cell):
    """Batch norm, then ReLU or a summand or neither: ``NormAct(library, bn, relu=True)(x)``, ``...(x, summand)``.

    ``keep`` (channels,): factors of gamma and beta, so 0 leaves nothing of a channel.
    """

    def __init__(self, library: str, norm: nn.BatchNorm2d, relu: bool = False, add: bool = False):
        super().__init__(auto_prefix=False)
        self.norm = norm
        self.nothing = ms.Tensor(np.zeros(1, np.float32))
        self.factors = floats(norm.eps, norm.momentum)
        self.config, self.fixed = integers(relu, add, 0), integers(relu, add, 1)
        backward = operator(library, "norm_backward", lambda x, dy, g, b, m, v, config, factors: (x, g, b), 3)

        def train_bprop(x, summand, gamma, beta, mean, variance, config, factors, out, dout):
            dx, dgamma, dbeta = backward(x, dout[0], gamma, beta, out[1], out[2], config, factors)
            rest = zeros(gamma), zeros(gamma), zeros(config), zeros(factors)
            return dx, dout[0] if add else zeros(summand), dgamma, dbeta, *rest

        def infer_bprop(x, summand, gamma, beta, mean, variance, config, factors, out, dout):
            dx, dgamma, dbeta = backward(x, dout, gamma, beta, mean, variance, config, factors)
            rest = zeros(gamma), zeros(gamma), zeros(config), zeros(factors)
            return dx, dout if add else zeros(summand), dgamma, dbeta, *rest

        name = "norm_add" if add else "norm"
        self.train = operator(library, f"{name}_train", lambda x, s, g, b, m, v, c, f: (x, g, g, g, g), 5, train_bprop)
        self.infer = operator(library, f"{name}_infer", lambda x, s, g, b, m, v, c, f: x, 1, infer_bprop)

    def construct(self, x, summand=None, keep=None):
        norm = self.norm
        gamma, beta = norm.gamma, norm.beta
        if summand is None:
            summand = self.nothing
        if keep is not None:
            gamma, beta = mul(gamma, keep), mul(beta, keep)
        mean, variance = norm.moving_mean, norm.moving_variance
        if not norm.training:
            return self.infer(x, summand, gamma, beta, mean, variance, self.fixed, self.factors)
        outputs = self.train(x, summand, gamma, beta, mean, variance, self.config, self.factors)
        keep_statistics(norm, outputs[3], outputs[4])
        return outputs[0]


class Depthwise(nn.Cell):
    """``before`` and ReLU unless None, depthwise convolution, ``after`` and ReLU; the norms have the same settings."""

    def __init__(self, library: str, conv: nn.Conv2d, before: nn.BatchNorm2d | None, after: nn.BatchNorm2d):
        super().__init__(auto_prefix=False)
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        self.conv, self.before, self.after = conv, before, after
        self.nothing = ms.Tensor(np.zeros(1, np.float32))
        self.factors = floats(after.eps, after.momentum)
        settings = (kernel, stride, conv.pad_mode == "same", before is not None)
        self.config, self.fixed = integers(*settings, 0), integers(*settings, 1)
        backward = operator(
            library,
            "depthwise_backward",
            lambda x, w, dy, g1, b1, m1, v1, g2, b2, m2, v2, config, factors: (x, w, g1, b1, g2, b2),
            6,
        )

        def bprop(x, w, g1, b1, m1, v1, g2, b2, m2, v2, config, factors, dy):
            dx, dw, dg1, db1, dg2, db2 = backward(x, w, dy, g1, b1, m1, v1, g2, b2, m2, v2, config, factors)
            first, second = (dg1, db1, zeros(g1), zeros(g1)), (dg2, db2, zeros(g2), zeros(g2))
            return dx, dw, *first, *second, zeros(config), zeros(factors)

        def train_bprop(x, w, g1, b1, m1, v1, g2, b2, m2, v2, config, factors, out, dout):
            return bprop(x, w, g1, b1, out[1], out[2], g2, b2, out[5], out[6], config, factors, dout[0])

        def infer_bprop(x, w, g1, b1, m1, v1, g2, b2, m2, v2, config, factors, out, dout):
            return bprop(x, w, g1, b1, m1, v1, g2, b2, m2, v2, config, factors, dout)

        def output(x):
            return x[0], x[1], -(-x[2] // stride), -(-x[3] // stride)

        def train_shapes(x, w, g1, b1, m1, v1, g2, b2, m2, v2, config, factors):
            return output(x), g1, g1, g1, g1, g2, g2, g2, g2

        def infer_shape(x, w, g1, b1, m1, v1, g2, b2, m2, v2, config, factors):
            return output(x)

        self.train = operator(library, "depthwise_train", train_shapes, 9, train_bprop)
        self.infer = operator(library, "depthwise_infer", infer_shape, 1, infer_bprop)

    def construct(self, x, weight=None):
        """``weight``: in place of the convolution's own."""
        before, after = self.before, self.after
        first = (self.nothing, self.nothing, self.nothing, self.nothing)
        if before is not None:
            if before.training != after.training:
                return ops.relu(after(self.conv(ops.relu(before(x)))))
            first = (before.gamma, before.beta, before.moving_mean, before.moving_variance)
        second = (after.gamma, after.beta, after.moving_mean, after.moving_variance)
        if weight is None:
            weight = self.conv.weight
        if not after.training:
            return self.infer(x, weight, *first, *second, self.fixed, self.factors)
        outputs = self.train(x, weight, *first, *second, self.config, self.factors)
        if before is not None:
            keep_statistics(before, outputs[3], outputs[4])
        keep_statistics(after, outputs[7], outputs[8])
        return outputs[0]


class Gating(nn.Cell):
    """The two ends of squeeze-and-excitation: ``mean(x)`` over space, (N, C, 1, 1), and ``scale(x, gates)``."""

    def __init__(self, library: str):
        super().__init__(auto_prefix=False)
        spread = operator(library, "spread", lambda x, dy: x)
        backward = operator(library, "scale_backward", lambda x, gates, dy: (x, gates), 2)

        def mean_bprop(x, out, dout):
            return (spread(x, dout),)

        def scale_bprop(x, gates, out, dout):
            return backward(x, gates, dout)

        self.mean = operator(library, "pool", lambda x: (x[0], x[1], 1, 1), 1, mean_bprop)
        self.scale = operator(library, "scale", lambda x, gates: x, 1, scale_bprop)
