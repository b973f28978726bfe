"""Class names for images, and features, by a checkpoint or an exported file; prepared exactly as in validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.inference.image_paths import sound_paths
from mindcv_mnasnet.inference.opened import OpenedModel, open_model
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.mnasnet import MnasNet
from mindcv_mnasnet.model.parameters import load_parameters
from mindcv_mnasnet.train.evaluation import Evaluator
from mindcv_mnasnet.train.preprocess import Preprocess
from mindcv_mnasnet.weights.labels import class_title


@dataclass(frozen=True)
class Prediction:
    """The best classes of one image, best first, with probabilities (softmax of the logits)."""

    path: str
    classes: tuple[str, ...]
    titles: tuple[str, ...]
    probabilities: tuple[float, ...]


class Classifier:
    """A checkpoint or exported file that answers images; open it with ``open_classifier``."""

    def __init__(self, opened: OpenedModel):
        self.opened, self.checkpoint, self.recipe = opened, opened.checkpoint, opened.recipe
        self.class_names = self.checkpoint.class_names
        self.network = replace(self.checkpoint.network, image_size=self.recipe.image_resize)
        if len(self.class_names) != self.network.num_classes:
            raise UserError(
                f"{self.checkpoint.path} names {len(self.class_names)} classes and answers "
                f"{self.network.num_classes}; convert it again with --class_names"
            )
        self._machine = runtime.start("auto")
        self._evaluator: Evaluator | None = None

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Float32 logits (N, classes) of uint8 images (N, H, W, C) of the network's size."""
        if self.opened.artifact is not None:
            return self.opened.artifact.logits(images)
        if self._evaluator is None:
            self._evaluator = Evaluator(self.network, self.recipe, self._machine)
            self._evaluator.load(self.checkpoint.weights(self.opened.ema), str(self.checkpoint.path))
        return self._evaluator.answer(images)

    def predict(self, images: str | Path | Sequence[str | Path], top: int = 5) -> list[Prediction]:
        """The ``top`` best classes of every image, in the order of the paths.

        Args:
            images: files, folders (all images below them) or glob patterns.
        Raises:
            UserError: a name that stands for nothing, or a ``top`` below 1.
            JobError: an image that cannot be decoded.
        """
        if top < 1:
            raise UserError(f"top: {top} classes are impossible; it is 1 or more")
        return [one for some, _ in self.predictions(sound_paths(images), top) for one in some]

    def predictions(self, paths: Sequence[str], top: int) -> Iterator[tuple[list[Prediction], np.ndarray]]:
        """Predictions batch by batch, each with its images as the network sees them, uint8 (N, H, W, C).

        Raises:
            JobError: logits that are not finite.
        """
        for numbers, images in self.opened.batches(paths):
            pairs = zip(numbers, self.logits(images), strict=True)
            yield [best_classes(self, paths[number], logits, top) for number, logits in pairs], images

    def features(self, maps: bool) -> Callable[[np.ndarray], list[np.ndarray]]:
        """A function of uint8 images (N, H, W, C): [(N, head width)] pooled, or all feature maps, finest first.

        Raises:
            UserError: an exported file, which gives logits alone.
        """
        if self.opened.artifact is not None:
            path = self.opened.artifact.path
            raise UserError(f"features: {path} gives logits alone; take the checkpoint it was made from")
        model = create_model(self.network, features_only=maps, kernels=self.recipe.kernels)
        weights = self.checkpoint.weights(self.opened.ema)
        wanted = {parameter.name for parameter in model.get_parameters()}
        known = {name: value for name, value in weights.items() if name in wanted} if maps else weights
        load_parameters(model.get_parameters(), known, str(self.checkpoint.path))
        cell = _Features(model, *self.recipe.pixel_statistics()).set_train(False)

        def extract(images: np.ndarray) -> list[np.ndarray]:
            return [found.asnumpy() for found in cell(ms.Tensor(images))]

        return extract


class _Features(nn.Cell):
    def __init__(self, model: MnasNet, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__(auto_prefix=False)
        self.preprocess, self.model = Preprocess(mean, std), model

    def construct(self, images):
        x = self.preprocess(images)
        if self.model.features_only:
            return self.model(x)
        x = self.model.stem(x)
        for block in self.model.blocks:
            x = block(x)
        return (ops.mean(self.model.head(x), (2, 3)),)


def open_classifier(
    name: str,
    backend: str | None = None,
    ema: bool | None = None,
    batch_size: int | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> Classifier:
    """A classifier from a checkpoint, a run folder, an exported file, or another library's .pth or .ckpt.

    Args:
        backend: runtime for checkpoints: mindspore (the default), onnxruntime or litert.
        ema: averaged or raw weights; None takes averaged ones where they are.
        batch_size: images at once; None as in the recipe.
        evaluation: recipe keys on how images are prepared (``recipe.evaluation.EVALUATION_KEYS``), in place of its own.
    Raises:
        UserError: no such file, a damaged one, several, a missing extra, or what an exported file cannot do any more.
    """
    opened = open_model(name, backend, ema, batch_size, evaluation)
    if opened.checkpoint.detector is not None:
        raise UserError(f"{opened.checkpoint.path} is a detector; open_detector opens it")
    return Classifier(opened)


def best_classes(classifier: Classifier, path: str, logits: np.ndarray, top: int) -> Prediction:
    """The ``top`` best classes for one image's logits (classes,).

    Raises:
        JobError: they are not finite.
    """
    if not np.isfinite(logits).all():
        raise JobError(f"{path}: {classifier.checkpoint.path} gives logits that are not finite for it")
    exponents = np.exp(logits.astype(np.float64) - logits.max())
    shares = exponents / exponents.sum()
    order = np.argsort(-shares, kind="stable")[:top]
    names = tuple(classifier.class_names[index] for index in order)
    return Prediction(path, names, tuple(map(class_title, names)), tuple(float(shares[index]) for index in order))
