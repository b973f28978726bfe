"""A recipe and a space around a network, for images that nobody has written a recipe for."""

from __future__ import annotations

from typing import Any

import numpy as np

from mindcv_mnasnet.data.images import decode
from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.networks.network import Network

SIZES = (24, 32, 48, 64, 96, 128, 160, 192, 224)
_SMALL = 48  # pixels up to which the stem keeps the size
_SEEN = 200_000  # images that the final training reads, within 15 to 100 epochs
_LEAST_EPOCHS = 15
_RATE = 0.05 / 64  # per image of a batch; at twice that some runs on the digits diverge


def image_size(index: ImageIndex, seen: int = 100) -> int:
    """Pixels per side to train at: the largest of ``SIZES`` within the middle image's shorter side.

    Raises:
        UserError: one of the images that are looked at is broken.
    """
    looked_at = range(0, len(index), max(1, len(index) // seen))
    middle = float(np.median([min(decode(index.read(number), index.name(number)).size) for number in looked_at]))
    return max((size for size in SIZES if size <= middle), default=SIZES[0])


def recipe_keys(network: Network, data: dict[str, Any], images: int, size: int) -> dict[str, Any]:
    """A recipe of the kind that serves CIFAR-10 and the digits here: short, SGD, cosine, averaged weights."""
    epochs = int(np.clip(round(_SEEN / images), _LEAST_EPOCHS, 100))
    batch = 64 if images >= 2000 else 32
    return {
        "blocks": list(network.block_strings),
        "stem": network.stem,
        "divisor": 1,
        "stem_stride": 1 if size <= _SMALL else 2,
        "bn_momentum": 0.9,
        "drop_rate": 0.0,
        "epoch_size": epochs,
        "val_while_train": True,
        "val_interval": max(1, epochs // 5),
        "log_interval": 50,
        **data,
        "batch_size": batch,
        "image_resize": size,
        "scale": [0.7, 1.0],
        "color_jitter": 0.0,
        "opt": "sgd",
        "use_nesterov": True,
        "weight_decay": 0.0005,
        "weight_decay_filter": "norm_and_bias",
        "label_smoothing": 0.1,
        "ema": True,
        "ema_decay": 0.99,
        "ema_ramp": True,
        "lr": _RATE * batch,
        "min_lr": 0.0,
        "warmup_epochs": 1.0,
        "decay_epochs": epochs - 1.0,
    }


def space_keys(network: Network) -> dict[str, Any]:
    """A space around a network, which is inside: its strides, widths and depths, with more and with less."""
    blocks = network.blocks
    skips = ["identity", *(["none"] if any(not block.skip for block in blocks) else [])]
    skips += ["pool"] if any(block.pool for block in blocks) else []
    return {
        "stem": network.stem,
        "strides": [block.stride for block in blocks],
        "filters": [block.out for block in blocks],
        "layers": [block.repeats for block in blocks],
        "decisions": {
            "operator": ["conv", "mbconv"],
            "expansion": sorted({1, 2, 3, *(block.expand for block in blocks)}),
            "kernel": [3, 5],
            "se": sorted({0.0, 0.25, *(block.se_ratio for block in blocks)}),
            "skip": skips,
            "filters": [0.5, 0.75, 1, 1.25],
            "layers": [-1, 0, 1],
        },
    }
