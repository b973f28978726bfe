"""ONNX files, written straight from the folded network, so that they hold nothing but the operators they need."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.errors import require_extra
from mindcv_mnasnet.export.folded import Block, Conv, Folded
from mindcv_mnasnet.export.metadata import KEY, ModelMetadata

#: ReduceMean takes its axes as an input from 18 on; ONNX Runtime 1.18, the oldest allowed, knows up to 21.
OPSET = 18
IR_VERSION = 10  # of ONNX 1.16, the oldest allowed; newer ones would be refused by ONNX Runtime 1.18


def onnx_model(folded: Folded, metadata: ModelMetadata) -> Any:
    """An ``onnx.ModelProto`` for images as the metadata says.

    Activation tensors carry the names of the points of quantization: ``stem``, ``blocks.3.expand``, ...
    """
    onnx = require_extra("onnx", "onnx")
    graph = _Graph(onnx)
    network = folded.network
    size, channels = network.image_size, network.in_channels
    axes: list[str | int] = ["batch" if metadata.batch is None else metadata.batch]
    if metadata.input == "uint8":
        entry = graph.value("image", onnx.TensorProto.UINT8, [*axes, size, size, channels])
        x = graph.normalized("image", metadata)
    else:
        entry = graph.value("input", onnx.TensorProto.FLOAT, [*axes, channels, size, size])
        x = "input"
    if folded.stem is not None:
        x = graph.conv(x, folded.stem)
    for block in folded.blocks:
        shortcut = x
        if block.expand is not None:
            x = graph.conv(x, block.expand)
        x = graph.conv(x, block.spatial)
        if block.reduce is not None and block.expand_gate is not None:
            gates = graph.conv(graph.mean(x, f"{block.name}.se.pool"), block.reduce)
            x = graph.add("Mul", [x, graph.conv(gates, block.expand_gate)], f"{block.name}.se")
        if block.project is not None:
            x = graph.conv(x, block.project)
        if block.layer.residual:
            x = graph.add("Add", [x, graph.shortcut(shortcut, block)], block.name)
    if folded.head is None:  # a part of a network
        leave = graph.value(x, onnx.TensorProto.FLOAT, [*axes, None, None, None])
    else:
        x = graph.conv(x, folded.head)
        x = graph.add("Flatten", [graph.mean(x, "pool")], "features", axis=1)
        weights = [graph.constant(f"classifier.{key}", value) for key, value in _classifier(folded).items()]
        graph.add("Gemm", [x, *weights], "logits", transB=1)
        leave = graph.value("logits", onnx.TensorProto.FLOAT, [*axes, network.num_classes])
    body = onnx.helper.make_graph(graph.nodes, "mnasnet", [entry], [leave], graph.constants)
    model = onnx.helper.make_model(
        body,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="mindcv_mnasnet",
    )
    onnx.helper.set_model_props(model, {KEY: metadata.to_json(), "names": "\n".join(metadata.class_names)})
    onnx.checker.check_model(model, full_check=True)
    return model


def _classifier(folded: Folded) -> dict[str, np.ndarray]:
    return {"weight": folded.classifier_weight, "bias": folded.classifier_bias}


class _Graph:
    """Nodes and constants of a graph under construction; every method returns the name of the tensor that it adds."""

    def __init__(self, onnx: Any):
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def value(self, name: str, kind: int, shape: Iterable[str | int | None]) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, kind, list(shape))

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def conv(self, x: str, conv: Conv) -> str:
        weight = self.constant(f"{conv.name}.weight", conv.weight)
        bias = self.constant(f"{conv.name}.bias", conv.bias)
        output = conv.name if conv.activation is None else f"{conv.name}.sum"
        attributes = {
            "kernel_shape": [conv.kernel, conv.kernel],
            "strides": [conv.stride, conv.stride],
            "pads": [conv.pad[0], conv.pad[0], conv.pad[1], conv.pad[1]],
            "group": conv.groups,
        }
        x = self.add("Conv", [x, weight, bias], output, **attributes)
        return x if conv.activation is None else self.add(conv.activation.capitalize(), [x], conv.name)

    def shortcut(self, x: str, block: Block) -> str:
        """The block's input as it is added to its output."""
        layer, name = block.layer, f"{block.name}.shortcut"
        added = layer.out_width - layer.in_width
        if layer.pool and added < 0:
            bounds = [self.constant(f"{name}.{n}", np.array([v])) for n, v in (("from", 0), ("to", layer.out_width))]
            x = self.add("Slice", [x, *bounds, self.constant(f"{name}.axis", np.array([1]))], f"{name}.cut")
        if layer.pool and layer.stride > 1:  # ceil_mode: at an odd edge, the mean of the pixels there are
            x = self.add("AveragePool", [x], f"{name}.pool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
        if layer.pool and added > 0:
            x = self.add("Pad", [x, self.constant(f"{name}.pads", np.array([0, 0, 0, 0, 0, added, 0, 0]))], name)
        return x

    def mean(self, x: str, output: str) -> str:
        return self.add("GlobalAveragePool", [x], output)

    def normalized(self, image: str, metadata: ModelMetadata) -> str:
        x = self.add("Cast", [image], "image.float", to=self._onnx.TensorProto.FLOAT)
        x = self.add("Sub", [x, self.constant("mean", np.asarray(metadata.mean, np.float32))], "image.centered")
        x = self.add("Div", [x, self.constant("std", np.asarray(metadata.std, np.float32))], "image.normalized")
        return self.add("Transpose", [x], "input", perm=[0, 3, 1, 2])


def write_onnx(folded: Folded, path: Path, metadata: ModelMetadata) -> None:
    """Write a float32 ONNX file; see ``onnx_model``.

    Raises:
        UserError: the extra ``onnx`` is not installed.
    """
    require_extra("onnx", "onnx").save_model(onnx_model(folded, metadata), str(path))
