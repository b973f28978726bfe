"""Training: in this process, or in processes of their own, which can be killed, stopped and started by msrun."""

from __future__ import annotations

import io
import os
import random
import signal
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

import train
from mindcv_mnasnet.errors import run_cli
from mindcv_mnasnet.run import log
from mindcv_mnasnet.run.checkpoint import read_checkpoint
from mindcv_mnasnet.run.log import read_log

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 300  # for any process, on a busy machine
STEPS_PER_EPOCH = 20

# Everything that a resume has to bring back: random crops and drops, mixing, averages, momenta, a schedule.
TINY: dict[str, Any] = {
    "dataset": "digits",
    "num_samples": 32 * STEPS_PER_EPOCH,
    "blocks": ["r1_k3_s22_e1_o8_noskip", "r1_k3_s11_e3_o8_se0.25"],
    "stem": 8,
    "head": 32,
    "image_resize": 16,
    "batch_size": 32,
    "epoch_size": 3,
    "scale": [0.5, 1.0],
    "drop_rate": 0.2,
    "drop_path_rate": 0.2,
    "mixup": 0.2,
    "cutmix": 1.0,
    "re_prob": 0.3,
    "ema": True,
    "ema_ramp": True,
    "opt": "rmsprop",
    "lr": 0.01,
    "warmup_epochs": 0.5,
    "decay_epochs": 2.5,
    "deterministic": True,
    "val_while_train": True,
    "ckpt_save_steps": 7,
    "log_interval": 1,
}

# Compiles fast, for tests about something else.
PLAIN: dict[str, Any] = {
    "dataset": "digits",
    "num_samples": 64,
    "blocks": ["r1_k3_s22_e1_o8_noskip"],
    "stem": 8,
    "head": 8,
    "image_resize": 16,
    "batch_size": 16,
    "epoch_size": 1,
    "drop_rate": 0.0,
    "color_jitter": 0.0,
    "opt": "sgd",
    "lr": 0.05,
    "warmup_epochs": 0,
    "log_interval": 1,
    "deterministic": True,
}


def write_recipe(folder: Path, base: dict[str, Any], **keys: Any) -> Path:
    path = folder / "recipe of a test.yaml"
    path.write_text(yaml.safe_dump(base | keys))
    return path


def cli(*words: str | Path, program: ModuleType = train) -> int:
    """The exit code of train.py (or another program of ours) for a command line, in this process."""
    return run_cli(lambda: program.main([str(word) for word in words]))


def captured(*words: str | Path, program: ModuleType = train) -> subprocess.CompletedProcess[str]:
    """A command line of ours in this process: its exit code and what it prints."""
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as complaints:
        code = cli(*words, program=program)
    return subprocess.CompletedProcess(words, code, output.getvalue(), complaints.getvalue())


def stopped_at(step: int, *words: str | Path) -> int:
    """Train in this process and be told during step ``step`` to stop."""

    class Stopping(log.RunLog):
        def step(self, done: int, *args, **more) -> None:
            super().step(done, *args, **more)
            if done == step - 1:
                signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mindcv_mnasnet.train.engine.RunLog", Stopping)
        return cli(*words)


def refused(capsys: Any, *words: str | Path, code: int = 2, program: ModuleType = train) -> str:
    """The one sentence on the error stream of a command line that ends with ``code``."""
    capsys.readouterr()
    assert cli(*words, program=program) == code
    (sentence,) = capsys.readouterr().err.splitlines()
    return sentence


def environment() -> dict[str, str]:
    """This one's, with this Python first on the PATH: msrun starts whatever ``python`` is."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(*words: str | Path, cwd: Path, program: Path = ROOT / "train.py") -> subprocess.CompletedProcess[str]:
    """A command line of ours from start to end."""
    command = [sys.executable, str(program), *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=SECONDS)


def run_until(moment: str, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Train until ``compile:0:SIGNAL``, ``step:N:SIGNAL`` (N was logged) or ``write:N:SIGNAL`` (half of it is).

    Any other moment never comes. All share the graphs that they compile.
    """
    return run(moment, *words, cwd=cwd, program=ROOT / "tests" / "train_until.py")


def _free_port() -> int:
    """One below those that the system gives to outgoing connections, which might take it before msrun does."""
    while True:
        with suppress(OSError), socket.socket() as candidate:
            candidate.bind(("127.0.0.1", random.SystemRandom().randrange(10000, 30000)))
            return int(candidate.getsockname()[1])


def msrun(
    *words: str | Path, cwd: Path, options: tuple[str, ...] = (), patient: bool = True
) -> subprocess.CompletedProcess[str]:
    """Two processes on this machine; the result carries msrun's own output, in which the workers' is.

    They forgive each other minutes of silence if ``patient``, for machines that stand still at times; a job in which
    one fails on purpose ends sooner without.
    """
    command = [str(Path(sys.executable).with_name("msrun")), "--worker_num=2", "--local_worker_num=2", "--join=True"]
    command += [f"--master_port={_free_port()}", f"--log_dir={cwd / 'msrun_log'}", *options, *map(str, words)]
    env = environment() | ({"MS_NODE_TIMEOUT": str(SECONDS // 2)} if patient else {})
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=pipe, stderr=pipe, text=True)
    try:
        output = process.communicate(timeout=SECONDS)
        return subprocess.CompletedProcess(command, process.returncode, *output)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # it kills its workers, which are no children of ours
        raise AssertionError(f"no end after {SECONDS} s: {''.join(process.communicate())}") from None


def steps(run_folder: Path) -> list[tuple[int, float, float]]:
    """(step, loss, learning rate) of every step line of a run's log, in its order."""
    return [(r["step"], r["loss"], r["lr"]) for r in read_log(run_folder / "log.jsonl") if r["kind"] == "step"]


def messages(run_folder: Path) -> str:
    return "\n".join(r["text"] for r in read_log(run_folder / "log.jsonl") if r["kind"] == "message")


def state(run_folder: Path, step: int) -> dict[str, np.ndarray]:
    """Every tensor of the checkpoint after ``step`` steps: weights, averages, momenta, counters."""
    return dict(read_checkpoint(run_folder / "checkpoints" / f"step_{step:08d}.safetensors").tensors)


def unequal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """Names of tensors that are not the same bits in both."""
    bits = [{name: (value.dtype, value.tobytes()) for name, value in tensors.items()} for tensors in (one, other)]
    return sorted(name for name in one.keys() | other.keys() if bits[0].get(name) != bits[1].get(name))
