"""Sums of parts for networks of which few will ever be measured."""

from __future__ import annotations

import math
from pathlib import Path

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.export.folded import Folded
from mindcv_mnasnet.latency.record import LatencySettings
from mindcv_mnasnet.latency.table import (
    ROUNDS,
    described_by,
    earlier_entries,
    entry_line,
    part_keys,
    part_meter,
    parts_of,
    write_table,
)
from mindcv_mnasnet.networks.network import Network


class GrowingTable:
    """Parts that are measured when a network first has them, kept in a file; sums, which no whole network corrects.

    Neighbors share most parts, so hundreds of networks of a space cost little more than their first few. A file of
    another device or of other settings is begun anew.
    """

    def __init__(self, settings: LatencySettings, path: Path):
        self._meter, self._path = part_meter(settings), path
        self._rounds = 1 if settings.kind == "command" else ROUNDS  # a command repeats its calls itself
        described = described_by(settings)
        try:
            self._entries = earlier_entries(path, described)
        except UserError:
            self._entries = {}
        write_table(path, described, self._entries, None)

    def total_ms(self, network: Network, most: float = math.inf) -> float:
        """The sum of a network's parts, each the lowest of ``ROUNDS`` medians, or what a command says.

        Where some of the parts take longer than ``most`` already, it is the sum of these, and no more are measured.

        Raises:
            LatencyError: the runtime failed.
        """
        keys = part_keys(network)
        missing = [place for place, key in enumerate(keys) if key not in self._entries]
        total = sum(self._entries.get(key, 0.0) for key in keys)
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
        if key not in self._entries:
            found = min(self._meter.measure_part(part).median_ms for _ in range(self._rounds))
            self._entries[key] = found
            with self._path.open("a", encoding="utf-8") as file:
                file.write(entry_line(key, found))
        return self._entries[key]
