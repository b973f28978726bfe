"""Images with boxes by name, before any is opened."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.detection.coco import Annotations


@dataclass(frozen=True)
class Truth:
    """What is known of an image: its size in pixels, corners (N, 4) as shares of it, classes (N,) from 1."""

    width: int
    height: int
    corners: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True, eq=False)
class DetectionIndex(ImageIndex):
    """Images with an annotation file; ``labels`` are numbers of its images, or in training each one's ``Truth``."""

    annotations: Annotations | None = None

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The file's id of each class."""
        assert self.annotations is not None
        return self.annotations.category_ids

    def label_digest(self) -> str:
        """SHA-256 (hex) of the boxes of its images, with their sizes, categories and crowds."""
        assert self.annotations is not None
        own = frozenset(self.paths)
        rows = sorted(
            [
                image.file_name,
                *(image.width, image.height),
                sorted([b.category, b.left, b.top, b.width, b.height, b.crowd] for b in image.boxes),
            ]
            for image in self.annotations.images
            if image.file_name in own
        )
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
