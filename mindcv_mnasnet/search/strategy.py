"""What a strategy is: asked for networks to try, told how they did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.search.decisions import Tokens

NAMES = ("controller", "random", "evolution", "nsga2", "predictor")
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """What a strategy learns of a trial; a failed one has reward 0 and neither accuracy nor latency.

    ``informative`` is False where a device or a machine failed, which says nothing about the network: strategies learn
    nothing from it. A training that diverged or took too long is informative.
    """

    tokens: Tokens
    reward: float
    accuracy: float | None = None
    latency_ms: float | None = None
    informative: bool = True


Accept = Callable[[Tokens], bool]
ATTEMPTS = 2000


def draw(propose: Callable[[], Tokens], accept: Accept | None, refuse: Callable[[], None] = lambda: None) -> Tokens:
    """The first proposal that is acceptable; ``refuse`` is called after every other one.

    Raises:
        UserError: none of ``ATTEMPTS`` is.
    """
    for _ in range(ATTEMPTS):
        tokens = propose()
        if accept is None or accept(tokens):
            return tokens
        refuse()
    raise UserError(f"none of {ATTEMPTS} networks that the search proposed is within its limits; loosen them")


class Strategy(Protocol):
    """Asked for a generation of networks, told how they did.

    All randomness comes from the seed and the number of the generation, so ``state`` and a generation's number are all
    that a resume needs.
    """

    def ask(self, generation: int, count: int, accept: Accept | None = None) -> list[Tokens]:
        """Networks to try, all of which ``accept``; the same ones whenever it is asked in the same state.

        Raises:
            UserError: nothing acceptable was found in ``ATTEMPTS`` draws.
        """

    def tell(self, generation: int, outcomes: Sequence[Outcome]) -> None:
        """How the networks of a generation did, in the order in which they were asked for."""

    def state(self) -> Arrays:
        """All that was learned."""

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Take back what ``state`` gave."""


def generator(seed: int, generation: int) -> np.random.Generator:
    """The random numbers of one generation."""
    return np.random.default_rng([seed, generation])
