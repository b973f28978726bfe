"""COCO's numbers, by faster_coco_eval: an evaluator of one's own would be one more thing to doubt."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mindcv_mnasnet.detection.coco import Annotations
from mindcv_mnasnet.detection.postprocess import Detections
from mindcv_mnasnet.errors import require_extra

#: COCO's twelve numbers in its order: average precision, then average recall; of all sizes unless said.
NAMES = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)


@dataclass(frozen=True)
class Scores:
    """COCO's numbers as shares, -1 where there is nothing to find; ``ap50_of`` by class name, NaN in that case."""

    numbers: tuple[float, ...]
    ap50_of: dict[str, float]

    def __getitem__(self, name: str) -> float:
        return self.numbers[NAMES.index(name)]

    def to_dict(self) -> dict[str, Any]:
        """All numbers by name."""
        return {**dict(zip(NAMES, self.numbers, strict=True)), "ap50_of": self.ap50_of}


def results(annotations: Annotations, image: int, found: Detections) -> list[dict[str, Any]]:
    """Detections in image number ``image`` of a file, as COCO's results files have them: pixels, original ids."""
    own = annotations.images[image]
    corners = found.corners * np.tile([own.width, own.height], 2)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    ids = annotations.category_ids
    return [
        {"image_id": own.id, "category_id": ids[kind], "bbox": box, "score": score}
        for kind, box, score in zip(found.classes.tolist(), boxes.tolist(), found.scores.tolist(), strict=True)
    ]


def evaluate(annotations: Annotations, detections: Sequence[dict[str, Any]]) -> Scores:
    """COCO's numbers of results for all images of a file.

    Raises:
        UserError: the evaluator is not installed.
    """
    module = require_extra("faster_coco_eval", "detection")
    truth = module.COCO()
    truth.dataset = _as_coco(annotations)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        if detections:
            found = truth.loadRes([dict(one) for one in detections])
        else:
            found = module.COCO()
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluator = module.COCOeval_faster(truth, found, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    precision = np.asarray(evaluator.eval["precision"])[0, :, :, 0, -1]  # IoU 0.5, all sizes, up to 100
    places = {category: place for place, category in enumerate(evaluator.params.catIds)}
    ap50_of = {}
    for category, name in annotations.categories:
        own = precision[:, places[category]]
        own = own[own > -1]
        ap50_of[name] = float(own.mean()) if len(own) else float("nan")
    return Scores(tuple(float(value) for value in evaluator.stats[: len(NAMES)]), ap50_of)


def _as_coco(annotations: Annotations) -> dict[str, Any]:
    images = [
        {"id": one.id, "file_name": one.file_name, "width": one.width, "height": one.height}
        for one in annotations.images
    ]
    boxes: list[dict[str, Any]] = []
    found = ((image, box) for image in annotations.images for box in image.boxes)
    for number, (image, box) in enumerate(found, 1):  # not the file's ids: evaluators take 0 for "not matched"
        one = {
            "id": number,
            "image_id": image.id,
            "category_id": box.category,
            "bbox": [box.left, box.top, box.width, box.height],
            "area": box.area,
            "iscrowd": int(box.crowd),
        }
        boxes.append(one)
    return {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": number, "name": name} for number, name in annotations.categories],
    }
