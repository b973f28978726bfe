"""8-bit ONNX files: weights per channel, activations by their ranges over the user's images or by trained ranges.

Without VNNI (and on no ARM processor), ONNX Runtime adds pairs of uint8 x int8 products in 16 bits, which saturate.
Weights from -64 to 64 cannot, and are the default.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.errors import require_extra
from mindcv_mnasnet.export.artifact import Artifact
from mindcv_mnasnet.export.onnx_runtime import OnnxSession


def quantize_onnx(
    source: Path,
    path: Path,
    calibration: Iterable[np.ndarray],
    ranges: Mapping[str, tuple[float, float]] | None = None,
    weight_bits: int = 7,
) -> None:
    """Write the int8 version (QDQ nodes, int8 weights per output channel, uint8 activations) of a float ONNX file.

    Args:
        calibration: batches of uint8 images (n, H, W, C), over which activations are observed.
        ranges: least and most value by the name of an activation, which overrule what is observed.
        weight_bits: 7 is exact everywhere; 8 is for processors with VNNI, and ARM.
    Raises:
        UserError: the extra ``onnx`` is not installed.
    """
    quantization = require_extra("onnxruntime.quantization", "onnx")
    artifact = Artifact(source, OnnxSession(source))
    onnx = require_extra("onnx", "onnx")
    model = onnx.load(str(source))
    tensors = {name for node in model.graph.node for name in (*node.input, *node.output)}
    overrides = {name: [_parameters(*bounds)] for name, bounds in (ranges or {}).items() if name in tensors}
    logging.disable(
        logging.WARNING
    )  # it recommends a preparation that this graph does not need: nothing is left to fold
    try:
        _quantize(
            quantization,
            source,
            path,
            _Reader(artifact, calibration, model.graph.input[0].name),
            overrides,
            weight_bits,
        )
    finally:
        logging.disable(logging.NOTSET)
    quantized = onnx.load(str(path))
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(model.metadata_props)  # the library drops them
    onnx.save_model(quantized, str(path))


def _quantize(
    quantization: Any, source: Path, path: Path, reader: _Reader, overrides: dict[str, Any], weight_bits: int
) -> None:
    quantization.quantize_static(
        str(source),
        str(path),
        reader,
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        reduce_range=weight_bits == 7,
        extra_options={"TensorQuantOverrides": overrides} if overrides else {},
    )


def _parameters(low: float, high: float) -> dict[str, Any]:
    """Scale and zero point of uint8 for a range, as training with fake quantization has them (zero is exact)."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-8) / 255
    return {"scale": np.array(scale, np.float32), "zero_point": np.array(round(-low / scale), np.uint8)}


def in_batches(batches: Iterable[np.ndarray], size: int | None) -> Iterator[np.ndarray]:
    """The images in batches of exactly ``size`` (None: as they come), the last one filled with the first ones."""
    if size is None:
        yield from batches
        return
    images = np.concatenate(list(batches))
    for start in range(0, len(images), size):
        part = images[start : start + size]
        yield np.concatenate([part, np.resize(images, (size - len(part), *images.shape[1:]))])


class _Reader:
    """Feeds the calibration batches as ONNX Runtime's CalibrationDataReader does."""

    def __init__(self, artifact: Artifact, batches: Iterable[np.ndarray], name: str):
        self._name = name
        self._inputs = (artifact.prepare(part) for part in in_batches(batches, artifact.batch))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input, or None at the end."""
        x = next(self._inputs, None)
        return None if x is None else {self._name: x}
