"""What is installed and what the machine has, without loading MindSpore."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import platform
import re
import subprocess
from pathlib import Path

from mindcv_mnasnet.device_check.parts import FAILED, NOT_HERE, OK, Outcome
from mindcv_mnasnet.devices.processor import instruction_set, processor_name
from mindcv_mnasnet.devices.simulation import cann_folder

_ASCEND = Path("/usr/local/Ascend")
_CORES_PER_DEVICE = 8
_PACKAGES = ("mindspore", "numpy", "hccl", "te", "mindcv_mnasnet")
_VERSION = re.compile(r"^\s*(?:version|Version|package_version)\s*=\s*\"?\[?([\w.]+)", re.MULTILINE)


def versions() -> Outcome:
    """Versions of all that has to fit together, and whether MindSpore's own list has the CANN that is installed."""
    cann = cann_folder()
    found = {
        "python": platform.python_version(),
        "architecture": platform.machine(),
        **{name: _package(name) for name in _PACKAGES},
        "driver": _stated(_ASCEND / "driver" / "version.info"),
        "firmware": _stated(_ASCEND / "firmware" / "version.info"),
        "CANN": None if cann is None else _stated(cann / "compiler" / "version.info"),
    }
    known = _known_cann()
    facts = {**found, "CANN that MindSpore names": known}
    words = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    missing = [name for name in ("driver", "firmware", "CANN", "hccl") if not found[name]]
    if len(missing) == 4:
        return Outcome(OK, f"{words}; no driver, no firmware, no CANN", facts)
    if found["CANN"] and known and not any(found["CANN"].startswith(one) for one in known):
        needed = ", ".join(known)
        return Outcome(FAILED, f"{words}; MindSpore {found['mindspore']} is made for CANN {needed}", facts)
    if missing:
        return Outcome(FAILED, f"{words}; missing: {', '.join(missing)}", facts)
    return Outcome(OK, words, facts)


def machine() -> Outcome:
    """Devices, cores and NUMA nodes."""
    from mindcv_mnasnet.devices.runtime import usable_cores

    npus, chips, cores = device_count(), _chips(), usable_cores()
    nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
    libnuma = ctypes.util.find_library("numa") is not None
    facts = {"devices": npus, "chips": chips, "processor": processor_name(), "instruction_set": instruction_set()}
    facts |= {"cores": cores, "numa_nodes": nodes, "libnuma": libnuma}
    words = f"{npus} NPUs{' (' + ', '.join(chips) + ')' if chips else ''}; {processor_name()}, {instruction_set()}, "
    words += f"{cores} cores, {nodes} NUMA nodes{'' if libnuma else ', no libnuma'}"
    if npus and cores < _CORES_PER_DEVICE * npus:
        words += f"; {cores} cores are few for {npus} devices: the host will limit (docs/ascend.md)"
    return Outcome(OK, words, facts)


def device_count() -> int:
    """NPUs that the driver shows."""
    return len(list(Path("/dev").glob("davinci[0-9]*")))


def absent(devices: int) -> Outcome | None:
    """Why a part that needs ``devices`` NPUs does not run here; None where they are there."""
    count = device_count()
    if count >= devices:
        return None
    return Outcome(NOT_HERE, f"needs {devices} NPU{'s' * (devices > 1)}, there are {count}")


def _package(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _stated(path: Path) -> str | None:
    try:
        found = _VERSION.search(path.read_text(errors="replace"))
    except OSError:
        return None
    return found.group(1) if found else None


def _known_cann() -> list[str]:
    """Versions of CANN that the installed MindSpore checks for; empty where it does not say."""
    try:
        source = importlib.metadata.distribution("mindspore").locate_file("mindspore/run_check/_check_version.py")
        text = Path(str(source)).read_text().partition("class AscendEnvChecker")[2]
    except (OSError, importlib.metadata.PackageNotFoundError):
        return []
    stated = re.search(r"self\.version = \[([^\]]*)\]", text)
    return re.findall(r"\d[\d.]*", stated.group(1)) if stated else []


def _chips() -> list[str]:
    """Names of the chips, such as 910B2, as ``npu-smi`` says."""
    try:
        said = subprocess.run(["npu-smi", "info"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return sorted(set(re.findall(r"\b(310\w*|910\w*)\b", said)))
