"""Files of networks with random weights, to be timed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from mindcv_mnasnet.export.folded import Folded
from mindcv_mnasnet.networks.network import Network


def write_model(network: Network, path: Path, batch: int) -> Path:
    """An exported file of a network with random weights, whose cost is that of any weights; by the suffix of ``path``.

    Raises:
        UserError: an extra is missing.
    """
    from mindcv_mnasnet.export.folded import fold
    from mindcv_mnasnet.export.metadata import ModelMetadata

    tensors = random_tensors(network)
    if path.suffix == ".mindir":
        from mindcv_mnasnet.export.mindir import write_mindir

        write_mindir(tensors, path, ModelMetadata.blank(network, batch))
        return path
    return write_folded(fold(network, tensors), path, batch)


def write_folded(folded: Folded, path: Path, batch: int) -> Path:
    """A folded network, or a part of one, as ONNX or TFLite file."""
    from mindcv_mnasnet.export.metadata import ModelMetadata

    metadata = ModelMetadata.blank(folded.network, batch)
    if path.suffix == ".tflite":
        from mindcv_mnasnet.export.tflite import write_tflite

        write_tflite(folded, path, metadata)
    else:
        from mindcv_mnasnet.export.onnx_writer import write_onnx

        write_onnx(folded, path, metadata)
    return path


def random_tensors(network: Network) -> dict[str, np.ndarray]:
    """Tensors by name under which activations neither vanish nor grow: denormal numbers would be slow."""
    from mindcv_mnasnet.weights.name_maps import shapes

    rng = np.random.default_rng(0)
    found = {}
    for name, shape in shapes(network).items():
        if name.endswith(("gamma", "moving_variance")):
            found[name] = np.ones(shape, np.float32)
        elif len(shape) == 1:
            found[name] = np.zeros(shape, np.float32)
        else:
            scale = np.float32((2 / math.prod(shape[1:])) ** 0.5)
            found[name] = rng.standard_normal(shape, np.float32) * scale
    return found
