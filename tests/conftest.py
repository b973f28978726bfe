"""Set-up shared by the tests: no deadlines for Hypothesis on busy machines, and one start of MindSpore."""

from __future__ import annotations

import ast
import functools
import gc
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


# Files of more than 10 s, longest first.
LONG = (
    *("test_shipped_recipes", "test_export", "test_detection_training", "test_train", "test_search_strategies"),
    *("test_step_rows", "test_quantization", "test_predict", "test_resume", "test_kernels", "test_step"),
    *("test_msrun", "test_detection_validation", "test_search_quick", "test_supernet_training"),
    *("test_search_run", "test_kernels_builds", "test_detector_export", "test_model", "test_detector_network"),
    *("test_validate", "test_compile_cache", "test_sink", "test_search_band", "test_search_stops"),
    *("test_supernet", "test_predict_boxes", "test_search_trials", "test_model_function", "test_device_check"),
    *("test_operators", "test_data_of_a_run", "test_step_parts", "test_step_gradients", "test_stopping"),
)


@pytest.fixture(scope="session")
def cpu():
    """Graph mode on the CPU with deterministic operators."""
    from mindcv_mnasnet.devices import runtime

    started = runtime.start("CPU", deterministic=True)
    gc.collect()
    gc.freeze()  # MindSpore collects garbage at every compilation: not through all of its own modules
    return started


@pytest.fixture(scope="module")
def library(cpu):
    """The CPU operators, which every machine with a compiler has."""
    from mindcv_mnasnet.kernels import build

    found = build.kernels()
    if found.path is None:
        pytest.skip(found.note or "no operators")
    return found.path


@pytest.fixture
def pynative(cpu):
    """Without compilation, so that many shapes are tried quickly."""
    import mindspore as ms

    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=ms.GRAPH_MODE)


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


# --- make test-fast: what needs no MindSpore --------------------------------------------------------------------------


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="only tests that work without MindSpore")


def pytest_ignore_collect(collection_path, config):
    """Under --fast, leave out the test files that load MindSpore when they are imported."""
    if config.getoption("--fast") and collection_path.suffix == ".py" and loads_mindspore(collection_path):
        return True
    return None


def pytest_collection_modifyitems(config, items):
    """Long files come first, so that no core waits for one; under --fast, what starts MindSpore is left out."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
    if config.getoption("--fast"):
        slow = {"cpu", "torchvision", "timm"}
        items[:] = [item for item in items if not slow & set(getattr(item, "fixturenames", ()))]


@functools.cache
def loads_mindspore(path: Path) -> bool:
    """Whether importing a file imports MindSpore, by its own import statements or by those of what it imports."""
    for node in ast.parse(path.read_text()).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] in {"mindspore", "subprocess", "processes", "tiny", "exported"}:
                return True
            inner = ROOT.joinpath(*name.split("."))
            for file in (inner.with_suffix(".py"), inner / "__init__.py"):
                if name.startswith("mindcv_mnasnet.") and file.is_file() and loads_mindspore(file):
                    return True
    return False
