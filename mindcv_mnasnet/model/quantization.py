"""The layers that networks are built of: plain ones, and those that train as a network of 8-bit integers computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mindspore as ms
import numpy as np
from mindspore import nn

from mindcv_mnasnet.model.fake_quant import (
    BatchCounter,
    FakeQuant,
    FreezingBatchNorm2d,
    QuantizedConv2d,
    QuantizedDense,
)
from mindcv_mnasnet.recipe.training_keys import OptimizerKeys

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
        return BatchCounter(self._batches)

    def rename_parameters(self) -> None:
        """Undo the prefixes that cells give to what is in them, so that names do not tell where a cell is."""
        self._batches.name = "quantization.batches"
        for name, fake_quant in self._fake_quants.items():
            fake_quant.range.name = f"ranges.{name}"
