"""The operators of fake quantization as MindSpore cells.

Each shares the parameters of the cells that it stands for, from ``model.fake_quant``: batch norms that freeze, with
``batches`` and ``freeze``, and fake quantizations, with ``range``, ``batches``, ``delay``, ``decay`` and ``observes``.
A quantization's *state* is what its gradient needs: (4,) {scale, zero, whether it is on, whether the norm is frozen}.
"""

from __future__ import annotations

from mindspore import nn

from mindcv_mnasnet.kernels.cells import assign, floats, integers, keep_statistics, operator, zeros

_STATE = (4,)


class QuantizedNormAct(nn.Cell):
    """Batch norm, ReLU if asked for, and fake quantization."""

    def __init__(self, library: str, norm: nn.BatchNorm2d, fake_quant: nn.Cell, relu: bool):
        super().__init__(auto_prefix=False)
        self.norm, self.range, self.batches = norm, fake_quant.range, fake_quant.batches
        self.factors = floats(norm.eps, norm.momentum)
        self.timing = floats(fake_quant.delay, norm.freeze, fake_quant.decay)
        self.config = integers(relu, 0, 0)
        backward = operator(library, "quantized_norm_backward", lambda x, dy, g, b, m, v, state, c, f: (x, g, b), 3)

        def train_bprop(x, gamma, beta, mean, variance, span, batches, config, factors, timing, out, dout):
            dx, dgamma, dbeta = backward(x, dout[0], gamma, beta, out[1], out[2], out[6], config, factors)
            rest = zeros(gamma), zeros(gamma), zeros(span), zeros(batches)
            return dx, dgamma, dbeta, *rest, zeros(config), zeros(factors), zeros(timing)

        def infer_bprop(x, gamma, beta, mean, variance, span, config, factors, out, dout):
            dx, dgamma, dbeta = backward(x, dout[0], gamma, beta, mean, variance, out[1], config, factors)
            return dx, dgamma, dbeta, zeros(gamma), zeros(gamma), zeros(span), zeros(config), zeros(factors)

        def train_shapes(x, g, b, m, v, span, batches, config, factors, timing):
            return x, g, g, g, g, span, _STATE

        self.train = operator(library, "quantized_norm_train", train_shapes, 7, train_bprop)
        self.infer = operator(
            library, "quantized_norm_infer", lambda x, g, b, m, v, r, c, f: (x, _STATE), 2, infer_bprop
        )

    def construct(self, x):
        norm = self.norm
        given = (x, norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance, self.range)
        if not norm.training:
            return self.infer(*given, self.config, self.factors)[0]
        outputs = self.train(*given, self.batches, self.config, self.factors, self.timing)
        keep_statistics(norm, outputs[3], outputs[4])
        assign(self.range, outputs[5])
        return outputs[0]


class QuantizedDepthwise(nn.Cell):
    """``before`` unless None, depthwise convolution with quantized weights, ``after``; both end in a ReLU."""

    def __init__(self, library: str, conv: nn.Conv2d, before: QuantizedNormAct | None, after: QuantizedNormAct):
        super().__init__(auto_prefix=False)
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        self.conv, self.before, self.after = conv, before, after
        self.nothing = floats(0)
        settings = (kernel, stride, conv.pad_mode == "same", before is not None)
        self.config = integers(*settings, 0)
        backward = operator(
            library,
            "quantized_depthwise_backward",
            lambda x, w, dy, g1, b1, m1, v1, s1, g2, b2, m2, v2, s2, config, factors: (x, w, g1, b1, g2, b2),
            6,
        )

        def train_bprop(x, w, g1, b1, m1, v1, r1, g2, b2, m2, v2, r2, batches, config, factors, timing, out, dout):
            first, second = (g1, b1, out[1], out[2], out[6]), (g2, b2, out[7], out[8], out[12])
            dx, dw, dg1, db1, dg2, db2 = backward(x, w, dout[0], *first, *second, config, factors)
            of_first = dg1, db1, zeros(g1), zeros(g1), zeros(r1)
            of_second = dg2, db2, zeros(g2), zeros(g2), zeros(r2)
            return dx, dw, *of_first, *of_second, zeros(batches), zeros(config), zeros(factors), zeros(timing)

        def infer_bprop(x, w, g1, b1, m1, v1, r1, g2, b2, m2, v2, r2, config, factors, out, dout):
            first, second = (g1, b1, m1, v1, out[1]), (g2, b2, m2, v2, out[2])
            dx, dw, dg1, db1, dg2, db2 = backward(x, w, dout[0], *first, *second, config, factors)
            of_first = dg1, db1, zeros(g1), zeros(g1), zeros(r1)
            of_second = dg2, db2, zeros(g2), zeros(g2), zeros(r2)
            return dx, dw, *of_first, *of_second, zeros(config), zeros(factors)

        def output(x):
            return x[0], x[1], -(-x[2] // stride), -(-x[3] // stride)

        def train_shapes(x, w, g1, b1, m1, v1, r1, g2, b2, m2, v2, r2, batches, config, factors, timing):
            return output(x), g1, g1, g1, g1, r1, _STATE, g2, g2, g2, g2, r2, _STATE

        def infer_shapes(x, w, g1, b1, m1, v1, r1, g2, b2, m2, v2, r2, config, factors):
            return output(x), _STATE, _STATE

        self.train = operator(library, "quantized_depthwise_train", train_shapes, 13, train_bprop)
        self.infer = operator(library, "quantized_depthwise_infer", infer_shapes, 3, infer_bprop)

    def construct(self, x):
        before, after = self.before, self.after
        norm = after.norm
        first = (self.nothing, self.nothing, self.nothing, self.nothing, self.nothing)
        if before is not None:
            own = before.norm
            if own.training != norm.training:
                return after(self.conv(before(x)))
            first = (own.gamma, own.beta, own.moving_mean, own.moving_variance, before.range)
        second = (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance, after.range)
        weight = self.conv.quantize(self.conv.weight)
        if not norm.training:
            return self.infer(x, weight, *first, *second, self.config, after.factors)[0]
        outputs = self.train(x, weight, *first, *second, after.batches, self.config, after.factors, after.timing)
        if before is not None:
            keep_statistics(before.norm, outputs[3], outputs[4])
            assign(before.range, outputs[5])
        keep_statistics(norm, outputs[9], outputs[10])
        assign(after.range, outputs[11])
        return outputs[0]


class Quantized(nn.Cell):
    """Fake quantization of a tensor as it is, or of the sum of two."""

    def __init__(self, library: str, fake_quant: nn.Cell, add: bool = False):
        super().__init__(auto_prefix=False)
        self.range, self.batches = fake_quant.range, fake_quant.batches
        self.timing = floats(fake_quant.delay, 0, fake_quant.decay)
        self.config = integers(fake_quant.observes)
        self.add = add
        (self._sum if add else self._single)(library)

    def _single(self, library: str) -> None:
        backward = operator(library, "point_backward", lambda x, dy, state: x)

        def train_bprop(x, span, batches, config, timing, out, dout):
            rest = zeros(span), zeros(batches), zeros(config), zeros(timing)
            return backward(x, dout[0], out[2]), *rest

        def infer_bprop(x, span, out, dout):
            return backward(x, dout[0], out[1]), zeros(span)

        self.train = operator(library, "point_train", lambda x, r, b, c, t: (x, r, _STATE), 3, train_bprop)
        self.infer = operator(library, "point_infer", lambda x, r: (x, _STATE), 2, infer_bprop)

    def _sum(self, library: str) -> None:
        backward = operator(library, "point_add_backward", lambda x, summand, dy, state: x)

        def train_bprop(x, summand, span, batches, config, timing, out, dout):
            dx = backward(x, summand, dout[0], out[2])
            return dx, dx, zeros(span), zeros(batches), zeros(config), zeros(timing)

        def infer_bprop(x, summand, span, out, dout):
            dx = backward(x, summand, dout[0], out[1])
            return dx, dx, zeros(span)

        self.train = operator(library, "point_add_train", lambda x, s, r, b, c, t: (x, r, _STATE), 3, train_bprop)
        self.infer = operator(library, "point_add_infer", lambda x, s, r: (x, _STATE), 2, infer_bprop)

    def construct(self, x, summand=None):
        values = (x, summand) if self.add else (x,)
        if not self.training:
            return self.infer(*values, self.range)[0]
        outputs = self.train(*values, self.range, self.batches, self.config, self.timing)
        assign(self.range, outputs[1])
        return outputs[0]


class QuantizedJoin(nn.Cell):
    """Batch norm and fake quantization, then the fake-quantized sum with the shortcut."""

    def __init__(self, library: str, norm: QuantizedNormAct, fake_quant: nn.Cell):
        super().__init__(auto_prefix=False)
        self.norm = norm
        self.sum = Quantized(library, fake_quant, add=True)

    def construct(self, x, shortcut):
        return self.sum(shortcut, self.norm(x))


class WeightQuantizer(nn.Cell):
    """``quantize_weight`` to 7 or 8 bits; the gradient is its owner's."""

    def __init__(self, library: str, bits: int):
        super().__init__(auto_prefix=False)
        self.quantize = operator(library, "quantize_weight_7" if bits == 7 else "quantize_weight", lambda w: w)

    def construct(self, weight):
        return self.quantize(weight)
