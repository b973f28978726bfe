"""What keeps a job from starting on an NPU or in a group, each as one sentence with a way out."""

from __future__ import annotations

import os
import re
from pathlib import Path

# Variables by which launchers other than msrun tell a process how many there are.
_LAUNCHERS = {
    "RANK_SIZE": "RANK_SIZE",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpirun",
    "MV2_COMM_WORLD_SIZE": "mpirun",
    "WORLD_SIZE": "torchrun",
}
_GUIDE = "https://www.mindspore.cn/install"
_RUN_ALONE = "or take --device_target CPU"


def foreign_launch() -> str | None:
    """Why processes that something other than msrun started cannot form a group; None where there is one process."""
    for variable, launcher in _LAUNCHERS.items():
        size = os.environ.get(variable, "")
        if size.isdigit() and int(size) > 1:
            said = f"{variable} is {size}" + ("" if launcher == variable else f" ({launcher})")
            return (
                f"{said}, but msrun did not start this process, so every one would train the same job alone: "
                f"start it with msrun --worker_num {size} python train.py ..., or unset {variable}"
            )
    return None


def explained(error: BaseException) -> str:
    """One sentence on why the Ascend back end does not start here, from what MindSpore raised.

    The cases follow MindSpore's and CANN's own messages: a library that the linker cannot find is CANN's (toolkit) or
    the driver's (``libascend_hal.so``, ``libdrvdsmi_host.so``); 507033 and 507899 are errors of the driver and of a
    device in use, https://www.hiascend.com/document (aclError).
    """
    text = str(error)
    if isinstance(error, ModuleNotFoundError):
        name = str(error.name)
        return (
            f"the Python package {name} is missing: it comes with CANN, pip install "
            f"$ASCEND_HOME_PATH/lib64/{name}-*-py3-none-any.whl, {_RUN_ALONE}"
        )
    library = re.search(r"(lib\w+\.so\S*): cannot open shared object", text)
    if not _driver_is_here():
        return (
            "device_target Ascend: there is no NPU driver here (/dev/davinci_manager is missing): "
            f"install Ascend's driver and firmware ({_GUIDE}), {_RUN_ALONE}"
        )
    if library and re.match(r"lib(ascend_hal|drv\w+|mmpa_drv)\.", library[1]):
        return (
            f"device_target Ascend: the driver's library {library[1]} is not found: add "
            f"/usr/local/Ascend/driver/lib64 and its sub-folders to LD_LIBRARY_PATH, {_RUN_ALONE}"
        )
    if library:
        return (
            f"device_target Ascend: CANN's library {library[1]} is not found: install CANN, or set its "
            f"environment with `. /usr/local/Ascend/ascend-toolkit/set_env.sh`, {_RUN_ALONE}"
        )
    if re.search(r"undefined symbol|version.{0,40}(not match|mismatch|unsupported)|incompatible", text, re.IGNORECASE):
        return (
            "device_target Ascend: CANN and MindSpore do not fit each other "
            f"({_first_line(text)}): take the versions that {_GUIDE} lists together"
        )
    if re.search(
        r"507033|507899|107002|occupied|is being used|device.{0,20}busy|Device is occupied", text, re.IGNORECASE
    ):
        return (
            f"device_target Ascend: the device is in use or does not answer ({_first_line(text)}): see `npu-smi info`, "
            "choose another with ASCEND_RT_VISIBLE_DEVICES"
        )
    return f"device_target Ascend is not usable here ({_first_line(text)}): see {_GUIDE}, {_RUN_ALONE}"


def _driver_is_here() -> bool:
    return Path("/dev/davinci_manager").exists()


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip(" -")]
    return lines[0] if lines else "no reason given"
