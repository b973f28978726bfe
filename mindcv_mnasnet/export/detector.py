"""Detectors' checkpoints by MindSpore, and how far an exported file's answers are from theirs."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np

from mindcv_mnasnet.detection.boxes import overlaps
from mindcv_mnasnet.detection.network import create_detector
from mindcv_mnasnet.detection.postprocess import Detections
from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.errors import JobError
from mindcv_mnasnet.export.artifact import Artifact, filled
from mindcv_mnasnet.export.metadata import ModelMetadata
from mindcv_mnasnet.model.parameters import load_parameters
from mindcv_mnasnet.run.checkpoint import Checkpoint
from mindcv_mnasnet.train.box_evaluation import BoxStep

# Two detections of a class are the same with this overlap and this difference of their scores.
_SAME_OVERLAP, _SAME_SCORE = 0.9, 0.01


class CheckpointDetector:
    """A detector's checkpoint, run in batches of ``batch`` images as ``metadata`` prepares them."""

    def __init__(self, checkpoint: Checkpoint, metadata: ModelMetadata, ema: bool | None = None, batch: int = 8):
        runtime.start("auto")
        detector, recipe = metadata.detector_description(), metadata.own_recipe()
        assert detector is not None
        model = create_detector(detector, kernels=recipe.kernels)
        load_parameters(model.get_parameters(), checkpoint.weights(ema), str(checkpoint.path))
        self._step, self._batch = BoxStep(model, metadata.mean, metadata.std), batch

    def outputs(self, images: np.ndarray) -> list[np.ndarray]:
        """Logits (N, anchors, slots) and codes (N, anchors, 4) of uint8 images (N, H, W, C)."""
        parts = [self._step(ms.Tensor(part)) for part in filled(images, self._batch)]
        return [np.concatenate([one.asnumpy() for one in found])[: len(images)] for found in zip(*parts, strict=True)]


def compare(checkpoint: Checkpoint, artifact: Artifact, images: np.ndarray, ema: bool | None) -> tuple[float, float]:
    """How an exported file's answers differ from the checkpoint's on uint8 images (N, H, W, C).

    Returns:
        The largest difference of a logit or a code, in standard deviations of the checkpoint's, and the percentage of
        anchors with the same best slot. For files that suppress overlaps: the largest difference of a score, and the
        percentage of detections that both have.
    Raises:
        JobError: neither finds anything, which proves nothing.
    """
    metadata = artifact.metadata
    expected = CheckpointDetector(checkpoint, metadata, ema).outputs(images)
    if not metadata.suppresses:
        got = artifact.outputs(images)
        pairs = list(zip(expected, got, strict=True))
        difference = max(float(np.abs(one - other).max() / max(float(one.std()), 1e-12)) for one, other in pairs)
        return difference, float((got[0].argmax(2) == expected[0].argmax(2)).mean() * 100)
    post = metadata.post_process()
    wanted = [post(*answer) for answer in zip(*expected, strict=True)]
    return _agreement(wanted, artifact.detections(images, post), metadata)


def _agreement(
    wanted: Sequence[Detections], found: Sequence[Detections], metadata: ModelMetadata
) -> tuple[float, float]:
    total = sum(max(len(one), len(other)) for one, other in zip(wanted, found, strict=True))
    if total == 0:
        least = metadata.own_recipe().min_score
        raise JobError(
            f"nothing is found in {len(wanted)} images above a score of {least}: there is nothing to compare"
        )
    differences = []
    for one, other in zip(wanted, found, strict=True):
        apart = np.abs(one.scores[:, None] - other.scores[None])
        same = (one.classes[:, None] == other.classes[None]) & (overlaps(one.corners, other.corners) >= _SAME_OVERLAP)
        nearest = np.where(same, apart, np.inf).min(1, initial=np.inf)
        differences += nearest[nearest <= _SAME_SCORE].tolist()
    return max(differences, default=0.0), 100 * len(differences) / total
