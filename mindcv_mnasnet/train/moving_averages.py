"""Moving averages (EMA) of a model's parameters inside the compiled step."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mindcv_mnasnet.model.quantization import PREFIXES
from mindcv_mnasnet.train.tensor_lists import Kept, TensorList, for_each


class MovingAverages(nn.Cell):
    """Averages that every step moves to the parameters by a share of the way, one tensor after another.

    Ranges of activations average over batches already and are copied. ``states`` hold the averages.
    """

    def __init__(self, parameters: Sequence[ms.Parameter]):
        super().__init__(auto_prefix=False)
        self.smoothed = ms.ParameterTuple(p for p in parameters if not p.name.startswith(PREFIXES))
        self.copied = ms.ParameterTuple(p for p in parameters if p.name.startswith(PREFIXES))
        self.states = [Kept("ema", one, None, by_row=False) for one in (self.smoothed, self.copied)]
        self.averages, self.copies = (state.parameters for state in self.states)

    def construct(self, share, weights, statistics):
        for_each(ops.partial(_approach, share), self.averages, self.smoothed)
        if len(self.copied) > 0:
            for_each(ops.Assign(), self.copies, self.copied)
        return share


class RowAverages(nn.Cell):
    """The same in one row, from rows of the weights and of the statistics that the step has at hand."""

    def __init__(self, parameters: Sequence[ms.Parameter], trained: TensorList, statistics: TensorList | None):
        super().__init__(auto_prefix=False)
        changing = [*trained.parameters, *(() if statistics is None else statistics.parameters)]
        names = {parameter.name for parameter in changing}
        fixed = [parameter for parameter in parameters if parameter.name not in names]
        self.fixed = TensorList(fixed, by_row=True) if fixed else None
        ordered = [*changing, *fixed]
        self.states = [Kept("ema", ordered, None, by_row=True)]
        self.averages = self.states[0].parameters[0]
        copied = np.repeat([p.name.startswith(PREFIXES) for p in ordered], [p.size for p in ordered])
        self.copied = ms.Parameter(ms.Tensor(copied), "copied", False) if copied.any() else None

    def construct(self, share, weights, statistics):
        parts = (weights,) if statistics is None else (weights, statistics)
        if self.fixed is not None:
            parts = parts + self.fixed.values()
        values = ops.Concat()(parts)
        averages = ops.Add()(self.averages, ops.Mul()(share, ops.Sub()(values, self.averages)))
        if self.copied is not None:
            averages = ops.where(self.copied, values, averages)
        return ops.assign(self.averages, averages)


def _approach(share, average, value):
    """Move ``average`` towards ``value`` by a share of the way."""
    return ops.AssignAdd()(average, ops.Mul()(share, ops.Sub()(value, average)))
