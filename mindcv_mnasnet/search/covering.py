"""The fewest networks that show every part of a search space, for tables of parts' latencies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mindcv_mnasnet.latency.table import part_keys
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.search.space import Space


def networks_covering(space: Space) -> list[Network]:
    """Networks that between them have every part that a network of the space can have.

    A part depends on its stage's choices and on the width that comes in, which is the stage's own choice of filters or
    the one of the stage before: so all choices of a stage are walked with all widths of the stage before, other stages
    staying at their first choices.
    """
    count = len(space.choices)
    base = [one[0] for one in space.allowed]
    filters = next((i for i, (name, _) in enumerate(space.choices) if name == "filters"), None)
    found: dict[str, Network] = {}
    for stage in range(len(space.strides)):
        start = stage * count
        before = [base[start - count + filters]] if stage and filters is not None else [0]
        if stage and filters is not None:
            before = list(space.allowed[start - count + filters])
        for width in before:
            tokens = list(base)
            if stage and filters is not None:
                tokens[start - count + filters] = width
            for chosen in _products(space.allowed[start : start + count]):
                tokens[start : start + count] = chosen
                network = space.network(tokens)
                for key in part_keys(network):
                    found.setdefault(key, network)
    return list({id(network): network for network in found.values()}.values())


def _products(options: Sequence[Sequence[int]]) -> Iterable[tuple[int, ...]]:
    from itertools import product

    return product(*options)
