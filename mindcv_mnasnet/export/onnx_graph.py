"""An ONNX graph under construction, from a folded network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mindcv_mnasnet.export.folded import Block, Conv, Features
from mindcv_mnasnet.export.metadata import KEY, ModelMetadata
from mindcv_mnasnet.files import utf8
from mindcv_mnasnet.networks.network import Network

#: ReduceMean takes its axes as an input from 18 on; ONNX Runtime 1.18, the oldest allowed, knows up to 21.
OPSET = 18
IR_VERSION = 10  # of ONNX 1.16, the oldest allowed; newer ones would be refused by ONNX Runtime 1.18


class Graph(Features[str]):
    """Nodes and constants of a graph under construction; every method returns the name of the tensor that it adds."""

    def __init__(self, onnx: Any, metadata: ModelMetadata):
        self._onnx, self.metadata = onnx, metadata
        self._batch: str | int = "batch" if metadata.batch is None else metadata.batch
        self._entries: list[Any] = []
        self._leaves: list[Any] = []
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def entered(self, network: Network) -> str:
        """Normalized images (N, C, H, W) from what the file takes."""
        size, channels = network.image_size, network.in_channels
        raw = self.metadata.input == "uint8"
        name, kind = ("image", self._onnx.TensorProto.UINT8) if raw else ("input", self._onnx.TensorProto.FLOAT)
        shape = [self._batch, size, size, channels] if raw else [self._batch, channels, size, size]
        self._entries.append(self._onnx.helper.make_tensor_value_info(name, kind, shape))
        return self.normalized(name, self.metadata) if raw else name

    def leave(self, name: str, shape: Sequence[str | int | None]) -> None:
        """Make float32 (N, *shape) an output."""
        kind = self._onnx.TensorProto.FLOAT
        self._leaves.append(self._onnx.helper.make_tensor_value_info(name, kind, [self._batch, *shape]))

    def model(self) -> Any:
        """The whole as a checked ``onnx.ModelProto``."""
        helper = self._onnx.helper
        body = helper.make_graph(self.nodes, "mnasnet", self._entries, self._leaves, self.constants)
        model = helper.make_model(
            body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="mindcv_mnasnet"
        )
        names = utf8("\n".join(self.metadata.class_names))
        helper.set_model_props(model, {KEY: self.metadata.to_json(), "names": names})
        self._onnx.checker.check_model(model, full_check=True)
        return model

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(self._onnx.numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        return self.add_all(operator, inputs, [output], **attributes)[0]

    def add_all(self, operator: str, inputs: Sequence[str], outputs: list[str], **attributes: Any) -> list[str]:
        """An operator of several outputs."""
        self.nodes.append(self._onnx.helper.make_node(operator, list(inputs), outputs, outputs[0], **attributes))
        return outputs

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

    def gated(self, x: str, name: str, reduce: Conv, expand: Conv) -> str:
        """Squeeze-and-excitation."""
        gates = self.conv(self.mean(x, f"{name}.se.pool"), reduce)
        return self.add("Mul", [x, self.conv(gates, expand)], f"{name}.se")

    def joined(self, x: str, shortcut: str, block: Block) -> str:
        """A block's output and its input, added."""
        return self.add("Add", [x, self._shortcut(shortcut, block)], block.name)

    def _shortcut(self, x: str, block: Block) -> str:
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
