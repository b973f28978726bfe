"""Evaluation of one detector on one data set, by COCO's numbers, over any number of devices."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from mindcv_mnasnet.data.pipeline import eval_batches
from mindcv_mnasnet.detection.anchors import anchors_of
from mindcv_mnasnet.detection.data import preparation
from mindcv_mnasnet.detection.evaluation import NAMES, Scores, evaluate, results
from mindcv_mnasnet.detection.index import DetectionIndex
from mindcv_mnasnet.detection.network import SSDLite, create_detector
from mindcv_mnasnet.detection.postprocess import Detections, PostProcess
from mindcv_mnasnet.devices import runtime, simulation
from mindcv_mnasnet.devices.runtime import Runtime
from mindcv_mnasnet.errors import JobError, require_extra
from mindcv_mnasnet.model.parameters import load_parameters
from mindcv_mnasnet.networks.detector import Detector
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.train.evaluation import with_progress
from mindcv_mnasnet.train.preprocess import Preprocess

_ROW = 6  # corners, score, class of a detection where ranks bring theirs together

#: uint8 images (N, H, W, C) to what is in each of them.
Finds = Callable[[np.ndarray], Iterable[Detections]]


class BoxStep(nn.Cell):
    """uint8 images (batch, height, width, channels) -> float32 (logits, codes)."""

    def __init__(self, model: SSDLite, mean: Sequence[float], std: Sequence[float]):
        super().__init__(auto_prefix=False)
        self.preprocess, self.model = Preprocess(mean, std), model
        self.set_train(False)

    def construct(self, images):
        logits, codes = self.model(self.preprocess(images))
        return logits.astype(ms.float32), codes.astype(ms.float32)


@dataclass(frozen=True)
class BoxCounts:
    """COCO's numbers on ``seen`` images, and the detections that they are of, in COCO's results format."""

    scores: Scores
    seen: int
    detections: list[dict[str, Any]]
    skipped: int
    images_per_second: float

    @property
    def ap(self) -> float:
        """AP over IoU 0.5 to 0.95, in percent; NaN where there is nothing to find."""
        value = _percent(self.scores["ap"])
        return float("nan") if value is None else value

    def ap50_of(self) -> dict[str, float | None]:
        """AP50 by class name, in percent; None where there is nothing to find."""
        return {name: _percent(value) for name, value in self.scores.ap50_of.items()}

    def metrics(self) -> dict[str, Any]:
        """What an epoch's line in the log says: AP, AP50, AP75, and AP50 by class."""
        return {**{name: _percent(self.scores[name]) for name in ("ap", "ap50", "ap75")}, "ap50_of": self.ap50_of()}

    def to_dict(self) -> dict[str, Any]:
        """COCO's twelve numbers and AP50 by class, in percent, and the number of images."""
        numbers = {name: _percent(self.scores[name]) for name in NAMES}
        return {**numbers, "ap50_of": self.ap50_of(), "images": self.seen}


def _percent(share: float) -> float | None:
    return 100 * share if share >= 0 else None  # -1 or NaN say that there was nothing to find


class BoxEvaluator:
    """A detector compiled once for evaluation, whose weights can be changed."""

    def __init__(self, detector: Detector, recipe: Recipe, machine: Runtime):
        require_extra("faster_coco_eval", "detection")
        self._recipe, self._machine, self.detector = recipe, machine, detector
        self._model = create_detector(detector, kernels=recipe.kernels)
        if machine.device != "CPU" and recipe.val_amp_level != "O0":
            runtime.mixed_precision(self._model, recipe.val_amp_level, recipe.amp_dtype)
        self._step = BoxStep(self._model, *recipe.pixel_statistics())
        self._post = PostProcess(anchors_of(detector, recipe.image_resize), recipe)
        self.skipped = 0

    def load(self, weights: Mapping[str, np.ndarray], origin: str = "the training state") -> None:
        """Take over weights by name.

        Raises:
            UserError: they do not fit the network.
        """
        load_parameters(self._model.get_parameters(), weights, origin)

    def answer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits and codes of uint8 images (N, H, W, C)."""
        logits, codes = self._step(ms.Tensor(images))
        return logits.asnumpy(), codes.asnumpy()

    def detections(self, images: np.ndarray) -> Iterator[Detections]:
        """What is in each of uint8 images (N, H, W, C)."""
        return map(self._post, *self.answer(images))

    def run(self, image_index: DetectionIndex, plan: Plan) -> BoxCounts:
        """Evaluate on all ranks together; every rank returns the numbers of the whole data set.

        Raises:
            JobError: not every image was seen.
        """
        found = score_images(self.detections, self.detector, image_index, self._recipe, plan, self._machine)
        self.skipped = found.skipped
        return found


def score_images(
    find: Finds, detector: Detector, image_index: DetectionIndex, recipe: Recipe, plan: Plan, machine: Runtime
) -> BoxCounts:
    """Score what ``find`` finds in every image, over all ranks; the images are prepared for ``detector``.

    Raises:
        JobError: not every image was seen.
    """
    assert image_index.annotations is not None
    rank, world = machine.rank, machine.world
    batches = eval_batches(image_index, recipe, plan, rank, world, preparation(recipe, detector))
    found = np.zeros((len(image_index), recipe.max_boxes, _ROW), np.float32)
    seen = np.zeros(len(image_index), np.int32)
    began = time.perf_counter()
    for images, numbers in with_progress(batches, rank):
        for number, objects in zip(numbers.asnumpy(), find(images.asnumpy()), strict=True):
            if number >= 0:
                seen[number] = 1
                _store(found[number], objects)
    *seen, skipped = runtime.sum_over_ranks(np.append(seen, np.int32(len(batches.skipped))), world).tolist()
    found, count = runtime.sum_over_ranks(found, world), sum(seen)
    speed = count / (time.perf_counter() - began)
    if count + skipped != len(image_index) and not simulation.simulated():
        raise JobError(f"{count} of {len(image_index)} validation images were seen and {skipped} skipped")
    whole = image_index.annotations
    own = [number for number, times in enumerate(seen) if times]  # what was skipped has nothing to find, either
    detections = [one for number in own for one in results(whole, number, _stored(found[number]))]
    scores = evaluate(replace(whole, images=tuple(whole.images[number] for number in own)), detections)
    return BoxCounts(scores, count, detections, skipped, speed)


def _store(rows: np.ndarray, found: Detections) -> None:
    count = len(found)
    rows[:count, :4], rows[:count, 4], rows[:count, 5] = found.corners, found.scores, found.classes


def _stored(rows: np.ndarray) -> Detections:
    own = rows[rows[:, 4] > 0]
    return Detections(own[:, :4], own[:, 4], own[:, 5].astype(np.int64))
