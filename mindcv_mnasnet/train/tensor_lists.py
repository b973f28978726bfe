"""What compiled steps do to many tensors alike, one after another or joined into one row.

MindSpore compiles Python loops over tensors many times more slowly than ``for_each``, and NPUs pay for every launch: a
row of all gradients is scaled, clipped, reduced over the ranks and applied in a few operators.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.ops.auto_generate import SplitWithSize

for_each = ops.HyperMap()
_CHUNK = 64  # MindSpore's compiler recurses over the sizes of a split and gives up from about 200 on


def zeros_like(prefix: str, parameters: Sequence[ms.Parameter]) -> ms.ParameterTuple:
    """A float32 parameter of zeros for each, named ``<prefix>.<its name>``, that no gradient moves."""
    return ms.ParameterTuple(
        ms.Parameter(ms.Tensor(np.zeros(p.shape, np.float32)), f"{prefix}.{p.name}", False) for p in parameters
    )


class TensorList(nn.Cell):
    """Parameters as a step computes with them: tuples with one tensor for each, or ``by_row`` with one row for all.

    With ``mirrored`` a parameter ``row`` holds between steps what they hold, and is read in their place. A graph that
    reads a parameter before and after it changes copies it every time.
    """

    def __init__(self, parameters: Sequence[ms.Parameter], by_row: bool, mirrored: bool = False):
        super().__init__(auto_prefix=False)
        self.parameters = ms.ParameterTuple(parameters)
        self.by_row = by_row
        sizes = [parameter.size for parameter in parameters]
        self.total = sum(sizes)
        self.chunks = tuple(tuple(sizes[i : i + _CHUNK]) for i in range(0, len(sizes), _CHUNK))
        self.chunk_sizes = tuple(sum(chunk) for chunk in self.chunks)
        self.row: Any = ms.Parameter(self._joined(), f"row_of.{parameters[0].name}", False) if mirrored else None

    def _joined(self) -> ms.Tensor:
        return ms.Tensor(np.concatenate([parameter.asnumpy().reshape(-1) for parameter in self.parameters]))

    def follow(self) -> None:
        """Let the mirror hold what the parameters hold now, after they were set from outside of the step."""
        if self.row is not None:
            self.row.set_data(self._joined())

    def join(self, tensors):
        """Tensors that are shaped like the parameters, as a tuple of the list's layout."""
        return (ops.Concat()(for_each(_flatten, tensors)),) if self.by_row else tensors

    def values(self):
        """What the parameters hold now."""
        return self.join(self.parameters)

    def split(self, row):
        """The pieces of a row, one flat tensor for each parameter."""
        if len(self.chunks) == 1:
            return SplitWithSize()(row, self.chunks[0], 0)
        pieces = ()
        chunks = SplitWithSize()(row, self.chunk_sizes, 0)
        for index in range(len(self.chunks)):
            pieces = pieces + SplitWithSize()(chunks[index], self.chunks[index], 0)
        return pieces

    def construct(self, row):
        """Set all parameters from a row."""
        for_each(_assign_shaped, self.parameters, self.split(row))
        return row


class Kept:
    """What a step keeps for each of many parameters; ``parameters`` holds it in the layout of a ``TensorList``.

    Outside of the compiled step it is a tensor for each of them in either layout, named ``<prefix>.<its name>``.

    Args:
        start: what all its numbers are at first; None stands for the values of the parameters.
    """

    def __init__(self, prefix: str, like: Sequence[ms.Parameter], start: float | None, by_row: bool):
        self._shapes = {f"{prefix}.{p.name}": tuple(p.shape) for p in like}
        arrays = [p.asnumpy().copy() if start is None else np.full(p.shape, start, np.float32) for p in like]
        if by_row:
            name = f"{prefix}.row_of.{like[0].name}"
            parameters = [ms.Parameter(ms.Tensor(np.concatenate([a.reshape(-1) for a in arrays])), name, False)]
        else:
            named = zip(self._shapes, arrays, strict=True)
            parameters = [ms.Parameter(ms.Tensor(array), name, False) for name, array in named]
        self._by_row = by_row
        self.parameters = ms.ParameterTuple(parameters)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor by name."""
        return self._shapes

    def tensors(self) -> dict[str, np.ndarray]:
        """A copy of each tensor by name."""
        if not self._by_row:
            return {parameter.name: parameter.asnumpy().copy() for parameter in self.parameters}
        sizes = [int(np.prod(shape)) for shape in self._shapes.values()]
        pieces = np.split(self.parameters[0].asnumpy().copy(), np.cumsum(sizes)[:-1])
        return {n: piece.reshape(self._shapes[n]) for n, piece in zip(self._shapes, pieces, strict=True)}

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Take the values of tensors by name; those of others stay aside."""
        arrays = [np.asarray(tensors[name], np.float32) for name in self._shapes]
        if self._by_row:
            arrays = [np.concatenate([array.reshape(-1) for array in arrays])]
        for parameter, array in zip(self.parameters, arrays, strict=True):
            parameter.set_data(ms.Tensor(np.array(array, order="C")))


def all_finite(tensors):
    """Whether no tensor has an infinity or a NaN; a bool scalar."""
    if len(tensors) == 1:
        return _is_finite(tensors[0])
    return ops.stack(for_each(_is_finite, tensors)).all()


def clip(gradients, limit):
    """Scale all gradients so that their joint norm is at most ``limit``."""
    total = ops.stack(for_each(_squares, gradients)).sum()
    factor = ops.minimum(limit / (ops.sqrt(total) + 1e-6), ms.Tensor(1.0, ms.float32))
    return for_each(ops.partial(ops.Mul(), factor), gradients)


def _flatten(tensor):
    return ops.Reshape()(tensor, (-1,))


def _assign_shaped(parameter, values):
    return ops.Assign()(parameter, ops.Reshape()(values, parameter.shape))


def _is_finite(tensor):
    return ops.ReduceAll()(ops.IsFinite()(tensor))


def _squares(gradient):
    return ops.ReduceSum()(ops.Square()(gradient))
