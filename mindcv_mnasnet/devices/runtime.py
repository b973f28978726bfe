"""Device, graph mode, jit level, msrun, CPU tuning: all that touches MindSpore's context and environment.

Differences between MindSpore 2.7 and 2.10 live here alone.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import ops
from mindspore.communication import get_group_size, get_rank, init

from mindcv_mnasnet.devices import meeting, obstacles, simulation
from mindcv_mnasnet.devices.processor import instruction_set, processor_name, usable_cores
from mindcv_mnasnet.errors import UserError, first_line

MINDSPORE_VERSION = tuple(int(part) for part in re.findall(r"\d+", ms.__version__)[:2])
DEVICES = ("CPU", "Ascend")
_devices: list[str] = []  # that this process was set to


@dataclass(frozen=True)
class Runtime:
    """Where a job runs: ``rank`` of ``world`` processes on ``device``; ``notes`` are sentences for the log."""

    device: str = "CPU"
    rank: int = 0
    world: int = 1
    jit_level: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def sinks(self) -> bool:
        """Whether the device can pull its data from a queue of its own (data sinking)."""
        return self.device != "CPU"


def under_msrun() -> bool:
    """Whether msrun started this process (it sets MS_ROLE for workers and scheduler)."""
    return os.environ.get("MS_ROLE") in ("MS_WORKER", "MS_SCHED")


def alone_or_here() -> bool:
    """Whether all processes of the job are on this machine, where each meets the same files."""
    return not under_msrun() or meeting.on_this_machine()


def tune_cpu() -> str | None:
    """Keep oneDNN 3.10 from its reference convolutions on AVX-512 machines; returns the sentence to log, or None.

    MindSpore 2.9 and later bundle it, and there every kernel above 1x1 is 50 to 100 times slower than in AVX2 mode.
    oneDNN reads the variable at its first use, so any time before the first operator is early enough. A value that
    the user has set stays. https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
    """
    variable = "ONEDNN_MAX_CPU_ISA"
    chosen = variable in os.environ or "DNNL_MAX_CPU_ISA" in os.environ
    if MINDSPORE_VERSION < (2, 9) or chosen or instruction_set() != "AVX-512":
        return None
    os.environ[variable] = "AVX2"
    return f"set {variable}=AVX2: MindSpore's convolutions are many times faster so on this CPU (yours wins if set)"


def start(
    device_target: str = "auto",
    distribute: bool | None = None,
    jit_level: str | None = None,
    deterministic: bool = False,
) -> Runtime:
    """Set up graph mode on the device, and the process group under msrun. Call once, before any operator.

    ``distribute`` None or True means all processes that msrun started, or the group that a dry run stands for; else
    there is one.

    Raises:
        UserError: the device or a part of its software is not there, another launcher than msrun started several
            processes, or ``distribute`` is False under msrun.
    """
    notes = [tune_cpu()]
    foreign = None if under_msrun() or simulation.simulated() else obstacles.foreign_launch()
    if foreign:
        raise UserError(foreign)
    if under_msrun() and distribute is False:
        raise UserError("distribute is False under msrun, which would train the same job several times; drop one")
    grouped = under_msrun() or simulation.simulated_group()[1] > 1
    if distribute and not grouped:
        notes.append("distribute: no msrun started this process, so it trains alone")
    device = _choose_device(device_target)
    ms.set_context(mode=ms.GRAPH_MODE)
    if deterministic and ms.get_context("deterministic") != "ON":  # MindSpore refuses to set it twice
        ms.set_deterministic(True)
    level, note = effective_jit_level(jit_level, device)
    notes.append(note)
    if level is not None:
        ms.set_context(jit_config={"jit_level": level})
    rank, world = _join_group(device) if grouped and distribute is not False else (0, 1)
    return Runtime(device, rank, world, level, tuple(note for note in notes if note))


def effective_jit_level(level: str | None, device: str) -> tuple[str | None, str | None]:
    """The jit level to use for the one asked for, and the sentence to log where they differ.

    O2 (whole graph through GE) exists on Ascend up to MindSpore 2.8; 2.9 deprecates it in favor of O1
    (``mindspore.JitConfig``).
    """
    if level != "O2" or (device == "Ascend" and MINDSPORE_VERSION < (2, 9)):
        return level, None
    return "O1", f"jit_level O2 is mapped to O1: MindSpore {ms.__version__} on {device} does not offer it"


def _choose_device(target: str) -> str:
    if target == "auto":
        target = "Ascend" if simulation.simulated() or Path("/dev/davinci_manager").exists() else "CPU"
    if target not in DEVICES:
        raise UserError(f"device_target is {target!r}; it can be auto, {' or '.join(DEVICES)}")
    if _devices[-1:] == [target]:
        return target  # a process of a group cannot set it twice, not even to the same
    try:
        ms.set_device(target)
    except (RuntimeError, ValueError, ImportError) as error:
        if target == "CPU":
            raise UserError(f"device_target {target} cannot be taken: {first_line(error)}") from None
        raise UserError(obstacles.explained(error)) from None
    _devices.append(target)
    return target


def _join_group(device: str) -> tuple[int, int]:
    if under_msrun() and (reason := meeting.obstacle()):
        raise UserError(reason)
    try:
        init()
    except (RuntimeError, ValueError, ImportError) as error:
        if device == "CPU":
            raise
        raise UserError(obstacles.explained(error)) from None
    rank, world = get_rank(), get_group_size()
    ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=world)
    return rank, world


def sum_over_ranks(values: np.ndarray, world: int) -> np.ndarray:
    """Element-wise sum of a float32 vector, or of counts below 2**36 (any integer type), over all ranks.

    The CPU's AllReduce knows float32 alone; counts go in two halves that float32 holds exactly.
    """
    if world == 1:
        return values
    if not np.issubdtype(values.dtype, np.integer):
        return _all_sum()(ms.Tensor(values.astype(np.float32))).asnumpy()
    high, low = np.divmod(values.astype(np.int64), 1 << 12)
    halves = _all_sum()(ms.Tensor(np.stack([high, low]).astype(np.float32))).asnumpy().astype(np.int64)
    return (halves[0] << 12) + halves[1]


@cache
def _all_sum() -> ms.nn.Cell:
    return _AllSum()  # kept, as every new cell is compiled anew


class _AllSum(ms.nn.Cell):
    def __init__(self):
        super().__init__()
        self.reduce = ops.AllReduce()

    def construct(self, values):
        return self.reduce(values)


def mixed_precision(model: ms.nn.Cell, level: str, dtype: str) -> None:
    """Let MindSpore cast the model for ``amp_level`` O1, O2, O3 or auto to float16 or bfloat16, in place."""
    ms.amp.auto_mixed_precision(model, level, getattr(ms, dtype))


def describe() -> dict[str, str | int]:
    """Versions and machine, for the run folder."""
    return {
        "mindspore": ms.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "instruction_set": instruction_set(),
        "cores": usable_cores(),
        "command": " ".join(sys.argv),
        "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
    }


def current_device() -> str:
    """The device that MindSpore works on: CPU or Ascend."""
    return str(ms.get_context("device_target"))


def operator_threads() -> int:
    """Threads that one operator may use on the CPU."""
    return min(int(ms.get_context("runtime_num_threads")), usable_cores())
