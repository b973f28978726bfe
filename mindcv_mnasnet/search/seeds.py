"""What a search in a band of latencies begins with: its references, as wide as the band allows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise, product

from mindcv_mnasnet.latency.record import LatencyError
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.search.band import Band
from mindcv_mnasnet.search.candidates import reference_of, tokens_of
from mindcv_mnasnet.search.decisions import Tokens
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.space import Space
from mindcv_mnasnet.search.strategy import Accept

_TRIED = 40  # widths of one network whose latency is asked for, at most
_OFF = 2  # factor by which multiply-adds may mislead about latency


def seeds(settings: Settings, space: Space, band: Band, accept: Accept) -> list[Tokens]:
    """The references whose layers the space has, those outside the band with other widths; each network once."""
    found: list[Tokens] = []
    for name in settings.references:
        tokens = tokens_of(space, reference_of(settings, space, name))
        if tokens is not None and not band.nearly(tokens):
            try:
                tokens = fitted(space, tokens, band.share(tokens), accept)
            except LatencyError:
                continue
        if tokens is not None and tokens not in found:
            found.append(tokens)
    return found


def fitted(space: Space, tokens: Tokens, share: float, accept: Accept) -> Tokens | None:
    """An accepted network with the same decisions but for its widths, in proportions as near to the old as can be.

    Args:
        share: the latency wanted, as a share of the network's own.
        accept: asked of at most 40 networks, whose multiply-adds are about that share.
    """
    whole = network_cost(space.network(tokens)).madds
    old = [block.out for block in space.blocks(tokens)]
    ranked = []
    for one in set(_widths(space, tokens)):
        network = space.network(one)
        off = math.log(network_cost(network).madds / whole / share)
        if abs(off) <= math.log(_OFF):
            changes = [math.log(block.out / width) for block, width in zip(network.blocks, old, strict=True)]
            ranked.append((round(max(changes) - min(changes), 6), abs(off), one))
    return next((one for _, _, one in sorted(ranked)[:_TRIED] if accept(one)), None)


def _widths(space: Space, tokens: Tokens) -> Iterator[Tokens]:
    """The network at every scale, each of its widths at the choice above or at the one below."""
    names = [name for name, _ in space.choices]
    if "filters" not in names:
        return
    old = [block.out for block in space.blocks(tokens)]
    places = [stage * len(names) + names.index("filters") for stage in range(len(old))]
    choices = []  # (width, token) of every stage, narrow ones first
    for stage, place in enumerate(places):
        changed = [(*tokens[:place], token, *tokens[place + 1 :]) for token in space.allowed[place]]
        choices.append(sorted((space.blocks(one)[stage].out, one[place]) for one in changed))
    exact = sorted({width / old[stage] for stage, found in enumerate(choices) for width, _ in found})
    for scale in (math.sqrt(one * other) for one, other in pairwise([exact[0], *exact])):
        near = []
        for width, found in zip(old, choices, strict=True):
            below = [token for one, token in found if one <= scale * width][-1:]
            above = [token for one, token in found if one >= scale * width][:1]
            near.append({*below, *above})
        for chosen in product(*near):
            one = list(tokens)
            for place, token in zip(places, chosen, strict=True):
                one[place] = token
            yield tuple(one)
