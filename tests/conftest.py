"""Set-up shared by the tests: no deadlines for Hypothesis on busy machines, and one start of MindSpore."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def cpu():
    """Graph mode on the CPU with deterministic operators."""
    from mindcv_mnasnet import runtime

    return runtime.start("CPU", deterministic=True)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The embedded data set: 1437 training and 360 validation pictures of ten classes."""
    from mindcv_mnasnet.data.digits import write_digits

    root = tmp_path_factory.mktemp("data set") / "digits"
    write_digits(root)
    return root
