"""A table of parts of which few will ever be measured, and the line from their sums to whole networks' latencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.export.folded import Folded
from mindcv_mnasnet.latency.fit import Fit
from mindcv_mnasnet.latency.record import LatencySettings
from mindcv_mnasnet.latency.table import (
    ROUNDS,
    Table,
    described_by,
    earlier_table,
    entry_line,
    part_keys,
    part_meter,
    parts_of,
    write_table,
)
from mindcv_mnasnet.latency.turns import TurnsMeter
from mindcv_mnasnet.networks.network import Network


class GrowingTable:
    """Parts that are measured when a network first has them, kept in a file with the fit.

    Neighbors share most parts, so hundreds of networks of a space cost little more than their first few. A file of
    another device or of other settings is begun anew.

    Args:
        turns: measures parts in turns with its anchor; without it, the lowest of ``ROUNDS`` medians counts, or what a
            command says.
    """

    def __init__(self, settings: LatencySettings, path: Path, turns: TurnsMeter | None = None):
        self._meter = turns or part_meter(settings)
        repeats = turns is not None or settings.kind == "command"  # turns do so, and a command repeats its calls itself
        self._rounds = 1 if repeats else ROUNDS
        described = {**described_by(settings), "in_turns": turns is not None}
        try:
            self._table = earlier_table(path, described)
        except UserError:
            self._table = Table(path, described, {})
        write_table(self._table)

    @property
    def fitted(self) -> bool:
        """Whether there is a line for ``predict``."""
        return self._table.fit.fitted_on > 0

    def fit(self, networks: Sequence[Network], milliseconds: Sequence[float]) -> None:
        """Fit the line to whole networks' latencies, and keep it in the file.

        Raises:
            LatencyError: the runtime failed.
        """
        totals = [self.total_ms(network) for network in networks]
        self._table = replace(self._table, fit=Fit.to(totals, networks, milliseconds))
        write_table(self._table)

    def predict(self, network: Network, most: float = math.inf) -> float:
        """Milliseconds of a network by the line, or some number above ``most``: see ``total_ms``."""
        fit = self._table.fit
        return fit.milliseconds(self.total_ms(network, fit.total_ms(most, network)), network)

    def total_ms(self, network: Network, most: float = math.inf) -> float:
        """The sum of a network's parts.

        Where some of the parts take longer than ``most`` already, it is the sum of these, and no more are measured.

        Raises:
            LatencyError: the runtime failed.
        """
        keys, entries = part_keys(network), self._table.entries
        missing = [place for place, key in enumerate(keys) if key not in entries]
        total = sum(entries.get(key, 0.0) for key in keys)
        if not missing or total > most:
            return total
        cut = parts_of(network)
        for place in missing:
            total += self._part_ms(keys[place], cut[place])
            if total > most:
                break
        return total

    def _part_ms(self, key: str, part: Folded) -> float:
        """A part's entry, measured where there is none: of two equal parts the first is."""
        entries = self._table.entries
        if key not in entries:
            entries[key] = min(self._meter.measure_part(part).median_ms for _ in range(self._rounds))
            with self._table.path.open("a", encoding="utf-8") as file:
                file.write(entry_line(key, entries[key]))
        return entries[key]
