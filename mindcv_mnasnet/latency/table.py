"""A table of parts' latencies, measured once on a device, that predicts those of whole networks in microseconds.

A part is the stem, one block, or head and classifier, at its own input size. From their sum to a network's latency a
line leads that is fitted on a few whole networks (``fit``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.export.folded import Folded, fold, parts
from mindcv_mnasnet.files import replace_file, unwritable
from mindcv_mnasnet.latency.agreement import Agreement, agreement
from mindcv_mnasnet.latency.command import CommandMeter
from mindcv_mnasnet.latency.fit import Fit
from mindcv_mnasnet.latency.models import random_tensors
from mindcv_mnasnet.latency.record import Latency, LatencyError, LatencySettings, Meter
from mindcv_mnasnet.latency.runtime import RuntimeMeter, this_device
from mindcv_mnasnet.networks.network import Layer, Network

SCHEMA = 1
ROUNDS = 3  # everything is measured so often, in turn, and the lowest median counts: what disturbs only adds
_PARTS = "onnxruntime", "litert", "command"


def part_keys(network: Network) -> list[str]:
    """The key of every part of a network, from stem to classifier: all that its latency depends on."""
    size = network.image_size
    stem = f"stem in={network.in_channels} out={network.stem_width} stride={network.stem_stride} size={size}"
    found = [f"{stem} {network.padding}"]
    size = -(-size // network.stem_stride)
    layers = network.layers()
    for layer in layers:
        found.append(f"{_layer_key(layer)} size={size} {network.padding}")
        size = -(-size // layer.stride)
    ends = f"in={layers[-1].out_width} head={network.head_width} classes={network.num_classes}"
    return [*found, f"tail {ends} size={size}"]


def _layer_key(layer: Layer) -> str:
    values = {name: value for name, value in asdict(layer).items() if name not in ("stage", "index")}
    return " ".join(["block", *(f"{name}={value:d}" for name, value in values.items())])


@dataclass(frozen=True)
class Table:
    """Milliseconds by the key of a part, and the line from their sum to a network's latency.

    ``described``: settings and device, as they were measured.
    """

    path: Path
    described: dict[str, Any]
    entries: dict[str, float]
    fit: Fit = field(default_factory=Fit)

    @classmethod
    def read(cls, path: str | Path) -> Table:
        """A table from its file: JSON lines, the first one the description, another one the fit.

        Raises:
            UserError: no such file, another schema, or a line that cannot be read.
        """
        path = Path(path)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise UserError(f"latency_table: {path} cannot be read; tools/latency.py build makes it") from None
        described: dict[str, Any] = {}
        entries: dict[str, float] = {}
        fit = Fit()
        for number, text in enumerate(lines, start=1):
            try:
                stored = json.loads(text)
                if number == 1:
                    described = dict(stored)
                elif "part" in stored:
                    entries[stored["part"]] = min(float(stored["median_ms"]), entries.get(stored["part"], np.inf))
                else:
                    fit = Fit.read(stored)
            except (ValueError, TypeError, KeyError):
                if number == len(lines):
                    break  # cut short by a crash; build measures it again
                raise UserError(f"latency_table: {path}, line {number} cannot be read") from None
        if described.get("schema") != SCHEMA:
            raise UserError(f"latency_table: {path} is no table of schema {SCHEMA}")
        return cls(path, described, entries, fit)

    def total_ms(self, network: Network) -> float:
        """The sum of a network's parts.

        Raises:
            LatencyError: a part is not in the table.
        """
        keys = part_keys(network)
        missing = [key for key in keys if key not in self.entries]
        if missing:
            raise LatencyError(
                f"{self.path} has no entry for {missing[0]!r}{f' and {len(missing) - 1} more' * (len(missing) > 1)}; "
                "tools/latency.py build with a space or networks that have it adds it"
            )
        return sum(self.entries[key] for key in keys)

    def measure(self, network: Network) -> Latency:
        """The predicted latency; see ``latency.Meter``."""
        value = self.fit.milliseconds(self.total_ms(network), network)
        known = self.described
        return Latency.given(
            value, network, f"table of {known['kind']}", known["device"], known["threads"], known["batch"]
        )


def build(
    networks: Iterable[Network],
    fitted_on: Sequence[Network],
    settings: LatencySettings,
    path: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Table:
    """Measure every part of the networks that the file does not have yet, then fit the line; goes on where it stopped.

    Args:
        networks: the table shall serve these.
        fitted_on: whole networks that are measured for the fit, three or more.
        progress: called with parts measured and parts in all.
    Raises:
        UserError: a kind whose parts cannot be measured apart, too few networks, or a file of another device.
        LatencyError: the runtime failed.
    """
    if not has_parts(settings.kind):
        raise UserError(f"latency: tables are built with {', '.join(_PARTS)}, not {settings.kind}")
    if len(fitted_on) < 3:
        raise UserError(f"fitted_on: 3 networks or more are needed for a line, not {len(fitted_on)}")
    meter = part_meter(settings)
    described = described_by(settings)
    known = earlier_table(path, described).entries
    everything = [*networks, *fitted_on]
    whole = {key: (network, place) for network in everything for place, key in enumerate(part_keys(network))}
    sums = Table(path, described, known)
    write_table(sums)
    missing = [key for key in whole if key not in known]
    try:
        with path.open("a", encoding="utf-8") as file:
            for number, key in enumerate(ROUNDS * missing):
                network, place = whole[key]
                found = meter.measure_part(parts_of(network)[place]).median_ms
                known[key] = min(found, known.get(key, np.inf))
                file.write(entry_line(key, found))
                file.flush()
                progress(number + 1, ROUNDS * len(missing))
    except OSError as error:
        raise unwritable(path, error) from error
    totals = [sums.total_ms(network) for network in fitted_on]
    table = replace(sums, fit=Fit.to(totals, fitted_on, _measured_ms(meter, fitted_on)))
    write_table(table)
    return table


def parts_of(network: Network) -> list[Folded]:
    """A network's parts, with random weights, in the order of ``part_keys``."""
    return parts(fold(network, random_tensors(network)))


def has_parts(kind: str) -> bool:
    """Whether a kind of latency can be measured of parts of networks."""
    return kind in _PARTS


def part_meter(settings: LatencySettings) -> CommandMeter | RuntimeMeter:
    """What measures parts."""
    return CommandMeter(settings) if settings.kind == "command" else RuntimeMeter(settings)


def entry_line(key: str, milliseconds: float) -> str:
    """A part's line of the file."""
    return json.dumps({"part": key, "median_ms": milliseconds}) + "\n"


def described_by(settings: LatencySettings) -> dict[str, Any]:
    """The first line of the file: device and settings."""
    device = settings.command if settings.kind == "command" else this_device()
    names = ("kind", "threads", "batch", "warm_up", "repetitions")
    return {"schema": SCHEMA, "device": device, **{name: getattr(settings, name) for name in names}}


def earlier_table(path: Path, described: dict[str, Any]) -> Table:
    """What was measured in the same way before; an empty table where there is no file.

    Raises:
        UserError: it was measured in another way, or cannot be read.
    """
    if not path.is_file():
        return Table(path, described, {})
    table = Table.read(path)
    if table.described != described:
        raise UserError(f"latency_table: {path} was measured as {table.described}, not as {described}; name another")
    return table


def write_table(table: Table) -> None:
    """The whole file, at once."""
    rows = [table.described, *({"part": key, "median_ms": value} for key, value in table.entries.items())]
    if table.fit.fitted_on:
        rows.append(asdict(table.fit))
    replace_file(table.path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _measured_ms(meter: Meter, networks: Sequence[Network]) -> list[float]:
    """Milliseconds of whole networks, the lowest of ``ROUNDS`` medians."""
    rounds = [[meter.measure(network).median_ms for network in networks] for _ in range(ROUNDS)]
    return [min(one) for one in zip(*rounds, strict=True)]


def check(table: Meter, meter: Meter, networks: Sequence[Network]) -> tuple[Agreement, list[tuple[float, float]]]:
    """How well predictions agree with measurements of whole networks; and both, in milliseconds, for every network."""
    pairs = [
        (table.measure(network).median_ms, ms)
        for network, ms in zip(networks, _measured_ms(meter, networks), strict=True)
    ]
    return agreement([a for a, _ in pairs], [b for _, b in pairs]), pairs
