"""The parts of a device check, and their results."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

OK, FAILED, NOT_HERE = "ok", "failed", "not here"


@dataclass(frozen=True)
class Part:
    """A part: what it is for, seconds until it is given up, and what it needs.

    Attributes:
        devices: NPUs that it needs; 0 runs on CPUs too.
        values: whether it reads computed values, which a dry run does not have.
    """

    meaning: str
    seconds: int = 600
    devices: int = 0
    values: bool = True


PARTS = {
    "versions": Part("driver, firmware, CANN, MindSpore and Python, against what this MindSpore says it needs", 60),
    "machine": Part("devices, cores, NUMA nodes and instruction set", 60, values=False),
    "jit_O0": Part("the training step compiled operator by operator", devices=1, values=False),
    "jit_O1": Part("the training step compiled with fusion", devices=1, values=False),
    "jit_O2": Part("the training step compiled as a whole graph", 1200, devices=1, values=False),
    "float32": Part("ten steps in float32 against the CPU's losses"),
    "float16": Part("ten steps with half precision against the CPU's losses", devices=1),
    "bfloat16": Part("ten steps with bfloat16 against the CPU's losses", devices=1),
    "sink": Part("steps per sunk call, with a prime number of steps in an epoch", devices=1),
    "ranks": Part("two ranks with the same images against one; their weights bit for bit"),
    "training": Part("training speed, the time to dispatch a step apart, against the model of docs/ascend.md"),
    "profile": Part("a step's time by MindSpore's profiler: computing, communication, idle", devices=1),
    "validation": Part("validation speed"),
    "export": Part("a MindIR file written, loaded and compared"),
}


@dataclass(frozen=True)
class Outcome:
    """A part's result: ``state`` is ok, failed or not here; ``words`` one sentence; ``facts`` numbers for JSON."""

    state: str
    words: str
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)
