"""Photographs of ImageNet's validation set to compare with other libraries on, where there are some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("MNASNET_SHARED", ROOT.parent / "shared"))
FOLDER = SHARED / "data" / "imagenet_sample"


def photographs() -> list[Path]:
    """JPEG files in folders named by class; without them the test is skipped."""
    found = sorted(FOLDER.glob("val/*/*.*"))
    if not found:
        pytest.skip(f"there are no images in {FOLDER}")
    return found
