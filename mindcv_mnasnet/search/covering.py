"""The fewest networks that show every part of a search space, for tables of parts' latencies."""

from __future__ import annotations

from itertools import product

from mindcv_mnasnet.latency.table import part_keys
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.search.space import Space


def networks_covering(space: Space) -> list[Network]:
    """Networks that between them have every part that a network of the space can have.

    A part depends on its stage's choices, on the width that comes in, which is the stage's own choice of filters or the
    one of the stage before, and on the size that the strides of all stages before leave: so all choices of a stage are
    walked with all widths of the stage before and all earlier strides, other decisions staying at their first choices.
    """
    count = len(space.choices)
    base = [one[0] for one in space.allowed]
    names = [name for name, _ in space.choices]
    found: dict[str, Network] = {}
    for stage in range(len(space.strides)):
        start = stage * count
        walked = [one * count + names.index("stride") for one in range(stage)] if "stride" in names else []
        if stage and "filters" in names:
            walked.append(start - count + names.index("filters"))
        for before in product(*(space.allowed[position] for position in walked)):
            tokens = list(base)
            for position, token in zip(walked, before, strict=True):
                tokens[position] = token
            for chosen in product(*space.allowed[start : start + count]):
                tokens[start : start + count] = chosen
                network = space.network(tokens)
                for key in part_keys(network):
                    found.setdefault(key, network)
    return list({id(network): network for network in found.values()}.values())
