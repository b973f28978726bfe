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

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.recipe.training_keys import OptimizerKeys

LEVELS = 255  # steps between the ends of an activation's range
#: Steps from zero to the largest weight, by bits; with 7, processors without VNNI add exactly (ONNX Runtime).
WEIGHT_LEVELS = {7: 64, 8: 127}
RANGE_DECAY = 0.99  # of observed ranges per batch; TensorFlow's 0.999 is meant for runs of many 10,000 steps
TINY = 1e-8  # the least width of a range; a scale of zero would divide by zero
#: The range of a sigmoid, by which TensorFlow Lite fixes its output: 256 steps of 1/256 from 0.
GATES = (0.0, 255 / 256)
#: Where the names of the parameters begin that only a quantized network has.
PREFIXES = ("ranges.", "quantization.")


@dataclass(frozen=True)
class Quantization:
    """When parts of fake quantization begin; evaluation always has all of it.

    In the first ``delay`` batches of training activations pass as they are while their ranges are observed; after
    ``freeze`` batches batch norms use their moving statistics, which then no longer change.
    """

    delay: int = 0
    freeze: int = 0
    weight_bits: int = 7

    @classmethod
    def of(cls, recipe: OptimizerKeys, batches_per_epoch: int = 0) -> Quantization | None:
        """What a recipe asks for; None where it is not to be quantized."""
        if not recipe.quantize:
            return None
        epochs = recipe.quant_delay_epochs, recipe.bn_freeze_epochs
        delay, freeze = (round(number * batches_per_epoch) for number in epochs)
        return cls(delay, freeze, recipe.quant_weight_bits)


class LayerFactory:
    """The layers that a network is built of: MindSpore's own."""

    conv: Callable[..., nn.Conv2d] = nn.Conv2d
    dense: Callable[..., nn.Dense] = nn.Dense

    def norm(self, width: int, eps: float, momentum: float) -> nn.Cell:
        """A batch norm; ``momentum`` is the share of the old statistics."""
        return nn.BatchNorm2d(width, eps=eps, momentum=momentum)

    def fake_quant(self, name: str, positive: bool = False, fixed: tuple[float, float] | None = None) -> nn.Cell | None:
        """What quantizes the activation of that name, or nothing."""
        return None

    def batch_counter(self) -> nn.Cell | None:
        """What counts the batches of training, or nothing."""
        return None

    def rename_parameters(self) -> None:
        """Called when all cells are in their places."""


FLOAT = LayerFactory()


class QuantizedLayerFactory(LayerFactory):
    """Their fake-quantized kinds, for one network."""

    def __init__(self, quantization: Quantization):
        self.conv = partial(QuantizedConv2d, weight_bits=quantization.weight_bits)
        self.dense = partial(QuantizedDense, weight_bits=quantization.weight_bits)
        self._quantization = quantization
        self._batches = ms.Parameter(ms.Tensor(np.zeros(1, np.float32)), "batches", False)
        self._fake_quants: dict[str, FakeQuant] = {}

    def norm(self, width: int, eps: float, momentum: float) -> nn.Cell:
        return FreezingBatchNorm2d(width, eps, momentum, self._batches, self._quantization.freeze)

    def fake_quant(self, name: str, positive: bool = False, fixed: tuple[float, float] | None = None) -> nn.Cell | None:
        fake_quant = FakeQuant(self._batches, self._quantization.delay, positive, fixed)
        self._fake_quants[name] = fake_quant
        return fake_quant

    def batch_counter(self) -> nn.Cell | None:
        return Clock(self._batches)

    def rename_parameters(self) -> None:
        """Undo the prefixes that cells give to what is in them, so that names do not tell where a cell is."""
        self._batches.name = "quantization.batches"
        for name, fake_quant in self._fake_quants.items():
            fake_quant.range.name = f"ranges.{name}"


class Clock(nn.Cell):
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


UNBOUNDED = 1e38  # beyond any activation
