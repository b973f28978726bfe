"""8-bit ONNX files: weights per channel, activations by their ranges over the user's images or by trained ranges."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
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
) -> None:
    """Write the int8 version (QDQ nodes, int8 weights per output channel, uint8 activations) of a float ONNX file.

    Args:
        calibration: batches of uint8 images (n, H, W, C), over which activations are observed.
        ranges: least and most value by the name of an activation, which overrule what is observed.
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
        _quantize(quantization, source, path, _Reader(artifact, calibration, model.graph.input[0].name), overrides)
    finally:
        logging.disable(logging.NOTSET)
    quantized = onnx.load(str(path))
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(model.metadata_props)  # the library drops them
    onnx.save_model(quantized, str(path))


def _quantize(quantization: Any, source: Path, path: Path, reader: _Reader, overrides: dict[str, Any]) -> None:
    quantization.quantize_static(
        str(source),
        str(path),
        reader,
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        extra_options={"TensorQuantOverrides": overrides} if overrides else {},
    )


def _parameters(low: float, high: float) -> dict[str, Any]:
    """Scale and zero point of uint8 for a range, as training with fake quantization has them (zero is exact)."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-8) / 255
    return {"scale": np.array(scale, np.float32), "zero_point": np.array(round(-low / scale), np.uint8)}


class _Reader:
    """Feeds the calibration batches as ONNX Runtime's CalibrationDataReader does."""

    def __init__(self, artifact: Artifact, batches: Iterable[np.ndarray], name: str):
        self._name = name
        size = artifact.batch or 0
        self._inputs = (
            artifact.prepare(part)
            for images in batches
            for part in (np.array_split(images, max(1, len(images) // size)) if size else [images])
            if not size or len(part) == size
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input, or None at the end."""
        x = next(self._inputs, None)
        return None if x is None else {self._name: x}
