"""The evaluator that trains a supernet once and ranks candidates by it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.pipeline import sound_batches
from mindcv_mnasnet.data.sets import open_train_val
from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe
from mindcv_mnasnet.run.progress import duration
from mindcv_mnasnet.search.candidates import Candidate
from mindcv_mnasnet.search.pools import Result
from mindcv_mnasnet.search.proxy import held_out_recipe
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.space import Space
from mindcv_mnasnet.search.supernet.choices import Choices
from mindcv_mnasnet.search.supernet.network import SuperNetwork
from mindcv_mnasnet.search.supernet.ranking import Ranker
from mindcv_mnasnet.search.supernet.training import SuperTrainer, SuperTraining

CALIBRATION_BATCHES = 8
_PAD_SHARE = 8  # random crops move by up to an eighth of the side


class SupernetEvaluator:
    """Accuracy of candidates with the weights of one supernet, ``supernet.safetensors`` in the search's folder.

    The supernet trains on the recipe's training images less ``held_out`` of them, as large as ``proxy`` says, with
    the recipe's rate, decay, smoothing and batch; of its augmentation, crops and mirror images.
    """

    immediate = False

    def __init__(self, settings: Settings, space: Space, folder: Path):
        self._settings, self._stopped = settings, False
        recipe = self._recipe = load_recipe(overrides=settings.rung_keys(0))
        runtime.start(recipe.device_target)
        self._space, self._path = space, folder / "supernet.safetensors"
        self._supernet = open_supernet(settings, recipe, space)
        self._ranker: Ranker | None = None

    def prepare(self) -> Ranker | None:
        """Train the supernet, or go on with the one that is there; then what ranks by it, or None after ``stop``."""
        settings, recipe = self._settings, self._recipe
        train, held_out = open_train_val(held_out_recipe(recipe, settings.held_out, self._path.parent))
        assert held_out is not None  # the recipe has a val_fraction
        (images, labels), (others, known) = _in_memory(train, recipe), _in_memory(held_out, recipe)
        batches = _Batches(images, labels, recipe.batch_size, recipe.hflip > 0, settings.seed)
        training = SuperTraining(
            epochs=settings.supernet_epochs,
            lr=recipe.lr,
            warmup_epochs=recipe.warmup_epochs,
            weight_decay=recipe.weight_decay,
            label_smoothing=recipe.label_smoothing,
            sandwich=settings.supernet_sandwich,
            seed=settings.seed,
        )
        mean, std = recipe.pixel_statistics()
        trainer = SuperTrainer(self._supernet, batches.of, training, mean, std, self._path, resume=self._path.is_file())
        began = time.monotonic()

        def tell(epoch: int, loss: float) -> None:
            nonlocal began
            seconds, began = time.monotonic() - began, time.monotonic()
            print(
                f"supernet: epoch {epoch}/{training.epochs}, loss {loss:.4f}, {len(images) / seconds:.0f} images/s, "
                f"{duration(seconds * (training.epochs - epoch))} left",
                flush=True,
            )

        print(f"supernet: {training.epochs} epochs of {len(images):,} images", flush=True)
        if len(trainer.run(tell, lambda: self._stopped)) < training.epochs:
            return None
        calibration = [some for some, _ in batches.of(training.epochs)][:CALIBRATION_BATCHES]
        return Ranker(self._supernet, mean, std, calibration, others, known)

    def run(self, candidates: Iterable[Candidate | None]) -> Iterator[tuple[int, Result]]:
        """See ``evaluators.Evaluator``; references, which are not in the space, are failures."""
        if self._ranker is None:
            self._ranker = self.prepare()
        for candidate in filter(None, candidates):
            if self._stopped or self._ranker is None:
                return
            if not candidate.tokens:
                yield candidate.number, Result("failed", "a supernet ranks networks of its space only")
                continue
            began = time.monotonic()
            accuracy = self._ranker.accuracy(self._space.network(candidate.tokens, **_fields(self._recipe)))
            yield candidate.number, Result("ok", "", accuracy, time.monotonic() - began)

    def stop(self) -> None:
        """See ``evaluators.Evaluator``."""
        self._stopped = True

    def close(self) -> None:
        """See ``evaluators.Evaluator``."""


def open_supernet(settings: Settings, recipe: Recipe, space: Space) -> SuperNetwork:
    """The supernet of a space, with new weights, for images as ``recipe`` has them."""
    return SuperNetwork(Choices.of_space(space, **_fields(recipe)), seed=settings.seed, kernels=recipe.kernels)


def _fields(recipe: Recipe) -> dict[str, Any]:
    return {"image_size": recipe.image_resize, "dropout": 0.0, "drop_connect": 0.0}


def time_steps(settings: Settings, space: Space, seconds: float) -> tuple[float, float]:
    """Images per second of steps on random images, for so many seconds, and the seconds before the second step."""
    began = time.monotonic()
    recipe = load_recipe(overrides=settings.rung_keys(0))
    runtime.start(recipe.device_target)
    supernet = open_supernet(settings, recipe, space)
    rng = np.random.default_rng(settings.seed)
    shape = (recipe.batch_size, recipe.image_resize, recipe.image_resize, supernet.choices.base.in_channels)
    images, labels = rng.integers(0, 256, shape, np.uint8), np.zeros(recipe.batch_size, np.int32)
    first: list[float] = []

    class Repeated:
        """One batch over and over, until the time is up."""

        def __len__(self) -> int:
            return 1_000_000

        def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            while not first or time.monotonic() - first[0] < seconds:
                yield images, labels
                first.append(time.monotonic())

    training = SuperTraining(2, sandwich=settings.supernet_sandwich, seed=settings.seed)
    SuperTrainer(supernet, lambda _: Repeated(), training, *recipe.pixel_statistics())._epoch(0)
    return len(first[1:]) * recipe.batch_size / (first[-1] - first[0]), first[0] - began


class _Batches:
    """An epoch's batches of images in memory: shuffled, cropped and mirrored by the seed and the epoch's number."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, batch: int, flip: bool, seed: int, epoch: int = 0):
        self._images, self._labels, self._batch, self._flip = images, labels, batch, flip
        self._seed, self._epoch = seed, epoch

    def of(self, epoch: int) -> _Batches:
        """Those of an epoch."""
        return _Batches(self._images, self._labels, self._batch, self._flip, self._seed, epoch)

    def __len__(self) -> int:
        return len(self._images) // self._batch

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        order = rng.permutation(len(self._images))
        for number in range(len(self)):
            chosen = order[number * self._batch :][: self._batch]
            yield augment(self._images[chosen], rng, self._flip), self._labels[chosen]


def augment(images: np.ndarray, rng: np.random.Generator, flip: bool) -> np.ndarray:
    """Random crops of uint8 images (N, H, W, C) with a black rim, and mirror images of half of them."""
    side = images.shape[1]
    pad = max(1, side // _PAD_SHARE)
    wide = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    places = rng.integers(0, 2 * pad + 1, (len(images), 2))
    cut = np.stack([w[y : y + side, x : x + side] for w, (y, x) in zip(wide, places, strict=True)])
    if flip:
        turned = rng.random(len(images)) < 0.5
        cut[turned] = cut[turned, :, ::-1]
    return np.ascontiguousarray(cut)


def _in_memory(image_index: ImageIndex, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """All images of an image index as the recipe evaluates them, uint8 (N, H, W, C), and their labels, int32 (N,)."""
    images, labels = zip(*sound_batches(image_index, recipe), strict=True)
    return np.concatenate(images), np.concatenate(labels).astype(np.int32)
