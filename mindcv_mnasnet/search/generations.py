"""Generations of proposals: asked for ahead of results where workers would wait, stored before they are tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from mindcv_mnasnet.run.checkpoint import read_checkpoint, write_checkpoint
from mindcv_mnasnet.search.decisions import Tokens
from mindcv_mnasnet.search.strategy import Accept, Outcome, Strategy

_OPEN = "open."


class Generations:
    """What a strategy proposed and does not know the results of yet.

    Generation g is asked for when the strategy knows generations up to g - 1 - ``ahead``, whatever the order in which
    results come in: so proposals follow from the results alone, and a resume repeats them. Strategy and open
    generations are stored together after every change.

    Args:
        trials: networks of all generations, ``each`` of one; the last one has what is left.
        ended: sizes of generations that have ended: a search that grew had a short one between others.
        first: tokens that generation 0 begins with.
    """

    def __init__(
        self,
        strategy: Strategy,
        path: Path,
        trials: int,
        each: int,
        ahead: int,
        accept: Accept | None,
        first: Sequence[Tokens] = (),
        ended: Mapping[int, int] = MappingProxyType({}),
    ):
        self._strategy, self._path = strategy, path
        self._trials, self._each, self._ended = trials, each, dict(ended)
        self._ahead, self._accept, self._first = ahead, accept, list(first)
        self._told = 0
        self.open: dict[int, list[Tokens]] = {}
        if path.is_file():
            self._load()

    def _load(self) -> None:
        stored = read_checkpoint(self._path)
        self._told = int(stored.meta["generations"])
        tensors = dict(stored.tensors)
        for name in sorted(tensors, key=len):
            if name.startswith(_OPEN):
                rows = tensors.pop(name)
                self.open[int(name.removeprefix(_OPEN))] = [tuple(int(token) for token in row) for row in rows]
        self._strategy.load(tensors)

    def begin(self) -> Iterator[tuple[int, list[Tokens]]]:
        """All open generations, those that were stored and new ones up to ``ahead``, oldest first."""
        self._ask()
        yield from sorted(self.open.items())

    def tell(self, outcomes: Sequence[Outcome]) -> dict[int, list[Tokens]]:
        """How the oldest open generation did; returns those that are asked for in its place."""
        self._strategy.tell(self._told, outcomes)
        self._ended[self._told] = len(self.open.pop(self._told))
        self._told += 1
        return self._ask(changed=True)

    @property
    def oldest(self) -> int:
        """The number of the generation that is told of next."""
        return self._told

    def number(self, generation: int) -> int:
        """The number of a generation's first network."""
        earlier = range(generation)
        return sum(len(self.open[one]) if one in self.open else self._ended.get(one, self._each) for one in earlier)

    def _ask(self, changed: bool = False) -> dict[int, list[Tokens]]:
        new = {}
        for generation in range(self._told, self._told + self._ahead + 1):
            count = min(self._each, self._trials - self.number(generation))
            if generation in self.open or count < 1:
                continue
            asked = self._strategy.ask(generation, count, self._accept)
            if generation == 0:
                asked = [*self._first, *asked][:count]
            new[generation] = self.open[generation] = asked
        if new or changed:
            rows = {f"{_OPEN}{number}": np.array(tokens, np.int64) for number, tokens in self.open.items()}
            write_checkpoint(self._path, {**self._strategy.state(), **rows}, {"generations": self._told})
        return new
