"""A network and steps small enough to compile in a second or two, with batches to feed them."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np

from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.networks.network import Network, resolve
from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe
from mindcv_mnasnet.train.random_inputs import RandomLayout, draw_inputs
from mindcv_mnasnet.train.step import TrainStep

SIZE, CLASSES, BATCH = 16, 6, 4
BLOCKS = "r1_k3_s22_e1_o8_noskip r1_k3_s11_e3_o8_se0.25"


def network(**overrides: Any) -> Network:
    """Two blocks, the last with a shortcut; 16 pixels, 6 classes, no dropout."""
    values = {"blocks": BLOCKS, "stem": 8, "head": 16, "num_classes": CLASSES, "image_size": SIZE, "dropout": 0.0}
    return resolve(None, **{**values, **overrides})


def recipe(**keys: Any) -> Recipe:
    """A recipe whose step does nothing but plain SGD at the rate given to ``train_step``."""
    return load_recipe(overrides={"opt": "sgd", "momentum": 0.0, "weight_decay": 0.0, "image_resize": SIZE, **keys})


def layout(keys: Recipe, model: Any) -> RandomLayout:
    """The random inputs that a step of ``keys`` needs."""
    return RandomLayout(SIZE, model.random_columns, keys.mixup, keys.cutmix, keys.cutmix_prob, keys.re_prob)


def train_step(rate: float | np.ndarray = 0.1, net: Network | None = None, seed: int = 0, **keys: Any) -> TrainStep:
    """A step over a new tiny model, ready to train."""
    chosen = recipe(**keys)
    model = create_model(net or network(), seed=seed)
    model.set_train()
    rates = np.full(64, rate, np.float32) if np.isscalar(rate) else np.asarray(rate, np.float32)
    return TrainStep(chosen, model, layout(chosen, model), rates)


def batch(seed: int = 0, size: int = BATCH, side: int = SIZE, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Random images uint8 (size, side, side, channels) and labels int32 (size,)."""
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, 256, (size, side, side, channels), np.uint8),
        rng.integers(0, CLASSES, size).astype(np.int32),
    )


def run(step: Any, images: np.ndarray, labels: np.ndarray, number: int = 0) -> float:
    """Take a step on one batch, with the random inputs of step ``number`` where the step needs some."""
    shape = step.backward.layout
    random_inputs = ms.Tensor(draw_inputs(shape, len(images), 7, number, 0)) if shape.columns else None
    return float(step(ms.Tensor(images), ms.Tensor(labels), random_inputs).asnumpy())


def trained(step: TrainStep) -> dict[str, np.ndarray]:
    """Copies of the weights that the step trains, by name."""
    return values(step.backward.weights)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tensor(array: np.ndarray) -> ms.Tensor:
    """A float32 tensor."""
    return ms.Tensor(array.astype(np.float32))


def values(parameters: Any) -> dict[str, np.ndarray]:
    """Copies of parameters by name."""
    return {parameter.name: parameter.asnumpy().copy() for parameter in parameters}
