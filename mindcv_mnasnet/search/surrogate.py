"""SYNTHETIC accuracy and latency, to test search algorithms at full scale in seconds. Nothing here is measured.

Latency: 0.25 ms per layer, and multiply-adds at a rate by kind: 1x1 convolutions 5.5e6 per ms, depthwise 2.5e6,
plain k x k 8e6, gates 0.4 ms a layer. With this MnasNet-A1 at 224 pixels takes about 78 "ms", as on a Pixel 1.
Accuracy: 0.60 less 0.13 / (madds / 1e8) ** 0.6 less 0.02 / (params / 1e6), plus small bonuses that depend on where
in the network something is (k 5 and gates help in later stages, MBConv of higher expansion in the middle, shortcuts
where they apply, differing stages a little), plus noise by a hash of the blocks with a deviation of 0.003, as
between seeds of short trainings. The terms are made up so that A1 gets about 0.54, as after five epochs, that the soft
reward peaks near 75 "ms", and that the best networks of a latency are not uniform; nothing about real networks follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from mindcv_mnasnet.networks.cost import Cost, LayerCost, network_cost
from mindcv_mnasnet.networks.network import Network

LABEL = "surrogate (synthetic, not measured)"
_NOISE = 0.003


def surrogate_latency_ms(network: Network, cost: Cost | None = None) -> float:
    """Made-up milliseconds; see the top of this file."""
    layers = (cost or network_cost(network)).layers
    return float(sum(_layer_ms(layer) for layer in layers))


def _layer_ms(layer: LayerCost) -> float:
    if layer.kernel == 0:
        return 0.4 if layer.name.endswith("se.scale") else 0.0
    if layer.kernel == 1:
        return (0.25 if layer.out_size > 1 else 0.0) + layer.madds / 5.5e6
    depthwise = layer.name.endswith("depthwise")
    return 0.25 + layer.madds / (2.5e6 if depthwise else 8e6)


def surrogate_accuracy(network: Network, seed: int = 0, cost: Cost | None = None) -> float:
    """A made-up accuracy in [0, 1]; ``seed`` varies its noise. See the top of this file."""
    cost = cost or network_cost(network)
    value = 0.60 - 0.13 / (cost.madds / 1e8) ** 0.6 - 0.02 / (cost.params / 1e6)
    stages = len(network.blocks)
    for place, block in enumerate(network.blocks):
        depth = place / max(stages - 1, 1)
        value += 0.004 * (2 * depth - 0.7) * (block.kernel == 5)
        value += 0.006 * depth * (block.se_ratio > 0)
        value += 0.003 * (1 - abs(2 * depth - 1)) * min(block.expand, 6) / 6
        value += 0.003 * (block.skip and block.repeats > 1)
        value -= 0.006 * block.conv * depth
    value += 0.0015 * _kinds([(block.kernel, block.expand, block.se_ratio, block.conv) for block in network.blocks])
    return float(np.clip(value + _NOISE * _normal(network, seed), 0.0, 1.0))


def _kinds(seen: Sequence[object]) -> int:
    return len(set(seen)) - 1


def _normal(network: Network, seed: int) -> float:
    digest = hashlib.sha256(f"{seed} {' '.join(network.block_strings)}".encode()).digest()
    return float(np.random.default_rng(int.from_bytes(digest[:8], "little")).normal())
