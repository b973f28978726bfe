"""MindSpore's dry run: the environment in which its Ascend back end compiles a job and computes nothing."""

from __future__ import annotations

import os
from pathlib import Path

from mindcv_mnasnet.devices import stand_ins
from mindcv_mnasnet.devices.environment import compiler, whole_number

_LEVEL = (
    "MS_SIMULATION_LEVEL"  # https://www.mindspore.cn/tutorials/en/master/debug/dryrun.html; msrun --sim_level sets it
)
_CANN = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")
_DEFAULT_CANN = Path("/usr/local/Ascend/ascend-toolkit/latest")
# What the counts are read from: the kernel of every operator, and operators that only rename a tensor.
_LOGGED = "{DEVICE:1,RUNTIME_FRAMEWORK:1}"


def simulated() -> bool:
    """Whether this process is a dry run: nothing is computed, and every value read back is zero."""
    return bool(os.environ.get(_LEVEL))


def simulated_group() -> tuple[int, int]:
    """Rank and size of the group that a dry run stands for, as ``RANK_ID`` and ``RANK_SIZE`` say.

    Raises:
        UserError: they are no whole numbers.
    """
    return whole_number("RANK_ID", 0), whole_number("RANK_SIZE", 1, least=1)


def cann_folder() -> Path | None:
    """Where CANN is installed, as its own environment says, or in its usual place; None where it is not."""
    named = [Path(os.environ[name]) for name in _CANN if os.environ.get(name)]
    for folder in (*named, _DEFAULT_CANN):
        if (folder / "lib64" / "libascendcl.so").exists():
            return folder
    return None


def environment(cache: Path, devices: int = 1, logged: bool = True) -> dict[str, str]:
    """The environment of a dry run as rank 0 of ``devices``: CANN's libraries where they are, else stand-ins.

    Args:
        cache: where stand-ins are kept.
        logged: let MindSpore log the kernels that it chooses.
    Raises:
        UserError: stand-ins are needed and cannot be built.
    """
    found = {name: value for name, value in os.environ.items() if not name.startswith(("MS_", "GLOG_"))}
    found |= {_LEVEL: "1", "RANK_SIZE": str(devices), "RANK_ID": "0", "DEVICE_ID": "0"}
    found["GLOG_v"] = "3"
    if logged:
        found |= {"GLOG_v": "2", "MS_SUBMODULE_LOG_v": _LOGGED}
    if cann_folder() is not None:
        return found
    folder = stand_ins.build(cache, compiler())
    root = str(folder / "cann/latest")
    found |= {"ASCEND_HOME_PATH": root, "ASCEND_TOOLKIT_HOME": root, "ASCEND_AICPU_PATH": root}
    found["ASCEND_OPP_PATH"] = f"{root}/opp"
    before = found.get("LD_LIBRARY_PATH")
    found["LD_LIBRARY_PATH"] = ":".join([*map(str, stand_ins.library_paths(folder)), *([before] if before else [])])
    before = found.get("PYTHONPATH")
    found["PYTHONPATH"] = ":".join([str(folder / "python"), *([before] if before else [])])
    return found
