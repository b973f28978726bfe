"""Lets the layers of a network use the operators of ``kernels``, beside the cells that they stand for."""

from __future__ import annotations

from mindspore import nn

from mindcv_mnasnet.kernels.cells import KERNEL_SIZES, Depthwise, Gating, NormAct
from mindcv_mnasnet.kernels.quantized_cells import (
    Quantized,
    QuantizedDepthwise,
    QuantizedJoin,
    QuantizedNormAct,
    WeightQuantizer,
)
from mindcv_mnasnet.model.fake_quant import FakeQuant, QuantizeWeight
from mindcv_mnasnet.model.layers import ConvBN, MBConv


def accelerate(model: nn.Cell, library: str) -> None:
    """Let a ``MnasNet`` use the operators of ``library``, in training, frozen and for inference."""
    units = [model.stem, *([] if model.features_only else [model.head])]
    for block in model.blocks:
        every = (block.expand, block.depthwise, block.spatial, block.project)
        units += [unit for unit in every if unit is not None]
    for unit in units:
        put(unit, "fused", _fused(library, unit))
    for block in model.blocks:
        _accelerate_block(library, block)
    for _, cell in list(model.cells_and_names()):
        if isinstance(cell, FakeQuant):
            put(cell, "fused", Quantized(library, cell))
        elif isinstance(cell, QuantizeWeight):
            put(cell, "fused", WeightQuantizer(library, cell.bits))


def put(parent: nn.Cell, name: str, child: nn.Cell) -> None:
    """Set a cell that shares parameters, which assigning would rename."""
    delattr(parent, name)
    parent.insert_child_to_cell(name, child)


def _fused(library: str, unit: ConvBN) -> nn.Cell:
    if unit.fake_quant is None:
        return NormAct(library, unit.bn, relu=unit.relu is not None)
    return QuantizedNormAct(library, unit.bn, unit.fake_quant, unit.relu is not None)


def _accelerate_block(library: str, block: MBConv) -> None:
    if block.depthwise is not None and block.depthwise.conv.kernel_size[0] in KERNEL_SIZES:
        if block.depthwise.fake_quant is None:
            before = None if block.expand is None else block.expand.bn
            put(block, "middle", Depthwise(library, block.depthwise.conv, before, block.depthwise.bn))
        else:
            before = None if block.expand is None else block.expand.fused
            put(block, "middle", QuantizedDepthwise(library, block.depthwise.conv, before, block.depthwise.fused))
    if block.residual and block.shortcut is None and block.project is not None:
        if block.fake_quant is None:
            put(block, "join", NormAct(library, block.project.bn, add=True))
        else:
            put(block, "join", QuantizedJoin(library, block.project.fused, block.fake_quant))
    if block.se is not None:
        put(block.se, "gating", Gating(library))
