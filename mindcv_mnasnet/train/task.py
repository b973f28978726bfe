"""What a network is trained for: data, network, evaluation and score of each task. All else is the same for both.

The loss, and what a compiled step sums up, is the task's ``objective``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mindcv_mnasnet.data.augment import check_supported
from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.pipeline import Preparation
from mindcv_mnasnet.data.sets import open_train_val
from mindcv_mnasnet.detection import data as boxes
from mindcv_mnasnet.detection.matching import TARGET_COLUMNS
from mindcv_mnasnet.detection.network import create_detector, start_detector
from mindcv_mnasnet.devices.runtime import Runtime
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.mnasnet import MnasNet
from mindcv_mnasnet.model.parameters import start_from
from mindcv_mnasnet.model.quantization import Quantization
from mindcv_mnasnet.networks.cost import Cost, detector_cost, network_cost
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.run.checkpoint import Checkpoint
from mindcv_mnasnet.train.box_evaluation import BoxEvaluator
from mindcv_mnasnet.train.evaluation import Evaluator


class Measured(Protocol):
    """What an evaluation found on ``seen`` images."""

    @property
    def seen(self) -> int: ...

    def metrics(self) -> dict[str, Any]:
        """Numbers by name; accuracies and precisions in percent."""


class Evaluates(Protocol):
    """A network compiled once for evaluation, whose weights can be changed.

    ``skipped``: broken images of the last evaluation, over all ranks.
    """

    skipped: int

    def load(self, weights: Mapping[str, np.ndarray], origin: str = ...) -> None: ...

    def answer(self, images: np.ndarray) -> Any:
        """What the network says to uint8 images (N, H, W, C)."""

    def run(self, image_index: Any, plan: Plan) -> Measured: ...


class Task(Protocol):
    """One kind of answer. ``headline`` names the metrics that runs are summed up in; the first is their score."""

    @property
    def headline(self) -> tuple[str, ...]: ...

    def check(self, recipe: Recipe) -> None:
        """Refuse what a recipe asks for and this task cannot do."""

    def open_train_val(
        self, recipe: Recipe, class_names: Sequence[str] | None
    ) -> tuple[ImageIndex, ImageIndex | None]: ...

    def preparation(self, recipe: Recipe, network: Network) -> Preparation: ...

    def create(self, recipe: Recipe, network: Network, quantization: Quantization | None) -> MnasNet: ...

    def start_from(self, model: Any, checkpoint: Checkpoint, new_head: bool) -> str:
        """Set a network's parameters from a checkpoint; a sentence on what was taken."""

    def evaluator(self, recipe: Recipe, network: Network, machine: Runtime) -> Evaluates: ...

    def cost(self, recipe: Recipe, network: Network) -> Cost: ...

    def no_labels(self, recipe: Recipe, network: Network) -> np.ndarray:
        """What the step takes as labels of a batch, in shape and type, with nothing in it."""

    def meta(self, recipe: Recipe, network: Network, train: Any) -> dict[str, Any]:
        """What a checkpoint says of itself beyond recipe, network and class names."""


class Classification:
    """One class for each image."""

    headline = ("top1", "top5")

    def check(self, recipe: Recipe) -> None:
        check_supported(recipe)

    def open_train_val(self, recipe: Recipe, class_names: Sequence[str] | None) -> tuple[ImageIndex, ImageIndex | None]:
        return open_train_val(recipe, class_names)

    def preparation(self, recipe: Recipe, network: Network) -> Preparation:
        return Preparation.for_classes(recipe)

    def create(self, recipe: Recipe, network: Network, quantization: Quantization | None) -> MnasNet:
        return create_model(network, seed=recipe.seed, quantization=quantization, kernels=recipe.kernels)

    def start_from(self, model: Any, checkpoint: Checkpoint, new_head: bool) -> str:
        checkpoint.require_classifier("task: classify")
        return start_from(model, checkpoint, new_head)

    def evaluator(self, recipe: Recipe, network: Network, machine: Runtime) -> Evaluates:
        return Evaluator(network, recipe, machine)

    def cost(self, recipe: Recipe, network: Network) -> Cost:
        return network_cost(network)

    def no_labels(self, recipe: Recipe, network: Network) -> np.ndarray:
        return np.zeros(recipe.batch_size, np.int32)

    def meta(self, recipe: Recipe, network: Network, train: Any) -> dict[str, Any]:
        return {}


class Detection:
    """Boxes with classes."""

    headline = ("ap", "ap50")

    def check(self, recipe: Recipe) -> None:
        check_supported(recipe)

    def open_train_val(self, recipe: Recipe, class_names: Sequence[str] | None) -> tuple[ImageIndex, ImageIndex | None]:
        return boxes.open_train_val(recipe, class_names)

    def preparation(self, recipe: Recipe, network: Network) -> Preparation:
        return boxes.preparation(recipe, recipe.detector(network))

    def create(self, recipe: Recipe, network: Network, quantization: Quantization | None) -> MnasNet:
        return create_detector(
            recipe.detector(network), seed=recipe.seed, class_loss=recipe.class_loss, kernels=recipe.kernels
        )

    def start_from(self, model: Any, checkpoint: Checkpoint, new_head: bool) -> str:
        return start_detector(model, checkpoint, new_head)

    def evaluator(self, recipe: Recipe, network: Network, machine: Runtime) -> Evaluates:
        return BoxEvaluator(recipe.detector(network), recipe, machine)

    def cost(self, recipe: Recipe, network: Network) -> Cost:
        return detector_cost(recipe.detector(network))

    def no_labels(self, recipe: Recipe, network: Network) -> np.ndarray:
        anchors = recipe.detector(network).anchor_count(recipe.image_resize)
        return np.zeros((recipe.batch_size, anchors, TARGET_COLUMNS), np.float32)

    def meta(self, recipe: Recipe, network: Network, train: Any) -> dict[str, Any]:
        return {"detector": recipe.detector(network).to_dict(), "category_ids": list(train.category_ids)}


def task_of(recipe: Recipe) -> Task:
    """The task that a recipe names."""
    return Detection() if recipe.task == "detect" else Classification()
