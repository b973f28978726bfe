"""What the compiled graph does to uint8 images before the network sees them: normalizing, erasing, mixing."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mindcv_mnasnet.train.random_inputs import RandomLayout


class Preprocess(nn.Cell):
    """uint8 (batch, height, width, channels) -> normalized float32 (batch, channels, height, width)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.scale = ms.Tensor(1 / np.array(std, np.float32).reshape(1, -1, 1, 1))
        self.shift = ms.Tensor(-np.array(mean, np.float32).reshape(1, -1, 1, 1) * self.scale.asnumpy())

    def construct(self, images):
        return ops.transpose(images, (0, 3, 1, 2)).astype(ms.float32) * self.scale + self.shift


class FromPixels(nn.Cell):
    """A network behind its normalization: uint8 (batch, height, width, channels) -> what ``model`` answers.

    Further arguments are handed on to ``model``; names of parameters are the model's own.
    """

    def __init__(self, model: nn.Cell, mean: Sequence[float], std: Sequence[float]):
        super().__init__(auto_prefix=False)
        self.preprocess, self.model = Preprocess(mean, std), model

    def construct(self, images, *others):
        return self.model(self.preprocess(images), *others)


class EraseAndMix(nn.Cell):
    """Random erasing, then mixup or cutmix, of normalized images, decided by ``random_inputs`` (see ``RandomLayout``).

    Images are erased before they are mixed, as timm, torchvision and MindCV do: a box erased in one shows its partner.
    """

    def __init__(self, layout: RandomLayout, erase_value: float):
        super().__init__()
        self.layout = layout
        self.erase_value = erase_value
        size = layout.image_size
        self.rows = ms.Tensor(np.arange(size, dtype=np.float32).reshape(1, 1, size, 1))
        self.cols = ms.Tensor(np.arange(size, dtype=np.float32).reshape(1, 1, 1, size))

    def inside(self, boxes):
        """Mask of (n, 4) boxes (y0, y1, x0, x1), float32 (n, 1, size, size)."""
        y0, y1, x0, x1 = (boxes[:, i].reshape(-1, 1, 1, 1) for i in (0, 1, 2, 3))
        in_rows = ops.logical_and(self.rows >= y0, self.rows < y1)
        in_cols = ops.logical_and(self.cols >= x0, self.cols < x1)
        return ops.logical_and(in_rows, in_cols).astype(ms.float32)

    def construct(self, images, random_inputs):
        """The changed images; labels mix with weight ``random_inputs[0, 5]`` and the batch in reverse order."""
        if self.layout.erases:
            erased = self.inside(random_inputs[:, self.layout.mix_end : self.layout.erase_end])
            images = images * (1 - erased) + self.erase_value * erased
        if self.layout.mixes:
            own = random_inputs[0, 0] * (1 - self.inside(random_inputs[:1, 1:5]))
            images = images * own + ops.flip(images, (0,)) * (1 - own)
        return images
