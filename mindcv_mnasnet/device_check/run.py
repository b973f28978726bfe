"""Runs the parts of a device check one after the other, each guarded."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mindcv_mnasnet.device_check import machine
from mindcv_mnasnet.device_check.parts import FAILED, NOT_HERE, OK, PARTS, Outcome
from mindcv_mnasnet.devices.simulation import simulated

Progress = Callable[[str, Outcome | None], object]
_RANKS = 2
# What one process answers on a CPU, where starting and compiling are most of the time; on NPUs each has its own.
SHARED = ("float32", "training", "validation", "export")


def check(device: str, parts: Sequence[str], progress: Progress = lambda name, outcome: None) -> dict[str, Outcome]:
    """The results of the parts.

    Args:
        device: "CPU" or "Ascend".
        progress: called with a part's name before it and with its outcome after it.
    """
    found: dict[str, Outcome] = {}
    answered: dict[str, Outcome] = {}
    for name in parts:
        progress(name, None)
        began = time.perf_counter()
        try:
            outcome = _unable(name, device) or answered.get(name)
            if outcome is None:
                shares = device == "CPU" and name in SHARED
                answered |= _run(
                    [one for one in SHARED if one in parts and one not in found] if shares else [name], device
                )
                outcome = answered[name]
        except Exception as error:  # the check goes on
            outcome = Outcome(FAILED, f"{type(error).__name__}: {error}")
        found[name] = replace(outcome, seconds=round(outcome.seconds or time.perf_counter() - began, 1))
        progress(name, found[name])
    return found


def _unable(name: str, device: str) -> Outcome | None:
    part = PARTS[name]
    if simulated():
        return Outcome(NOT_HERE, "reads computed values, which a dry run does not have") if part.values else None
    if part.devices and device == "CPU":
        return Outcome(NOT_HERE, "needs an NPU")
    return machine.absent(max(part.devices, _RANKS if name == "ranks" else 0)) if device != "CPU" else None


def _run(names: Sequence[str], device: str) -> dict[str, Outcome]:
    """Results of parts that one process runs: of the first one, and of others as far as it got."""
    if names == ["versions"]:
        return {"versions": machine.versions()}
    if names == ["machine"]:
        return {"machine": machine.machine()}
    with TemporaryDirectory() as folder:
        if names == ["ranks"]:
            return {"ranks": _two_ranks(device, Path(folder))}
        limit = sum(PARTS[name].seconds for name in names)
        return _child([sys.executable, *_words(names, device, folder)], names, Path(folder), limit)


def _words(names: Sequence[str], device: str, folder: Path | str) -> list[str]:
    return [str(Path(__file__).with_name("child.py")), ",".join(names), device, str(folder)]


def _child(command: list[str], names: Sequence[str], folder: Path, limit: float) -> dict[str, Outcome]:
    """Run a process and read what it left of ``names``; the first that a process that died or hung left out failed."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=limit, check=False
        )
        words = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()] or ["no message"]
        ended = f"the process ended with exit code {done.returncode}: {words[-1].strip()[:500]}"
    except subprocess.TimeoutExpired:
        ended = f"no end after {limit:g} s"
    found: dict[str, Outcome] = {}
    for name in names:
        path = folder / f"{name}.json"
        if not path.exists():
            return {**found, name: Outcome(FAILED, ended)}
        found[name] = Outcome(**json.loads(path.read_text()))
    return found


def _two_ranks(device: str, folder: Path) -> Outcome:
    msrun = shutil.which("msrun", path=f"{Path(sys.executable).parent}") or shutil.which("msrun")
    if msrun is None:
        return Outcome(FAILED, "msrun is not on the PATH")
    options = [f"--worker_num={_RANKS}", f"--local_worker_num={_RANKS}", "--join=True", f"--master_port={_free_port()}"]
    command = [msrun, *options, f"--log_dir={folder}/log", *_words(["ranks"], device, folder)]
    names = [f"ranks.{rank}" for rank in range(_RANKS)]
    found = list(_child(command, names, folder, PARTS["ranks"].seconds).values())
    failed = next((one for one in found if one.state != OK), None)
    if failed is not None:
        return failed
    same = len({one.facts["weights"] for one in found}) == 1
    words = f"{found[0].words}; the weights of both ranks are {'' if same else 'not '}equal bit for bit"
    return Outcome(OK if same else FAILED, words, found[0].facts)


def _free_port() -> int:
    with socket.socket() as candidate:
        candidate.bind(("127.0.0.1", 0))
        return int(candidate.getsockname()[1])
