"""ONNX files, written straight from the folded network, so that they hold nothing but the operators they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.errors import require_extra
from mindcv_mnasnet.export.folded import Folded, FoldedDetector
from mindcv_mnasnet.export.metadata import ModelMetadata
from mindcv_mnasnet.export.onnx_detector import add_detector
from mindcv_mnasnet.export.onnx_graph import Graph


def onnx_model(folded: Folded | FoldedDetector, metadata: ModelMetadata) -> Any:
    """An ``onnx.ModelProto`` for images as the metadata says.

    Activation tensors carry the names of the points of quantization: ``stem``, ``blocks.3.expand``, ...
    """
    graph = Graph(require_extra("onnx", "onnx"), metadata)
    if isinstance(folded, FoldedDetector):
        add_detector(graph, folded)
        return graph.model()
    x = graph.features(graph.entered(folded.network), folded)
    if folded.head is None:  # a part of a network
        graph.leave(x, [None, None, None])
    else:
        x = graph.add("Flatten", [graph.mean(x, "pool")], "features", axis=1)
        weights = [graph.constant(f"classifier.{key}", value) for key, value in _classifier(folded).items()]
        graph.leave(graph.add("Gemm", [x, *weights], "logits", transB=1), [folded.network.num_classes])
    return graph.model()


def _classifier(folded: Folded) -> dict[str, np.ndarray]:
    return {"weight": folded.classifier_weight, "bias": folded.classifier_bias}


def write_onnx(folded: Folded | FoldedDetector, path: Path, metadata: ModelMetadata) -> None:
    """Write a float32 ONNX file; see ``onnx_model``.

    Raises:
        UserError: the extra ``onnx`` is not installed.
    """
    require_extra("onnx", "onnx").save_model(onnx_model(folded, metadata), str(path))
