"""The meters of latency by their names."""

from __future__ import annotations

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.latency.command import CommandMeter
from mindcv_mnasnet.latency.record import KINDS, Latency, LatencySettings, Meter
from mindcv_mnasnet.latency.runtime import RuntimeMeter
from mindcv_mnasnet.latency.table import Table
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.surrogate import LABEL, surrogate_latency_ms


def open_meter(settings: LatencySettings) -> Meter:
    """The meter that the settings ask for.

    Raises:
        UserError: an unknown kind, a runtime that is not installed, an invalid pattern, a table that is not there.
    """
    if settings.kind in KINDS:
        return RuntimeMeter(settings)
    if settings.kind == "command":
        return CommandMeter(settings)
    if settings.kind == "table":
        if settings.table is None:
            raise UserError("table: name the file; tools/latency.py build makes it")
        return Table.read(settings.table)
    raise UserError(f"latency: {settings.kind!r} is unknown; it can be {', '.join(KINDS)}, command or table")


class SurrogateMeter:
    """The made-up latency; see ``surrogate``."""

    def measure(self, network: Network) -> Latency:
        """See ``latency.Meter``."""
        return Latency.given(surrogate_latency_ms(network), network, "surrogate", LABEL)


def meter_for(settings: Settings) -> Meter:
    """The meter.

    Raises:
        UserError: a runtime that is not installed, a table that is not there, an invalid pattern.
    """
    return SurrogateMeter() if settings.latency == "surrogate" else open_meter(latency_settings(settings))


def latency_settings(settings: Settings) -> LatencySettings:
    """How a search measures latencies."""
    table = None if settings.latency_table is None else str(settings.beside(settings.latency_table))
    return LatencySettings(
        kind=settings.latency,
        threads=settings.latency_threads,
        batch=settings.latency_batch,
        repetitions=settings.latency_repetitions,
        warm_up=settings.latency_warm_up,
        timeout_s=settings.latency_timeout_s,
        command=settings.latency_command,
        format=settings.latency_format,
        pattern=settings.latency_pattern,
        json_path=settings.latency_json_path,
        scale=settings.latency_scale,
        table=table,
        calls=settings.latency_calls,
    )
