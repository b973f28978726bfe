"""The operators' library: compiled on first use with the machine's compiler, kept in a cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mindcv_mnasnet.devices import environment, runtime
from mindcv_mnasnet.devices.processor import processor_lines
from mindcv_mnasnet.errors import UserError

SOURCE = Path(__file__).with_name("operators.cpp")
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-pthread")
# What MNASNET_KERNELS may ask for in place of all that the processor has.
LIMITS = {
    "avx512": ("-march=x86-64", "-mavx512f", "-mfma"),
    "avx2": ("-march=x86-64", "-mavx2", "-mfma"),
    "sse2": ("-march=x86-64",),
}
_NATIVE = {"x86_64": ("-march=native",), "aarch64": ("-mcpu=native",)}
_MOST_SECONDS = 300  # a compiler that takes longer hangs; it needs 15


@dataclass(frozen=True)
class Kernels:
    """Where the operators are, or why there are none; ``note`` is the sentence to log."""

    path: str | None
    note: str | None = None


def kernels() -> Kernels:
    """The operators for this process, built if they are not in the cache; never fails.

    ``MNASNET_KERNELS=off`` means none, and so does any device but the CPU; ``avx512``, ``avx2`` and ``sse2`` build for
    that instruction set rather than for all that the processor has. ``CXX`` names another compiler.
    """
    if environment.kernels_switched_off() or runtime.current_device() != "CPU" or platform.system() != "Linux":
        return Kernels(None)
    return loaded()


@cache
def loaded() -> Kernels:
    """The operators for this process, whatever the switches say."""
    try:
        path = build(environment.cache_folder() / "kernels")
        library = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError, UserError) as error:
        return Kernels(None, f"fast CPU operators cannot be built here ({_reason(error)}): MindSpore's own are used")
    library.mnasnet_set_threads(runtime.operator_threads())
    return Kernels(str(path))


def build(folder: Path) -> Path:
    """The library in ``folder``, compiled if it is not there for this source, compiler and processor.

    Raises:
        OSError: no compiler, no place to write, or MNASNET_KERNELS is unknown.
        subprocess.SubprocessError: the compiler fails.
        UserError: ``CXX`` is no command.
    """
    compiler = environment.compiler()
    if shutil.which(compiler[0]) is None:
        raise FileNotFoundError(f"no C++ compiler {compiler[0]}")
    flags = [*FLAGS, *_instructions()]
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True, timeout=30).stdout
    sources = [path.read_bytes() for path in sorted([SOURCE, *SOURCE.parent.glob("*.h")])]
    parts = (*sources, version, " ".join(flags).encode(), processor().encode())
    key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]
    path = folder / f"operators-{key}.so"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(suffix=".so", dir=folder)  # several processes may build at once
    os.close(handle)
    try:
        command = [*compiler, *flags, str(SOURCE), "-o", partial]
        subprocess.run(command, capture_output=True, check=True, timeout=_MOST_SECONDS)
        Path(partial).chmod(0o755)
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)
    return path


def _instructions() -> tuple[str, ...]:
    asked = environment.kernels_variable()
    if asked in ("", "on", "1"):
        return _NATIVE.get(platform.machine(), ())
    if asked not in LIMITS:
        raise OSError(f"MNASNET_KERNELS={asked} is none of off, {', '.join(LIMITS)}")
    return LIMITS[asked]


def processor() -> str:
    """What -march=native depends on."""
    names = ("vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU part")
    return "\n".join(processor_lines(*names)) or platform.processor()


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        return f"the compiler says: {said[0] if said else f'exit code {error.returncode}'}"
    return str(error)
