"""TFLite files: the folded network in TensorFlow's operators, converted by TensorFlow Lite."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mindcv_mnasnet.export.folded import Folded, FoldedDetector
from mindcv_mnasnet.export.metadata import KEY, ModelMetadata
from mindcv_mnasnet.export.tflite_detector import detector_function
from mindcv_mnasnet.export.tflite_graph import Graph, Ranges, examples
from mindcv_mnasnet.files import utf8
from mindcv_mnasnet.weights.tensorflow import load_tensorflow

LABELS = "labels.txt"


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
        converter.representative_dataset = examples(metadata, calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if raw:
            converter.inference_input_type = converter.inference_output_type = tf.uint8
    path.write_bytes(converter.convert())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{KEY}.json", metadata.to_json())
        archive.writestr(LABELS, utf8("\n".join(metadata.class_names)))
