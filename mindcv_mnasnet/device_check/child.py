"""Parts of a device check in a process of their own, or one rank of one: child.py PART,... DEVICE FOLDER.

The result of each is PART.json in the folder, of ranks ranks.RANK.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as a script, which is what msrun starts; the package need not be installed
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from mindcv_mnasnet.device_check.parts import FAILED, Outcome
from mindcv_mnasnet.devices.simulation import simulated_group
from mindcv_mnasnet.files import replace_file


def outcome(part: str, device: str) -> Outcome:
    """Run a part; whatever it raises is its outcome."""
    try:
        return _function(part)(device)
    except BaseException as error:  # a part that fails in any way is a result
        said = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        return Outcome(FAILED, f"{type(error).__name__}: {said.strip()[:500]}")


def _function(part: str) -> Callable[[str], Outcome]:
    from mindcv_mnasnet.device_check import computing, profiled

    parts: dict[str, Any] = {
        **{
            f"jit_{level}": lambda device, level=level: computing.compiled(device, level)
            for level in ("O0", "O1", "O2")
        },
        **{dtype: lambda device, dtype=dtype: computing.steps(device, dtype) for dtype in computing.AMP},
        "sink": computing.sink,
        "ranks": computing.ranks,
        "training": computing.training,
        "validation": computing.validation,
        "export": computing.export,
        "profile": profiled.profile,
    }
    function: Callable[[str], Outcome] = parts[part]
    return function


if __name__ == "__main__":
    names, target, folder = sys.argv[1:]
    for name in names.split(","):
        began = time.perf_counter()
        found = replace(outcome(name, target), seconds=time.perf_counter() - began)
        file = f"ranks.{simulated_group()[0]}" if name == "ranks" else name  # msrun says it as dry runs do
        replace_file(Path(folder) / f"{file}.json", json.dumps(found.to_dict()).encode())
