"""Search spaces: the decisions that describe a network, and networks from decisions and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.network import BlockSpec, Network, format_block, parse_block, parse_blocks, resolve
from mindcv_mnasnet.search.decisions import Decisions, Tokens

#: The operators' names, as (plain convolution, expansion); None: the decision ``expansion`` says it.
OPERATORS: dict[str, tuple[bool, int | None]] = {
    "conv": (True, 1),
    "sepconv": (False, 1),
    "mbconv3": (False, 3),
    "mbconv6": (False, 6),
    "mbconv": (False, None),
}
SKIPS = ("pool", "identity", "none")
_NEUTRAL: Mapping[str, Any] = {"expansion": None, "kernel": 3, "se": 0, "skip": "identity", "filters": 1, "layers": 0}
STRIDES = (1, 2)


@dataclass(frozen=True)
class Space(Decisions):
    """Stages with strides, base widths and depths, and the decisions that each of them has.

    ``choices`` lists a decision's choices by its name, in the order in which decisions are made. Tokens are the indices
    of what was chosen: all decisions of the first stage, then of the second, ... ``strides`` has one or two strides for
    every stage; where a stage has two, ``stride`` is among the decisions. ``network_fields`` are fields of
    ``arch.Network`` that all networks of the space share.
    """

    name: str
    stem: int
    strides: tuple[tuple[int, ...], ...]
    filters: tuple[int, ...]
    layers: tuple[int, ...]
    choices: tuple[tuple[str, tuple[Any, ...]], ...]
    network_fields: tuple[tuple[str, Any], ...] = ()

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of choices of every decision of one stage."""
        return tuple(len(choices) for _, choices in self.choices)

    @property
    def choices_per_stage(self) -> int:
        """As papers count: also those that come to the same thing."""
        return math.prod(self.sizes)

    @cached_property
    def allowed(self) -> tuple[tuple[int, ...], ...]:
        """For every token, the indices that it can have.

        A stage keeps at least one layer, and of two choices with the same width only the first is there.
        """
        found = []
        for stage in range(len(self.strides)):
            for name, choices in self.choices:
                if name == "layers":
                    kept = [i for i, change in enumerate(choices) if self.layers[stage] + change >= 1]
                elif name == "filters":
                    widths = [_width(self.filters[stage], factor) for factor in choices]
                    kept = [i for i, width in enumerate(widths) if width not in widths[:i]]
                elif name == "stride":
                    kept = [i for i, stride in enumerate(choices) if stride in self.strides[stage]]
                else:
                    kept = list(range(len(choices)))
                found.append(tuple(kept))
        return tuple(found)

    def blocks(self, tokens: Sequence[int]) -> tuple[BlockSpec, ...]:
        """The block list that tokens stand for.

        Raises:
            UserError: another number of tokens, or one that is not allowed.
        """
        if len(tokens) != self.length:
            raise UserError(f"tokens: space {self.name} has {self.length} decisions, not {len(tokens)}")
        for position, (token, allowed) in enumerate(zip(tokens, self.allowed, strict=True)):
            if token not in allowed:
                raise UserError(
                    f"tokens: {token} is impossible at {position} in space {self.name}; it can be {allowed}"
                )
        count = len(self.choices)
        return tuple(self._block(stage, tokens[stage * count :][:count]) for stage in range(len(self.strides)))

    def _block(self, stage: int, tokens: Sequence[int]) -> BlockSpec:
        fixed = {**_NEUTRAL, "stride": self.strides[stage][0]}
        chosen = {**fixed, **{n: c[token] for (n, c), token in zip(self.choices, tokens, strict=True)}}
        conv, expand = OPERATORS[chosen["operator"]]
        if chosen["expansion"] is not None:
            expand = chosen["expansion"]
        assert expand is not None  # read_space sees to it
        return BlockSpec(
            repeats=self.layers[stage] + chosen["layers"],
            kernel=chosen["kernel"],
            stride=chosen["stride"],
            expand=expand,
            out=_width(self.filters[stage], chosen["filters"]),
            se_ratio=float(chosen["se"]),
            skip=chosen["skip"] != "none",
            conv=conv,
            pool=chosen["skip"] == "pool",
        )

    def network(self, tokens: Sequence[int], **fields: Any) -> Network:
        """The network that tokens stand for; widths are as they are written. ``fields`` are of ``arch.Network``."""
        shared = {"width_mult": None, "stem": self.stem, **dict(self.network_fields), **fields}
        return resolve(None, blocks=self.blocks(tokens), **shared)

    def encode(self, blocks: str | Iterable[str | BlockSpec]) -> Tokens:
        """The tokens of a block list: inverse of ``blocks``.

        Raises:
            UserError: it is not in this space; says by which choices.
        """
        specs = _specs(blocks)
        if reasons := self.reasons_outside(specs):
            raise UserError(f"the network is not in space {self.name}: {'; '.join(reasons)}")
        return tuple(token for stage, spec in enumerate(specs) for token in self._tokens(stage, spec))

    def reasons_outside(self, blocks: str | Iterable[str | BlockSpec]) -> list[str]:
        """Which choices of a block list this space does not have; empty for a network that is inside."""
        specs = _specs(blocks)
        if len(specs) != len(self.strides):
            return [f"{len(specs)} blocks, not {len(self.strides)}"]
        reasons = []
        for stage, spec in enumerate(specs):
            if spec.stride not in self.strides[stage]:
                allowed = " or ".join(map(str, self.strides[stage]))
                reasons.append(f"block {stage + 1} has stride {spec.stride}, not {allowed}")
            values = {"operator": spec, "expansion": spec.expand, "kernel": spec.kernel, "se": spec.se_ratio}
            values |= {"skip": "pool" if spec.pool else "identity" if spec.skip else "none"}
            values |= {"filters": spec.out, "layers": spec.repeats}
            tokens = dict(zip((name for name, _ in self.choices), self._tokens(stage, spec), strict=True))
            for name, value in values.items():
                if name in tokens:
                    outside = tokens[name] < 0
                else:
                    outside = name != "expansion" and value != self._fixed(stage, name)
                if outside:
                    shown = format_block(spec) if name == "operator" else value
                    reasons.append(f"block {stage + 1} has {name} {shown}")
        return reasons

    def _fixed(self, stage: int, name: str) -> Any:
        return {"filters": self.filters[stage], "layers": self.layers[stage]}.get(name, _NEUTRAL.get(name))

    def _tokens(self, stage: int, spec: BlockSpec) -> Tokens:
        """The stage's tokens; -1 where a choice is missing."""
        found = []
        expansion_apart = "expansion" in dict(self.choices)
        for (name, choices), allowed in zip(self.choices, self.allowed[stage * len(self.choices) :], strict=False):
            if name == "operator":
                fits = [
                    OPERATORS[c][0] == spec.conv and (expansion_apart or OPERATORS[c][1] == spec.expand)
                    for c in choices
                ]
            elif name == "filters":
                fits = [_width(self.filters[stage], factor) == spec.out for factor in choices]
            elif name == "layers":
                fits = [self.layers[stage] + change == spec.repeats for change in choices]
            else:
                skip = "pool" if spec.pool else "identity" if spec.skip else "none"
                own = {"expansion": spec.expand, "kernel": spec.kernel, "se": spec.se_ratio, "skip": skip}
                own["stride"] = spec.stride
                fits = [choice == own[name] for choice in choices]
            found.append(next((i for i in allowed if fits[i]), -1))
        return tuple(found)

    def features(self, tokens: Sequence[int]) -> np.ndarray:
        """One-hot decisions, and the number of layers in twenties, at which predictors fit better."""
        layers = sum(block.repeats for block in self.blocks(tokens))
        return np.append(super().features(tokens), layers / 20)


def _width(base: int, factor: float) -> int:
    return max(1, round(base * factor))


def _specs(blocks: str | Iterable[str | BlockSpec]) -> tuple[BlockSpec, ...]:
    if isinstance(blocks, str):
        return parse_blocks(blocks)[0]
    return tuple(block if isinstance(block, BlockSpec) else parse_block(block) for block in blocks)
