"""The golden file of the detection tests, see tests/reference/detection/README.md."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).parents[1] / "reference" / "detection"


@cache
def golden() -> dict[str, np.ndarray]:
    """Arrays by name; boxes in pixels of a 320-pixel image."""
    with np.load(REFERENCE / "ssd_golden.npz") as stored:
        return dict(stored)
