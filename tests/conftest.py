"""Set-up shared by the tests: no deadlines for Hypothesis on busy machines, and one start of MindSpore."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
settings.register_profile("project", deadline=None)
settings.load_profile("project")
# Libraries and graphs that tests compile: kept between runs, apart from the user's own; make clean removes them.
os.environ.setdefault("MNASNET_CACHE", str(ROOT / ".pytest_cache" / "compiled"))


@pytest.fixture(scope="session")
def cpu():
    """Graph mode on the CPU with deterministic operators."""
    from mindcv_mnasnet.devices import runtime

    return runtime.start("CPU", deterministic=True)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The embedded data set: 1437 training and 360 validation images of ten classes."""
    from mindcv_mnasnet.data.digits import write_digits

    root = tmp_path_factory.mktemp("data set") / "digits"
    write_digits(root)
    return root


@pytest.fixture(scope="session")
def torchvision():
    """torchvision, whose compiled operators may not fit a CPU build of torch and are not used here."""
    pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("could not import 'torchvision': No module named 'torchvision'")
    sys.path.append(str(ROOT))
    return importlib.import_module("tools.bench.bench_peers").import_torchvision()


@pytest.fixture(scope="session")
def timm(torchvision):
    """timm, which imports torchvision."""
    for part in ("timm.optim", "timm.loss", "timm.utils"):
        pytest.importorskip(part)
    return pytest.importorskip("timm")
