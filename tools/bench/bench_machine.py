"""What a benchmark was measured on, as JSON, for tools/bench/benchmark.py: bench_machine.py FILE."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from mindcv_mnasnet.devices.processor import instruction_set, processor_name, usable_cores

PACKAGES = ("mindspore", "mindcv", "numpy", "pillow")
VARIABLES = ("OMP_", "KMP_", "ONEDNN_", "DNNL_", "MS_", "GLOG_")  # environment variables that change speed


def describe_machine() -> dict[str, Any]:
    """Processor, instruction set, memory, versions, variables that matter, how busy it is, and the code's commit."""
    return {
        "cpu": processor_name(),
        "instruction_set": instruction_set(),
        "cores": usable_cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "variables": {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)},
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit that is measured, with ``+changes`` where files differ from it."""
    git = [["git", "-C", str(ROOT), *words] for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])]
    try:
        head, changes = (subprocess.run(one, capture_output=True, text=True, check=True).stdout.strip() for one in git)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changes else "")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(describe_machine()))
