"""Candidates: networks that a search tries."""

from __future__ import annotations

from dataclasses import dataclass

from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.search.space import Tokens


@dataclass(frozen=True)
class Candidate:
    """A network to try."""

    number: int
    generation: int
    tokens: Tokens
    network: Network
    seed: int
