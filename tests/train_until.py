"""Trains like train.py, but dies or is told to stop at a given moment; what dies is a real process, by the kernel.

A file of its own, since graphs are kept by the program that compiled them.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import train
from mindcv_mnasnet import files
from mindcv_mnasnet.errors import run_cli
from mindcv_mnasnet.run.log import RunLog

kind, number, name = sys.argv[1].split(":")
write_log_line, write_message, flush = RunLog.step, RunLog.message, os.fsync


def end() -> None:
    os.kill(os.getpid(), getattr(signal, name))


def step(self, done, *args, **more) -> None:
    write_log_line(self, done, *args, **more)
    if done == int(number):
        end()


def message(self, text) -> None:
    write_message(self, text)
    if "run folder" in text:
        end()


def fsync(descriptor) -> None:
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    if path.name == f"step_{int(number):08d}.safetensors.partial":
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        end()
    flush(descriptor)


if kind == "compile":
    RunLog.message = message
elif kind == "step":
    RunLog.step = step
elif kind == "write":
    files.os.fsync = fsync
sys.exit(run_cli(lambda: train.main(sys.argv[2:])))
