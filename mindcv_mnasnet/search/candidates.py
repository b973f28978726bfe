"""Candidates: networks that a search tries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mindcv_mnasnet.latency.table import part_keys
from mindcv_mnasnet.networks.network import BlockSpec, Network
from mindcv_mnasnet.recipe.recipe import network_named
from mindcv_mnasnet.search.decisions import Tokens
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.space import Space

#: Fields of ``Network`` that a reference takes from the space it is tried beside.
_SHARED = ("stem_stride", "head", "num_classes", "in_channels", "image_size", "padding", "bn_eps", "bn_momentum")


@dataclass(frozen=True)
class Candidate:
    """A network to try; ``rung`` 0 is the first and cheapest training, see ``rungs``."""

    number: int
    generation: int
    tokens: Tokens
    network: Network
    seed: int
    rung: int = 0


def network_key(network: Network) -> tuple[str, ...]:
    """Equal for networks whose layers are equal, however their blocks are written."""
    return tuple(part_keys(network))


def reference_network(name: str, like: Network) -> Network:
    """A model (``NAME`` or ``NAME@WIDTH``) or a recipe's network (``FILE.yaml``, ``FILE.yaml@WIDTH``) as a candidate.

    Its blocks and its stem are its own, with their widths written out; image size, classes, stride of the stem, head
    and padding are those of ``like``.

    Raises:
        UserError: no such model or recipe.
    """
    known = network_named(name, like.num_classes).written_out()
    return replace(known, **{field: getattr(like, field) for field in (*_SHARED, "dropout", "drop_connect")})


def reference_of(settings: Settings, space: Space, name: str) -> Network:
    """A reference or an anchor of a search, as it is tried beside the networks of its space.

    Raises:
        UserError: no such model or recipe.
    """
    like = space.network(tuple(one[0] for one in space.allowed))
    return reference_network(settings.located(name), like)


def tokens_of(space: Space, network: Network) -> Tokens | None:
    """The tokens of the space's network with these layers behind its own stem; None if it has none.

    The blocks may be cut elsewhere (``r4`` is ``r3`` and ``r1``), and have ``noskip`` where no shortcut can be.
    """
    if not space.reasons_outside(network.blocks):
        return space.encode(network.blocks)
    network = replace(network, stem=space.stem)
    layers = []
    for layer in network.layers():
        block = network.blocks[layer.stage]
        alike = layer.stride == 1 and layer.in_width == layer.out_width
        layers.append(replace(block, repeats=1, stride=layer.stride, skip=block.skip or not alike))
    for blocks in _cuts(layers, len(space.strides)):
        if not space.reasons_outside(blocks) and network_key(replace(network, blocks=blocks)) == network_key(network):
            return space.encode(blocks)
    return None


def _cuts(layers: Sequence[BlockSpec], count: int) -> Iterator[tuple[BlockSpec, ...]]:
    """All ways to write layers, blocks of one repeat each, as ``count`` blocks."""
    if not count:
        if not layers:
            yield ()
        return
    first = layers[0]
    for end in range(1, len(layers) - count + 2):
        if end > 1 and layers[end - 1] != replace(first, stride=1):
            return
        for others in _cuts(layers[end:], count - 1):
            yield (replace(first, repeats=end), *others)
