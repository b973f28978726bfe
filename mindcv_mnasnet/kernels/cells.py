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
add, mul, assign, zeros = ops.Add(), ops.Mul(), ops.Assign(), ops.ZerosLike()


def accelerate(model: nn.Cell, library: str) -> None:
    """Let the layers of a ``model.MnasNet`` use the operators of ``library``, in training, frozen and for inference."""
    units = [model.stem, *([] if model.features_only else [model.head])]
    for block in model.blocks:
        every = (block.expand, block.depthwise, block.spatial, block.project)
        units += [unit for unit in every if unit is not None]
        if block.depthwise is not None and block.depthwise.conv.kernel_size[0] in KERNEL_SIZES:
            before = None if block.expand is None else block.expand.bn
            _put(block, "middle", Depthwise(library, block.depthwise.conv, before, block.depthwise.bn))
        if block.residual and block.shortcut is None and block.project is not None:
            _put(block, "join", NormAct(library, block.project.bn, add=True))
        if block.se is not None:
            _put(block.se, "gating", Gating(library))
    for unit in units:
        _put(unit, "fused", NormAct(library, unit.bn, relu=unit.relu is not None))


def _put(parent: nn.Cell, name: str, child: nn.Cell) -> None:
    """Assigning would rename the parameters that the child shares."""
    delattr(parent, name)
    parent.insert_child_to_cell(name, child)


def _operator(library: str, name: str, shape: Callable[..., Any], outputs: int = 1, bprop: Any = None) -> ops.Custom:
    def kinds(x, *_):
        if x != ms.TensorType(ms.float32):
            raise TypeError(f"the operators of kernels take float32, not {x}; build the network with kernels=False")
        return ms.float32 if outputs == 1 else (ms.float32,) * outputs

    return ops.Custom(f"{library}:mnasnet_{name}", shape, kinds, func_type="aot", bprop=bprop)


def _integers(*values: int) -> ms.Tensor:
    return ms.Tensor(np.array(values, np.int32))


def _average(norm, mean, variance, count):
    """Move a ``nn.BatchNorm2d``'s averages; its ``momentum`` is the share of the new values."""
    unbiased = mul(variance, count / max(count - 1, 1))
    for moving, value in ((norm.moving_mean, mean), (norm.moving_variance, unbiased)):
        assign(moving, add(mul(moving, 1 - norm.momentum), mul(value, norm.momentum)))


class NormAct(nn.Cell):
    """Batch norm, then ReLU or a summand or neither: ``NormAct(library, bn, relu=True)(x)``, ``...(x, summand)``.

    ``keep`` (channels,): factors of gamma and beta, so 0 leaves nothing of a channel.
    """

    def __init__(self, library: str, norm: nn.BatchNorm2d, relu: bool = False, add: bool = False):
        super().__init__(auto_prefix=False)
        self.norm = norm
        self.nothing = ms.Tensor(np.zeros(1, np.float32))
        self.eps = ms.Tensor(np.array([norm.eps], np.float32))
        self.config, self.fixed = _integers(relu, add, 0), _integers(relu, add, 1)
        backward = _operator(library, "norm_backward", lambda x, dy, g, b, m, v, config, eps: (x, g, b), 3)

        def train_bprop(x, summand, gamma, beta, config, eps, out, dout):
            dx, dgamma, dbeta = backward(x, dout[0], gamma, beta, out[1], out[2], config, eps)
            return dx, dout[0] if add else zeros(summand), dgamma, dbeta, zeros(config), zeros(eps)

        def infer_bprop(x, summand, gamma, beta, mean, variance, config, eps, out, dout):
            dx, dgamma, dbeta = backward(x, dout, gamma, beta, mean, variance, config, eps)
            rest = zeros(mean), zeros(variance), zeros(config), zeros(eps)
            return dx, dout if add else zeros(summand), dgamma, dbeta, *rest

        name = "norm_add" if add else "norm"
        self.train = _operator(library, f"{name}_train", lambda x, s, g, b, c, e: (x, g, g), 3, train_bprop)
        self.infer = _operator(library, f"{name}_infer", lambda x, s, g, b, m, v, c, e: x, 1, infer_bprop)

    def construct(self, x, summand=None, keep=None):
        norm = self.norm
        gamma, beta = norm.gamma, norm.beta
        if summand is None:
            summand = self.nothing
        if keep is not None:
            gamma, beta = mul(gamma, keep), mul(beta, keep)
        if not norm.training:
            return self.infer(x, summand, gamma, beta, norm.moving_mean, norm.moving_variance, self.fixed, self.eps)
        y, mean, variance = self.train(x, summand, gamma, beta, self.config, self.eps)
        _average(norm, mean, variance, x.shape[0] * x.shape[2] * x.shape[3])
        return y


class Depthwise(nn.Cell):
    """``before`` and ReLU unless None, depthwise convolution, ``after`` and ReLU; the batch norms have one eps."""

    def __init__(self, library: str, conv: nn.Conv2d, before: nn.BatchNorm2d | None, after: nn.BatchNorm2d):
        super().__init__(auto_prefix=False)
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        self.conv, self.before, self.after = conv, before, after
        self.nothing = ms.Tensor(np.zeros(1, np.float32))
        self.eps = ms.Tensor(np.array([after.eps], np.float32))
        settings = (kernel, stride, conv.pad_mode == "same", before is not None)
        self.config, self.fixed = _integers(*settings, 0), _integers(*settings, 1)
        backward = _operator(
            library,
            "depthwise_backward",
            lambda x, w, dy, g1, b1, m1, v1, g2, b2, m2, v2, config, eps: (x, w, g1, b1, g2, b2),
            6,
        )

        def train_bprop(x, w, g1, b1, g2, b2, config, eps, out, dout):
            given = (g1, b1, out[1], out[2]), (g2, b2, out[3], out[4])
            dx, dw, dg1, db1, dg2, db2 = backward(x, w, dout[0], *given[0], *given[1], config, eps)
            return dx, dw, dg1, db1, dg2, db2, zeros(config), zeros(eps)

        def infer_bprop(x, w, g1, b1, m1, v1, g2, b2, m2, v2, config, eps, out, dout):
            dx, dw, dg1, db1, dg2, db2 = backward(x, w, dout, g1, b1, m1, v1, g2, b2, m2, v2, config, eps)
            first, second = (dg1, db1, zeros(m1), zeros(v1)), (dg2, db2, zeros(m2), zeros(v2))
            return dx, dw, *first, *second, zeros(config), zeros(eps)

        def output(x):
            return x[0], x[1], -(-x[2] // stride), -(-x[3] // stride)

        def train_shapes(x, w, g1, b1, g2, b2, config, eps):
            return output(x), g1, g1, g2, g2

        def infer_shape(x, w, g1, b1, m1, v1, g2, b2, m2, v2, config, eps):
            return output(x)

        self.train = _operator(library, "depthwise_train", train_shapes, 5, train_bprop)
        self.infer = _operator(library, "depthwise_infer", infer_shape, 1, infer_bprop)

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
            return self.infer(x, weight, *first, *second, self.fixed, self.eps)
        trained = self.train(x, weight, first[0], first[1], second[0], second[1], self.config, self.eps)
        y, mean1, variance1, mean2, variance2 = trained
        if before is not None:
            _average(before, mean1, variance1, x.shape[0] * x.shape[2] * x.shape[3])
        _average(after, mean2, variance2, y.shape[0] * y.shape[2] * y.shape[3])
        return y


class Gating(nn.Cell):
    """The two ends of squeeze-and-excitation: ``mean(x)`` over space, (N, C, 1, 1), and ``scale(x, gates)``."""

    def __init__(self, library: str):
        super().__init__(auto_prefix=False)
        spread = _operator(library, "spread", lambda x, dy: x)
        backward = _operator(library, "scale_backward", lambda x, gates, dy: (x, gates), 2)

        def mean_bprop(x, out, dout):
            return (spread(x, dout),)

        def scale_bprop(x, gates, out, dout):
            return backward(x, gates, dout)

        self.mean = _operator(library, "pool", lambda x: (x[0], x[1], 1, 1), 1, mean_bprop)
        self.scale = _operator(library, "scale", lambda x, gates: x, 1, scale_bprop)
