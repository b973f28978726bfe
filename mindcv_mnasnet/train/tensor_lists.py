"""What compiled steps do to many tensors alike. MindSpore compiles loops over tensors many times more slowly."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import ops

for_each = ops.HyperMap()


def zeros_like(prefix: str, parameters: Sequence[ms.Parameter]) -> ms.ParameterTuple:
    """A float32 parameter of zeros for each, named ``<prefix>.<its name>``, that no gradient moves."""
    return ms.ParameterTuple(
        ms.Parameter(ms.Tensor(np.zeros(p.shape, np.float32)), f"{prefix}.{p.name}", False) for p in parameters
    )


def flat(parameters):
    """All values in one row."""
    return ops.cat(for_each(_flat_one, parameters))


def _flat_one(parameter):
    return ops.Reshape()(parameter, (-1,))


def set_flat(parameters, values):
    """Take back what ``flat`` gave."""
    sizes = tuple([parameter.size for parameter in parameters])
    for_each(_set_one, parameters, ops.split(values, sizes))


def _set_one(parameter, values):
    return ops.Assign()(parameter, ops.Reshape()(values, parameter.shape))


def all_finite(tensors):
    """Whether no tensor has an infinity or a NaN; a bool scalar."""
    return ops.stack(for_each(_is_finite, tensors)).all()


def _is_finite(tensor):
    return ops.ReduceAll()(ops.IsFinite()(tensor))


def clip(gradients, limit):
    """Scale all gradients so that their joint norm is at most ``limit``."""
    total = ops.stack(for_each(_squares, gradients)).sum()
    factor = ops.minimum(limit / (ops.sqrt(total) + 1e-6), ms.Tensor(1.0, ms.float32))
    return for_each(ops.partial(ops.Mul(), factor), gradients)


def _squares(gradient):
    return ops.ReduceSum()(ops.Square()(gradient))
