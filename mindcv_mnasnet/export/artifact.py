"""Exported files opened with their own runtime: uint8 images in, logits or detections out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from mindcv_mnasnet.detection.postprocess import Detections, PostProcess
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.export.metadata import ModelMetadata

#: Suffixes of exported files and the runtimes that run them.
SUFFIXES = {".onnx": "onnxruntime", ".tflite": "litert", ".mindir": "mindspore"}


class Session(Protocol):
    """A file loaded by its runtime."""

    metadata: ModelMetadata
    channels_last: bool

    def run(self, x: np.ndarray) -> list[np.ndarray]:
        """The file's outputs, float32, for input as it takes it."""


class Artifact:
    """An exported file that classifies images, or finds objects in them."""

    def __init__(self, path: Path, session: Session):
        self.path, self._session = path, session
        self.metadata, self.batch = session.metadata, session.metadata.batch
        self.kind = path.suffix[1:].lower()
        self.runtime = SUFFIXES[path.suffix.lower()]

    def run_raw(self, x: np.ndarray) -> list[np.ndarray]:
        """Outputs for input exactly as the file takes it (``prepare``), of ``batch`` images."""
        return self._session.run(x)

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """What the file takes for uint8 images (N, H, W, C): themselves, or normalized and transposed."""
        if self.metadata.input == "uint8":
            return images
        x = (images.astype(np.float32) - np.asarray(self.metadata.mean, np.float32)) / np.asarray(
            self.metadata.std, np.float32
        )
        return x if self._session.channels_last else np.ascontiguousarray(x.transpose(0, 3, 1, 2))

    def logits(self, images: np.ndarray) -> np.ndarray:
        """A classifier's float32 logits (N, classes) of uint8 images (N, H, W, C), N as it comes.

        Raises:
            UserError: the images have another size than the file takes.
        """
        return self.outputs(images)[0]

    def outputs(self, images: np.ndarray) -> list[np.ndarray]:
        """All outputs for uint8 images (N, H, W, C); a raw detector's are logits (N, anchors, slots) and codes.

        Raises:
            UserError: as in ``logits``.
        """
        network = self.metadata.network_description()
        expected = (network.image_size, network.image_size, network.in_channels)
        if images.shape[1:] != expected:
            raise UserError(f"{self.path} takes images of shape {expected}, not {images.shape[1:]}")
        if self.batch is None:
            return self.run_raw(self.prepare(images))
        parts = [self.run_raw(self.prepare(part)) for part in filled(images, self.batch)]
        return [np.concatenate(one)[: len(images)] for one in zip(*parts, strict=True)]

    def detections(self, images: np.ndarray, post: PostProcess) -> list[Detections]:
        """What a detector finds in uint8 images (N, H, W, C); ``post`` is for files that do not suppress themselves."""
        if not self.metadata.suppresses:
            return [post(*answer) for answer in zip(*self.outputs(images), strict=True)]
        return [_suppressed(*self.outputs(image[None])) for image in images]


def _suppressed(
    boxes: np.ndarray, classes: np.ndarray, scores: np.ndarray, count: np.ndarray | None = None
) -> Detections:
    """Detections from the outputs of TFLite's post-processing: boxes (1, K, 4) are (top, left, bottom, right)."""
    found = len(scores[0]) if count is None else round(float(count.item()))
    corners = np.clip(boxes[0, :found, [1, 0, 3, 2]].T, 0, 1)
    return Detections(corners, scores[0, :found], np.rint(classes[0, :found]).astype(np.int64))


def filled(images: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """Batches of exactly ``batch`` images; the last one is filled with zeros."""
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        missing = batch - len(part)
        yield np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part


def open_artifact(path: str | Path, threads: int | None = None) -> Artifact:
    """Load an exported file; ``threads`` None leaves their number to the runtime.

    Raises:
        UserError: no such file, a damaged one, one that this project did not export, or a runtime that is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no exported model {path}")
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        from mindcv_mnasnet.export.onnx_runtime import OnnxSession

        return Artifact(path, OnnxSession(path, threads))
    if suffix == ".tflite":
        from mindcv_mnasnet.export.litert_runtime import LiteRTSession

        return Artifact(path, LiteRTSession(path, threads))
    if suffix == ".mindir":
        from mindcv_mnasnet.export.mindspore_runtime import MindIRSession

        return Artifact(path, MindIRSession(path, threads))
    raise UserError(f"{path} is no exported model; they end in {', '.join(SUFFIXES)}")
