"""Fake quantization: layers that train, and answer, as a network of 8-bit integers would.

Weights: int8 or 7 bits of it, symmetric, one scale per output channel. As a folded batch norm is one factor per output
channel, this is also what quantizing the folded weights gives. Activations: 8 bits with one range per tensor, which
holds zero exactly, as TensorFlow's ``fake_quant_with_min_max_vars``. Gradients pass straight through, except where a
value was cut off.
Jacob et al. 2018, https://arxiv.org/abs/1712.05877.

Nothing here branches in the graph: where it does, MindSpore 2.10 on the CPU works on copies of parameters that neither
``set_data`` nor ``asnumpy`` reaches afterwards. What starts late is chosen by arithmetic from the count of batches.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mindcv_mnasnet.devices import runtime

LEVELS = 255  # steps between the ends of an activation's range
#: Steps from zero to the largest weight, by bits; with 7, processors without VNNI add exactly (ONNX Runtime).
WEIGHT_LEVELS = {7: 64, 8: 127}
RANGE_DECAY = 0.99  # of observed ranges per batch; TensorFlow's 0.999 is meant for runs of many 10,000 steps
TINY = 1e-8  # the least width of a range; a scale of zero would divide by zero
UNBOUNDED = 1e38  # beyond any activation


class BatchCounter(nn.Cell):
    """Counts a batch, at the start of a forward pass in training."""

    def __init__(self, batches: ms.Parameter):
        super().__init__()
        self.batches = batches

    def construct(self):
        return ops.assign_add(self.batches, ops.ones_like(self.batches))


class QuantizedConv2d(nn.Conv2d):
    """``nn.Conv2d`` with fake-quantized weights."""

    def __init__(self, *args, weight_bits, **kwargs):
        super().__init__(*args, **kwargs)
        self.quantize = QuantizeWeight(weight_bits)

    def construct(self, x):
        x = self.conv2d(x, self.quantize(self.weight))
        return self.bias_add(x, self.bias) if self.has_bias else x


class QuantizedDense(nn.Dense):
    """``nn.Dense`` with fake-quantized weights."""

    def __init__(self, *args, weight_bits, **kwargs):
        super().__init__(*args, **kwargs)
        self.quantize = QuantizeWeight(weight_bits)

    def construct(self, x):
        return ops.dense(x, self.quantize(self.weight), self.bias)


class FreezingBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` that after ``freeze`` batches of training uses its moving statistics, and keeps them."""

    def __init__(self, width: int, eps: float, momentum: float, batches: ms.Parameter, freeze: int):
        super().__init__(width, eps=eps, momentum=momentum)
        self.batches, self.freeze, self.kept = batches, float(freeze), momentum
        self.reduces_slowly = runtime.current_device() == "CPU"

    def construct(self, x):
        mean, variance = self.moving_mean.value(), self.moving_variance.value()
        if self.training:
            frozen = (self.batches.value() > self.freeze).astype(ms.float32)
            own_mean = self.channel_means(x)
            own_variance = self.channel_means(ops.square(x - own_mean.reshape(1, -1, 1, 1)))
            count = x.size // x.shape[1]
            share = (1 - frozen) * (1 - self.kept)
            unbiased = ops.stop_gradient(own_variance) * (count / max(count - 1, 1))
            mean = mean + share * (ops.stop_gradient(own_mean) - mean)
            variance = variance + share * (unbiased - variance)
            ops.assign(self.moving_mean, mean)
            ops.assign(self.moving_variance, variance)
            # What is frozen has not moved; reading the values of before here would make NPUs copy them.
            mean = own_mean * (1 - frozen) + mean * frozen
            variance = own_variance * (1 - frozen) + variance * frozen
        scale = self.gamma / ops.sqrt(variance + self.eps)
        shift = self.beta - mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)

    def channel_means(self, x):
        """Mean of (N, C, H, W) per channel; on the CPU a product with ones, because reductions are slow there."""
        if not self.reduces_slowly:
            return ops.mean(x, (0, 2, 3))
        batch, width, height, length = x.shape
        sums = ops.matmul(x.reshape(batch * width, height * length), ops.ones((height * length, 1), ms.float32))
        return ops.mean(sums.reshape(batch, width), 0) / (height * length)


class FakeQuant(nn.Cell):
    """Fake-quantizes an activation by the parameter ``range`` (least, most), in training a moving average.

    The first batch sets the range. ``positive`` says that no value is below zero. A ``fixed`` range is not observed.
    """

    def __init__(self, batches: ms.Parameter, delay: int, positive: bool, fixed: tuple[float, float] | None):
        super().__init__()
        self.range = ms.Parameter(ms.Tensor(np.array(fixed or (0.0, 0.0), np.float32)), "range", False)
        self.batches, self.delay = batches, float(delay)
        self.decay = RANGE_DECAY
        self.positive, self.observes = positive, fixed is None
        self.quantize = QuantizeActivation(positive)
        self.always, self.zero = ms.Tensor(True), ms.Tensor(0.0, ms.float32)
        self.fused = None

    def construct(self, x):
        if self.fused is not None:
            return self.fused(x)
        span, on = self.range.value(), self.always
        low, high = self.zero if self.positive else span[0], span[1]
        if self.training:
            on = self.batches.value().reshape(()) > self.delay
            if self.observes:
                low, high = self.observed(ops.stop_gradient(x), low, high)
        scale = ops.maximum(high - low, TINY) / LEVELS
        zero = low
        if not self.positive:
            zero = ops.floor(ops.minimum(ops.maximum(-low / scale, 0.0), float(LEVELS)) + 0.5)
        return self.quantize(x, scale, zero, on)

    def observed(self, x, low, high):
        """The ends of the range with this batch in it."""
        unset = (high <= low).astype(ms.float32)
        share = unset + (1 - unset) * (1 - self.decay)
        high = high + share * (ops.maximum(ops.amax(x), 0.0) - high)
        if not self.positive:
            low = low + share * (ops.minimum(ops.amin(x), 0.0) - low)
        ops.assign(self.range, ops.stack([low, high]))
        return ops.stop_gradient(low), ops.stop_gradient(high)


class QuantizeWeight(nn.Cell):
    """The nearest of 255 values (``bits`` 7: 129) per output channel (axis 0), evenly from -max|w| to max|w|."""

    def __init__(self, bits: int = 7):
        super().__init__()
        self.bits, self.levels = bits, WEIGHT_LEVELS[bits]
        self.fused = None

    def construct(self, weight):
        if self.fused is not None:
            return self.fused(weight)
        axes = tuple(range(1, weight.ndim))
        scale = ops.maximum(ops.amax(ops.abs(weight), axes, True), TINY) / self.levels
        return ops.round(weight / scale) * scale

    def bprop(self, weight, out, dout):
        return (dout,)


class QuantizeActivation(nn.Cell):
    """The nearest of 256 values from -``zero`` * ``scale`` on; ``x`` itself where ``on``, a bool scalar, is False."""

    def __init__(self, positive: bool):
        super().__init__()
        self.positive = positive

    def construct(self, x, scale, zero, on):
        if self.positive:
            quantized = ops.minimum(ops.floor(x * (1 / scale) + 0.5), float(LEVELS)) * scale
        else:
            steps = ops.floor(x * (1 / scale) + (zero + 0.5))
            quantized = (ops.minimum(ops.maximum(steps, 0.0), float(LEVELS)) - zero) * scale
        return ops.where(on, quantized, x)

    def bprop(self, x, scale, zero, on, out, dout):
        off = 1 - on.astype(ms.float32)
        gradient = dout * (x <= (LEVELS - zero) * scale + off * UNBOUNDED).astype(ms.float32)
        if not self.positive:
            gradient = gradient * (x >= -zero * scale - off * UNBOUNDED).astype(ms.float32)
        return gradient, ops.zeros_like(scale), ops.zeros_like(zero), ops.zeros_like(on)
