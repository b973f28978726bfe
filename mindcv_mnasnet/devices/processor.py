"""The processor that a job runs on: its name, its cores, and the widest instruction set that matters here."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path

# The flag of /proc/cpuinfo that stands for each, widest first.
_X86 = {"AVX-512": "avx512f", "AVX2": "avx2", "AVX": "avx"}


def instruction_set() -> str:
    """``AVX-512``, ``AVX2``, ``AVX``, ``SSE2`` or ``NEON``; on other machines the architecture's name."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        flags = _field("flags").split()
        return next((name for name, flag in _X86.items() if flag in flags), "SSE2")
    return "NEON" if machine in ("aarch64", "arm64") else machine


def processor_name() -> str:
    """The model that the system reports, or the architecture where it reports none."""
    return _field("model name") or platform.processor() or platform.machine()


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_each(workers: int) -> int:
    """The cores of each of ``workers`` processes that share what this one may use; at least 1."""
    return max(1, usable_cores() // workers)


def pin_to_share(process: int, worker: int, workers: int) -> None:
    """Keep a process that has just started to its part of the cores that this one may use: neighbors, of equal number.

    Two trainings on two cores are 1.2 times as fast so: MindSpore starts as many threads as a process has cores, and
    they wait for each other busily. Where the system knows no such thing, or the process has ended, nothing happens.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    cores, size = sorted(os.sched_getaffinity(0)), cores_each(workers)
    first = worker * size % len(cores)
    with suppress(OSError):
        os.sched_setaffinity(process, cores[first : first + size])


def processor_lines(*names: str) -> list[str]:
    """The different lines of /proc/cpuinfo with these names, sorted; none where there is no such file."""
    return sorted({line for line in _lines() if line.partition(":")[0].strip() in names})


def _field(name: str) -> str:
    """The value of the first line of a name; empty where there is none."""
    return next((line.partition(":")[2].strip() for line in _lines() if line.partition(":")[0].strip() == name), "")


@cache
def _lines() -> tuple[str, ...]:
    try:
        return tuple(Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines())
    except OSError:
        return ()
