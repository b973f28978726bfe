"""What a supernet holds: per stage the values that each property of its blocks can have."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.network import BlockSpec, Network, format_block
from mindcv_mnasnet.search.space import Space

#: The properties of a ``BlockSpec`` that can differ between the networks of a supernet.
FREE = ("repeats", "kernel", "expand", "out", "se_ratio", "skip")
#: Fields of ``Network`` that do not change what shared weights compute in evaluation.
_ANY = ("family", "blocks", "bn_momentum", "dropout", "drop_connect")


@dataclass(frozen=True)
class StageChoices:
    """One stage: sorted values of a ``BlockSpec``'s properties, each combination of which is a choice."""

    stride: int
    repeats: tuple[int, ...]
    kernel: tuple[int, ...]
    expand: tuple[int, ...]
    out: tuple[int, ...]
    se_ratio: tuple[float, ...]
    skip: tuple[bool, ...]

    @classmethod
    def of(cls, blocks: Iterable[BlockSpec]) -> StageChoices:
        """The values that ``blocks`` have.

        Raises:
            UserError: they differ in stride, or one is a plain convolution or has a pooled shortcut.
        """
        blocks = tuple(blocks)
        for block in blocks:
            if block.conv or block.pool:
                what = "plain convolutions" if block.conv else "pooled shortcuts"
                raise UserError(
                    f"a supernet shares weights of MBConv blocks only, without {what}: {format_block(block)}"
                )
            if block.stride != blocks[0].stride:
                raise UserError(
                    f"one stage of a supernet has one stride: {format_block(blocks[0])}, {format_block(block)}"
                )
        values = {name: tuple(sorted({getattr(block, name) for block in blocks})) for name in FREE}
        return cls(stride=blocks[0].stride, **values)

    def block(self, **chosen: Any) -> BlockSpec:
        """A block with this stage's stride."""
        return BlockSpec(stride=self.stride, **chosen)

    def ends(self, last: bool) -> BlockSpec:
        """The block of the largest values, or of the smallest ones; shortcuts cost nothing and are in both."""
        return self.block(**{name: getattr(self, name)[-1 if last or name == "skip" else 0] for name in FREE})

    def draw(self, rng: np.random.Generator) -> BlockSpec:
        """Every property drawn evenly."""
        values = {name: getattr(self, name) for name in FREE}
        return self.block(**{name: choices[rng.integers(len(choices))] for name, choices in values.items()})

    @property
    def size(self) -> int:
        """The number of combinations."""
        return math.prod(len(getattr(self, name)) for name in FREE)


@dataclass(frozen=True)
class Choices:
    """The networks of a supernet: one of every stage's choices each, all else as ``base`` has it."""

    base: Network
    stages: tuple[StageChoices, ...]

    @classmethod
    def of(cls, networks: Iterable[Network]) -> Choices:
        """The smallest choices that hold these networks, and with them every mixture of them.

        Raises:
            UserError: they differ in what cannot be chosen, such as number of stages, strides, stem or classes.
        """
        networks = tuple(networks)
        if not networks:
            raise UserError("a supernet needs a network at least")
        base = networks[0]
        for network in networks:
            _check_shared(base, network)
        return cls(base, tuple(StageChoices.of(blocks) for blocks in zip(*(n.blocks for n in networks), strict=True)))

    @classmethod
    def of_space(cls, space: Space, **fields: Any) -> Choices:
        """All networks of a search space; ``fields`` are of ``arch.Network``.

        Raises:
            UserError: the space has plain convolutions or pooled shortcuts.
        """
        first = tuple(allowed[0] for allowed in space.allowed)
        tokens = [first]
        for position, allowed in enumerate(space.allowed):
            tokens += [(*first[:position], token, *first[position + 1 :]) for token in allowed[1:]]
        return cls.of(space.network(one, **fields) for one in tokens)

    @property
    def size(self) -> int:
        """The number of block lists."""
        return math.prod(stage.size for stage in self.stages)

    def network(self, blocks: Iterable[BlockSpec]) -> Network:
        """``base`` with other blocks."""
        return replace(self.base, family=None, blocks=tuple(blocks))

    def draw(self, rng: np.random.Generator) -> Network:
        """A network, every property of every stage drawn evenly."""
        return self.network(stage.draw(rng) for stage in self.stages)

    @property
    def largest(self) -> Network:
        """The network whose weights hold all others' as slices."""
        return self.network(stage.ends(last=True) for stage in self.stages)

    @property
    def smallest(self) -> Network:
        """The network of the smallest values."""
        return self.network(stage.ends(last=False) for stage in self.stages)

    def check(self, network: Network) -> None:
        """Refuse, with a ``UserError``, a network that is not one of these."""
        _check_shared(self.base, network)
        for number, (stage, block) in enumerate(zip(self.stages, network.blocks, strict=True), 1):
            StageChoices.of([stage.ends(last=True), block])
            for name in FREE:
                if (value := getattr(block, name)) not in getattr(stage, name):
                    raise UserError(f"block {number} has {name} {value}; the supernet has {getattr(stage, name)}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, to compare with."""
        stages = [{name: _listed(value) for name, value in asdict(stage).items()} for stage in self.stages]
        return {"base": self.largest.to_dict(), "stages": stages}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_shared(base: Network, network: Network) -> None:
    own, other = base.to_dict(), network.to_dict()
    odd = [f"{name} {other[name]} beside {own[name]}" for name in own if name not in _ANY and own[name] != other[name]]
    if len(base.blocks) != len(network.blocks):
        odd.append(f"{len(network.blocks)} blocks beside {len(base.blocks)}")
    if odd:
        raise UserError(f"the networks of a supernet differ in their blocks only, not in {'; '.join(odd)}")
