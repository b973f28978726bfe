"""MindIR files, and AIR ones on Ascend, written by MindSpore from the compiled network."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from mindcv_mnasnet.detection.network import create_detector
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.export.metadata import ModelMetadata
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.parameters import load_parameters
from mindcv_mnasnet.train.preprocess import FromPixels

METADATA_SUFFIX = ".json"


def write_mindir(tensors: Mapping[str, np.ndarray], path: Path, metadata: ModelMetadata, form: str = "MINDIR") -> None:
    """Export to ``path``, and the metadata beside it (``path`` + .json): MindIR keeps no words of one's own.

    Raises:
        UserError: an open number of images, which these formats do not have; or AIR away from an Ascend device.
    """
    if form == "AIR" and ms.get_context("device_target") != "Ascend":
        raise UserError("format: air is written on Ascend devices only; mindir serves every device")
    if metadata.batch is None:
        raise UserError("dynamic_batch: MindIR and AIR take a fixed number of images; say it with --batch")
    batch = metadata.batch
    network = metadata.network_description()
    detector = metadata.detector_description()
    model = create_model(network, kernels=False) if detector is None else create_detector(detector, kernels=False)
    load_parameters(model.get_parameters(), tensors, str(path))
    size, channels = network.image_size, network.in_channels
    cell: nn.Cell = model
    example = np.zeros((batch, channels, size, size), np.float32)
    if metadata.input == "uint8":
        cell = FromPixels(model, metadata.mean, metadata.std)
        example = np.zeros((batch, size, size, channels), np.uint8)
    cell.set_train(False)
    with tempfile.TemporaryDirectory(prefix="export-") as folder:  # MindSpore refuses names with blanks and the like
        written = Path(folder) / f"network.{form.lower()}"
        ms.export(cell, ms.Tensor(example), file_name=str(written), file_format=form)
        shutil.move(written, path)
    path.chmod(0o644)  # MindSpore makes it unreadable for others
    path.with_name(path.name + METADATA_SUFFIX).write_text(metadata.to_json(), encoding="utf-8")
