"""What MindSpore's log says of a dry run: kernels by phase and kind, collectives, memory."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

MARK = "@@dry-run "  # begins the lines that the job itself prints between MindSpore's
COLLECTIVES = ("AllReduce", "AllGather", "ReduceScatter", "Broadcast", "AlltoAll")
NOT_PROVEN = "values, speed, whether CANN has every kernel for its type and format, and whole-graph O2"
_KERNEL = re.compile(r"kernel opname:(\w+), kernel type:(\w+)")
_VIEW = re.compile(r"OptimizeNopNode\] The reference relation of nopnode")
_PEAK = re.compile(r"(Used|Actual) peak memory usage \(\w+ fragments\): (\d+)M")


@dataclass
class Phase:
    """A part of a dry run, such as the training step: ``kernels`` launched by operator, and by ``types`` of kernel.

    Types are MindSpore's: opapi (aclnn), acl (older operators), akg (fused at O1), hccl (collectives), rt, host.
    ``views`` are operators that only rename a tensor: they are chosen a kernel and launch none.
    """

    name: str
    seconds: float = 0.0
    kernels: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    views: int = 0
    collective_bytes: int = 0

    @property
    def launched(self) -> int:
        """Kernels launched each time that the phase runs."""
        return sum(self.kernels.values()) - self.views

    @property
    def collectives(self) -> int:
        """Collectives each time that the phase runs."""
        return sum(self.kernels[name] for name in COLLECTIVES)

    @property
    def fused(self) -> int:
        """Kernels that the fusion compiler made of several operators."""
        return self.types["akg"]


@dataclass
class Report:
    """A dry run: its ``phases``, peak memory in bytes (without and with fragments), and what was run.

    ``errors`` is what MindSpore logged as errors after the whole job had gone through.
    """

    recipe: str
    jit_level: str
    devices: int
    phases: list[Phase] = field(default_factory=list)
    peak_bytes: int = 0
    peak_bytes_with_fragments: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def phase(self, name: str) -> Phase:
        """The phase of that name.

        Raises:
            KeyError: it was not run.
        """
        for one in self.phases:
            if one.name == name:
                return one
        raise KeyError(name)

    def read(self, lines: Iterable[str]) -> list[str]:
        """Take what the lines of a job's log say; returns the last of those that say something else."""
        others: list[str] = []
        current: Phase | None = None
        for line in lines:
            if line.startswith(MARK):
                current = self._marked(json.loads(line[len(MARK) :]), current)
            elif (found := _KERNEL.search(line)) and current is not None:
                current.kernels[found[1]] += 1
                current.types[found[2].removesuffix("_kernel")] += 1
            elif _VIEW.search(line) and current is not None:
                current.views += 1
            elif peak := _PEAK.search(line):
                which = "peak_bytes" if peak[1] == "Used" else "peak_bytes_with_fragments"
                setattr(self, which, int(peak[2]) << 20)
            elif line.startswith(("[ERROR]", "[CRITICAL]")) and "loop_seconds" in self.facts:
                self.errors.append(line.rstrip("\n"))
            elif not line.startswith(("[INFO]", "[WARNING]")):
                others = [*others[-199:], line.rstrip("\n")]
        return others

    def _marked(self, mark: dict[str, Any], current: Phase | None) -> Phase | None:
        if "begin" in mark:
            self.phases.append(Phase(mark["begin"]))
            return self.phases[-1]
        if "end" in mark and current is not None:
            current.seconds, current.collective_bytes = mark["end"], mark.get("collective_bytes", 0)
            return None
        self.facts |= mark.get("facts", {})
        return current

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        phases = [
            {**vars(one), "launched": one.launched, "collectives": one.collectives, "fused": one.fused}
            for one in self.phases
        ]
        return {**vars(self), "phases": phases, "not_proven": NOT_PROVEN}

    def text(self) -> str:
        """The report for a person."""
        where = f"rank 0 of {self.devices} devices" if self.devices > 1 else "one device"
        said = ", ".join(f"{name} {self.facts[name]}" for name in ("MindSpore", "batch") if name in self.facts)
        lines = [f"{self.recipe}, jit_level {self.jit_level}, {where} ({said})"]
        for one in self.phases:
            line = f"  {one.name:<11} compiled in {one.seconds:.0f} s: {one.launched:,} kernels"
            if one.fused:
                line += f", {one.fused} of them fused"
            if one.collectives:
                line += f", {one.collectives} collectives of {one.collective_bytes / 1e6:.1f} MB in all"
            lines.append(line)
            frequent = ", ".join(f"{name} {count}" for name, count in one.kernels.most_common(8))
            lines.append(f"  {'':<11} most frequent: {frequent}")
        peak, whole = self.peak_bytes / 2**30, self.peak_bytes_with_fragments / 2**30
        fits = " and ".join(f"{'fits' if whole < 0.94 * size else 'does not fit'} {size} GB" for size in (32, 64))
        lines.append(f"  memory      {peak:.1f} GB at the peak, {whole:.1f} with fragments: {fits}")
        if "loop_seconds" in self.facts:
            lines.append(
                f"  loop        two steps, validation and checkpoint went through: {self.facts['loop_seconds']:.0f} s"
            )
        if self.errors:
            lines.append(f"  errors      {len(self.errors)} lines after the end, the first: {self.errors[0]}")
        lines += [f"  note        {note}" for note in self.notes]
        return "\n".join([*lines, f"  not proven  {NOT_PROVEN}"])
