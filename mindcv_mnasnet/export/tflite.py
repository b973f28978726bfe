"""TFLite files: the folded network in TensorFlow's operators, converted by TensorFlow Lite."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.export.folded import Conv, Folded, FoldedDetector
from mindcv_mnasnet.export.metadata import KEY, ModelMetadata
from mindcv_mnasnet.networks.network import Layer
from mindcv_mnasnet.weights.tensorflow import load_tensorflow

LABELS = "labels.txt"
_NOTHING = 1e-6
Ranges = Mapping[str, tuple[float, float]]


def write_tflite(
    folded: Folded | FoldedDetector,
    path: Path,
    metadata: ModelMetadata,
    calibration: Iterable[np.ndarray] = (),
    ranges: Ranges | None = None,
) -> None:
    """Write a TFLite file of the kind that the metadata says; the metadata and the class names are appended as a zip.

    int8 means int8 weights per output channel and int8 activations throughout. With raw pixels its input and output are
    uint8 (the output has a scale), otherwise float, quantized on entry. fp16 and dynamic (int8 weights, float
    activations) give float logits.

    Args:
        calibration: batches of uint8 images (n, H, W, C), over which int8 observes activations.
        ranges: least and most value by the name of an activation, which overrule what is observed.
    Raises:
        UserError: the extra ``tensorflow`` is not installed.
    """
    tf = load_tensorflow()
    network = metadata.network_description()
    raw = metadata.input == "uint8"
    shape = [metadata.batch, network.image_size, network.image_size, network.in_channels]
    calibration = list(calibration)
    chosen: Ranges = {}
    if isinstance(folded, FoldedDetector):
        from mindcv_mnasnet.export.tflite_detector import detector_function

        build = detector_function(Graph(tf, {}), folded, metadata)
    else:
        if metadata.quantization == "int8":
            chosen = dict(ranges or {})
            chosen |= Graph(tf, chosen).silent(folded, metadata, calibration)
        build = Graph(tf, chosen).function(folded, metadata)
    taken = tf.uint8 if raw and metadata.quantization != "int8" else tf.float32
    function = tf.function(build, input_signature=[tf.TensorSpec(shape, taken)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], tf.Module())
    converter.allow_custom_ops = metadata.suppresses
    if metadata.quantization is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if metadata.quantization == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if metadata.quantization == "int8":
        converter.representative_dataset = _examples(metadata, calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if raw:
            converter.inference_input_type = converter.inference_output_type = tf.uint8
    path.write_bytes(converter.convert())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{KEY}.json", metadata.to_json())
        archive.writestr(LABELS, "\n".join(metadata.class_names))


def _examples(metadata: ModelMetadata, calibration: Iterable[np.ndarray]) -> Callable[[], Iterator[list[np.ndarray]]]:
    def examples() -> Iterator[list[np.ndarray]]:
        for images in calibration:
            for image in images.astype(np.float32):
                x = (
                    image
                    if metadata.input == "uint8"
                    else (image - np.asarray(metadata.mean)) / np.asarray(metadata.std)
                )
                yield [np.repeat(x[None].astype(np.float32), metadata.batch or 1, 0)]

    return examples


class Graph:
    """A folded network in TensorFlow's operators; ``points`` are its activations by name."""

    def __init__(self, tf: Any, ranges: Ranges):
        self.tf, self._ranges = tf, ranges
        self._seen: dict[str, float] | None = None
        self.points: dict[str, Any] = {}

    def silent(self, folded: Folded, metadata: ModelMetadata, calibration: Iterable[np.ndarray]) -> Ranges:
        """Ranges for activations that are zero in all of the images: runtimes refuse the scale that this would be."""
        self._seen = {}
        function = self.function(folded, replace(metadata, quantization=None))
        for example in _examples(metadata, calibration)():
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

    def features(self, x: Any, folded: Folded) -> Any:
        """Stem, blocks and head, as far as there are any."""
        if folded.stem is not None:
            x = self.conv(x, folded.stem)
        for block in folded.blocks:
            shortcut = x
            if block.expand is not None:
                x = self.conv(x, block.expand)
            x = self.conv(x, block.spatial)
            if block.reduce is not None and block.expand_gate is not None:
                gates = self.tf.reduce_mean(x, (1, 2), keepdims=True)
                gates = self.conv(self.conv(gates, block.reduce), block.expand_gate)
                x = self._point(f"{block.name}.se", x * gates)
            if block.project is not None:
                x = self.conv(x, block.project)
            if block.layer.residual:
                x = self._point(block.name, x + self._shortcut(shortcut, block.layer))
        return x if folded.head is None else self.conv(x, folded.head)

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
