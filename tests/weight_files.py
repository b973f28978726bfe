"""Small weight files as other libraries write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mindcv_mnasnet.networks.families import CONVENTIONS
from mindcv_mnasnet.networks.network import Network, resolve
from mindcv_mnasnet.weights.files import Stored, write_stored
from mindcv_mnasnet.weights.name_maps import NAME_MAPS, shapes


def network(source: str, family: str, width: float | None = 0.35, classes: int = 7) -> Network:
    return resolve(family, width_mult=width, num_classes=classes, head=64, **CONVENTIONS[source])


def tensors(net: Network, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes(net).items()}


def stored(source: str, net: Network) -> Stored:
    scheme, values = NAME_MAPS[source], tensors(net)
    named = {theirs: values[ours] for ours, theirs in scheme.names(net).items()}
    return Stored(named, {name: 40 + i for i, name in enumerate(scheme.counters(net))})


def write(path: Path, source: str, net: Network) -> Path:
    write_stored(path, stored(source, net))
    return path
