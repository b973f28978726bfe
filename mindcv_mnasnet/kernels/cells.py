"""The operators of ``operators.cpp`` as MindSpore cells that stand in for cells of the model and share their parameters.

All take and give float32 NCHW tensors. To MindSpore operators of one name are one operator, and all get the gradient of
the first: whatever has a gradient of its own has a name of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

_FLOAT = ms.float32
_NONE = np.zeros(1, np.float32)


def _operator(library: str, name: str, shape: Callable[..., Any], outputs: int = 1, bprop: Any = None) -> ops.Custom:
    kinds = _FLOAT if outputs == 1 else (_FLOAT,) * outputs
    return ops.Custom(f"{library}:mnasnet_{name}", shape, kinds, func_type="aot", bprop=bprop)


def _integers(*values: int) -> ms.Tensor:
    return ms.Tensor(np.array(values, np.int32))


class _Averages(nn.Cell):
    """The moving averages of a ``nn.BatchNorm2d``, whose ``momentum`` is the share of the new value."""

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__(auto_prefix=False)
        self.moving_mean, self.moving_variance = norm.moving_mean, norm.moving_variance
        self.share = float(norm.momentum)

    def construct(self, mean, variance, count):
        unbiased = variance * (count / max(count - 1, 1))
        ops.assign_add(self.moving_mean, self.share * (mean - self.moving_mean))
        ops.assign_add(self.moving_variance, self.share * (unbiased - self.moving_variance))


class NormAct(nn.Cell):
    """Batch norm, then ReLU or a summand or neither: ``NormAct(library, bn, relu)(x)``, ``...(x, summand)``."""

    def __init__(self, library: str, norm: nn.BatchNorm2d, relu: bool = False, add: bool = False):
        super().__init__(auto_prefix=False)
        self.gamma, self.beta = norm.gamma, norm.beta
        self.moving_mean, self.moving_variance = norm.moving_mean, norm.moving_variance
        self.averages = _Averages(norm)
        self.none = ms.Tensor(_NONE)
        self.eps = ms.Tensor(np.array([norm.eps], np.float32))
        self.config, self.fixed = _integers(relu, add, 0), _integers(relu, add, 1)
        backward = _operator(library, "norm_backward", lambda x, dy, g, b, m, v, config, eps: (x, g, b), 3)

        def train_bprop(x, summand, gamma, beta, config, eps, out, dout):
            dx, dgamma, dbeta = backward(x, dout[0], gamma, beta, out[1], out[2], config, eps)
            dsummand = dout[0] if add else ops.zeros_like(summand)
            return dx, dsummand, dgamma, dbeta, ops.zeros_like(config), ops.zeros_like(eps)

        def infer_bprop(x, summand, gamma, beta, mean, variance, config, eps, out, dout):
            dx, dgamma, dbeta = backward(x, dout, gamma, beta, mean, variance, config, eps)
            dsummand = dout if add else ops.zeros_like(summand)
            zeros = ops.zeros_like
            return dx, dsummand, dgamma, dbeta, zeros(mean), zeros(variance), zeros(config), zeros(eps)

        name = "norm_add" if add else "norm"
        self.train = _operator(library, f"{name}_train", lambda x, s, g, b, c, e: (x, g, g), 3, train_bprop)
        self.infer = _operator(library, f"{name}_infer", lambda x, s, g, b, m, v, c, e: x, 1, infer_bprop)

    def construct(self, x, summand=None):
        if summand is None:
            summand = self.none
        if not self.training:
            mean, variance = self.moving_mean, self.moving_variance
            return self.infer(x, summand, self.gamma, self.beta, mean, variance, self.fixed, self.eps)
        y, mean, variance = self.train(x, summand, self.gamma, self.beta, self.config, self.eps)
        self.averages(mean, variance, x.shape[0] * x.shape[2] * x.shape[3])
        return y


class Depthwise(nn.Cell):
    """Depthwise convolution with the batch norm and ReLU around it, a channel at a time.

    ``before`` (with ReLU), convolution, ``after`` (with ReLU); no batch norm where there is None. A batch norm before
    needs one after.

    Args:
        conv: the convolution; its kernel, stride and weight are taken.
        pad: rows and columns before the picture; those behind it follow from the output's size, ceil(size / stride).
    """

    def __init__(
        self,
        library: str,
        conv: nn.Conv2d,
        pad: int,
        before: nn.BatchNorm2d | None = None,
        after: nn.BatchNorm2d | None = None,
    ):
        super().__init__(auto_prefix=False)
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        self.weight = conv.weight
        self.before, self.after = before is not None, after is not None
        some = after or before
        self.eps = ms.Tensor(np.array([1.0 if some is None else some.eps], np.float32))
        none = [ms.Tensor(_NONE)] * 4
        first, second = ([n.gamma, n.beta, n.moving_mean, n.moving_variance] if n else none for n in (before, after))
        self.gamma1, self.beta1, self.mean1, self.variance1 = first
        self.gamma2, self.beta2, self.mean2, self.variance2 = second
        self.averages1 = None if before is None else _Averages(before)
        self.averages2 = None if after is None else _Averages(after)
        shape = (kernel, stride, pad, before is not None, after is not None)
        self.config, self.fixed = _integers(*shape, 0), _integers(*shape, 1)
        backward = _operator(
            library,
            "depthwise_backward",
            lambda x, w, dy, g1, b1, m1, v1, g2, b2, m2, v2, config, eps: (x, w, g1, b1, g2, b2),
            6,
        )

        def train_bprop(x, w, g1, b1, g2, b2, config, eps, out, dout):
            means = out[1], out[2], out[3], out[4]
            grads = backward(x, w, dout[0], g1, b1, means[0], means[1], g2, b2, means[2], means[3], config, eps)
            dx, dw, dg1, db1, dg2, db2 = grads
            return dx, dw, dg1, db1, dg2, db2, ops.zeros_like(config), ops.zeros_like(eps)

        def infer_bprop(x, w, g1, b1, m1, v1, g2, b2, m2, v2, config, eps, out, dout):
            dx, dw, dg1, db1, dg2, db2 = backward(x, w, dout, g1, b1, m1, v1, g2, b2, m2, v2, config, eps)
            zeros = ops.zeros_like
            given = (zeros(m1), zeros(v1)), (zeros(m2), zeros(v2)), (zeros(config), zeros(eps))
            return dx, dw, dg1, db1, *given[0], dg2, db2, *given[1], *given[2]

        def shapes(x):
            channels = (x[1],)
            return (x[0], x[1], -(-x[2] // stride), -(-x[3] // stride)), channels, channels, channels, channels

        self.train = _operator(
            library, "depthwise_train", lambda x, w, g1, b1, g2, b2, config, eps: shapes(x), 5, train_bprop
        )
        self.infer = _operator(
            library,
            "depthwise_infer",
            lambda x, w, g1, b1, m1, v1, g2, b2, m2, v2, config, eps: shapes(x)[0],
            1,
            infer_bprop,
        )

    def construct(self, x):
        first, second = (self.gamma1, self.beta1), (self.gamma2, self.beta2)
        if not self.training:
            first = (*first, self.mean1, self.variance1)
            second = (*second, self.mean2, self.variance2)
            return self.infer(x, self.weight, *first, *second, self.fixed, self.eps)
        y, mean1, variance1, mean2, variance2 = self.train(x, self.weight, *first, *second, self.config, self.eps)
        if self.averages1 is not None:
            self.averages1(mean1, variance1, x.shape[0] * x.shape[2] * x.shape[3])
        if self.averages2 is not None:
            self.averages2(mean2, variance2, y.shape[0] * y.shape[2] * y.shape[3])
        return y


class Gates(nn.Cell):
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
