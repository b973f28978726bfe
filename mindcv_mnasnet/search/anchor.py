"""The anchor: the network whose latency is the measure of a search's target."""

from __future__ import annotations

import json
from pathlib import Path

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import replace_file
from mindcv_mnasnet.latency.record import Latency, Meter
from mindcv_mnasnet.latency.turns import TurnsMeter
from mindcv_mnasnet.search.candidates import reference_of
from mindcv_mnasnet.search.meters import meter_for
from mindcv_mnasnet.search.settings import Settings, changed
from mindcv_mnasnet.search.space import Space

FILE = "anchor.json"


def anchored(settings: Settings, folder: Path) -> Settings:
    """The settings with the target in milliseconds that the folder's anchor stands for, where it was measured."""
    path = folder / FILE
    if settings.target_network is None or not path.is_file():
        return settings
    try:
        anchor = Latency.from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return changed(settings, target_ms=settings.target_factor * anchor.median_ms)


def open_anchored(settings: Settings, space: Space, folder: Path) -> tuple[Settings, Meter]:
    """The settings with their target in milliseconds, and the meter, which measures devices in turns with the anchor.

    The anchor is measured once, at the start of a search: later milliseconds are ratios times that latency.

    Raises:
        LatencyError: the device failed.
    """
    meter = meter_for(settings)
    if settings.target_network is None:
        return settings, meter
    anchor = reference_of(settings, space, settings.target_network)
    if not (folder / FILE).is_file():
        replace_file(folder / FILE, json.dumps(meter.measure(anchor).to_dict()).encode())
    settings = anchored(settings, folder)
    if not hasattr(meter, "opened"):
        return settings, meter
    anchor_ms = settings.target_ms / settings.target_factor
    return settings, TurnsMeter(meter, anchor, anchor_ms, settings.latency_turns, settings.latency_error)
