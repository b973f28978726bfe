"""A folded network in TensorFlow's operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mindcv_mnasnet.export.folded import Block, Conv, Features, Folded
from mindcv_mnasnet.export.metadata import ModelMetadata
from mindcv_mnasnet.networks.network import Layer

_NOTHING = 1e-6
Ranges = Mapping[str, tuple[float, float]]


def examples(metadata: ModelMetadata, calibration: Iterable[np.ndarray]) -> Callable[[], Iterator[list[np.ndarray]]]:
    """A function that gives batches of calibration images one by one, as the file takes them."""

    def batches() -> Iterator[list[np.ndarray]]:
        for images in calibration:
            for image in images.astype(np.float32):
                x = (
                    image
                    if metadata.input == "uint8"
                    else (image - np.asarray(metadata.mean)) / np.asarray(metadata.std)
                )
                yield [np.repeat(x[None].astype(np.float32), metadata.batch or 1, 0)]

    return batches


class Graph(Features[Any]):
    """A folded network in TensorFlow's operators; ``points`` are its activations by name."""

    def __init__(self, tf: Any, ranges: Ranges):
        self.tf, self._ranges = tf, ranges
        self._seen: dict[str, float] | None = None
        self.points: dict[str, Any] = {}

    def silent(self, folded: Folded, metadata: ModelMetadata, calibration: Iterable[np.ndarray]) -> Ranges:
        """Ranges for activations that are zero in all of the images: runtimes refuse the scale that this would be."""
        self._seen = {}
        function = self.function(folded, replace(metadata, quantization=None))
        for example in examples(metadata, calibration)():
            function(self.tf.constant(example[0]))
        return {name: (0.0, 1.0) for name, most in self._seen.items() if most < _NOTHING}

    def function(self, folded: Folded, metadata: ModelMetadata) -> Callable[[Any], Any]:
        """The network as a function of pixels (N, H, W, C): raw ones are normalized first."""

        def logits(x: Any) -> Any:
            x = self.features(self.entered(x, metadata), folded)
            if folded.head is None:  # a part of a network
                return x
            x = self._point("pool", self.tf.reduce_mean(x, (1, 2)))
            x = self.tf.matmul(x, folded.classifier_weight.T) + folded.classifier_bias
            return self._point("logits", x)

        return logits

    def entered(self, x: Any, metadata: ModelMetadata) -> Any:
        """Normalized images from what the file takes."""
        if metadata.input == "uint8":
            if metadata.quantization == "int8":  # a step of 1 from 0, so that raw pixels are the quantized ones
                x = self.tf.quantization.fake_quant_with_min_max_args(x, 0, 255)
            x = (self.tf.cast(x, self.tf.float32) - np.asarray(metadata.mean, np.float32)) * (
                1 / np.asarray(metadata.std, np.float32)
            )
        return self._point("input", x)

    def conv(self, x: Any, conv: Conv) -> Any:
        """A convolution with its bias and activation."""
        nn = self.tf.nn
        padding = self._padding(conv, int(x.shape[1]))
        if padding == "VALID" and conv.pad != (0, 0):
            x = self.tf.pad(x, [[0, 0], list(conv.pad), list(conv.pad), [0, 0]])
        strides = [1, conv.stride, conv.stride, 1]
        if conv.depthwise:
            weight = conv.weight.transpose(2, 3, 0, 1)  # (C, 1, k, k) to (k, k, C, 1)
            x = nn.depthwise_conv2d(x, weight, strides, padding)
        else:
            x = nn.conv2d(x, conv.weight.transpose(2, 3, 1, 0), strides, padding)
        x = nn.bias_add(x, conv.bias)
        if conv.activation == "relu":
            x = nn.relu(x)
        elif conv.activation == "sigmoid":
            x = nn.sigmoid(x)
        return self._point(conv.name, x)

    def gated(self, x: Any, name: str, reduce: Conv, expand: Conv) -> Any:
        """Squeeze-and-excitation."""
        gates = self.conv(self.conv(self.tf.reduce_mean(x, (1, 2), keepdims=True), reduce), expand)
        return self._point(f"{name}.se", x * gates)

    def joined(self, x: Any, shortcut: Any, block: Block) -> Any:
        """A block's output and its input, added."""
        return self._point(block.name, x + self._shortcut(shortcut, block.layer))

    def _shortcut(self, x: Any, layer: Layer) -> Any:
        """The block's input as it is added to its output."""
        added = layer.out_width - layer.in_width
        if layer.pool and added < 0:
            x = x[..., : layer.out_width]
        if layer.pool and layer.stride > 1:  # SAME: at an odd edge, the mean of the pixels there are
            x = self.tf.nn.avg_pool2d(x, 2, 2, "SAME")
        if layer.pool and added > 0:
            x = self.tf.pad(x, [[0, 0], [0, 0], [0, 0], [0, added]])
        return x

    @staticmethod
    def _padding(conv: Conv, size: int) -> str:
        """SAME where that is this padding, which TFLite does inside the convolution; else VALID after a pad."""
        total = max((-(-size // conv.stride) - 1) * conv.stride + conv.kernel - size, 0)
        return "SAME" if conv.pad == (total // 2, total - total // 2) else "VALID"

    def _point(self, name: str, x: Any) -> Any:
        """A quantization point: its trained range, where there is one."""
        self.points[name] = x
        if self._seen is not None:
            self._seen[name] = max(self._seen.get(name, 0.0), float(self.tf.reduce_max(self.tf.abs(x))))
        if name not in self._ranges:
            return x
        low, high = min(self._ranges[name][0], 0.0), max(self._ranges[name][1], 0.0)
        return self.tf.quantization.fake_quant_with_min_max_args(x, low, max(high, low + 1e-6), num_bits=8)
