"""Trainings at once: processes on this machine, or workers of a Ray cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from mindcv_mnasnet.devices import environment
from mindcv_mnasnet.devices.processor import pin_to_share
from mindcv_mnasnet.errors import JobError, first_line, require_extra
from mindcv_mnasnet.search.jobs import Job, WaitingJobs
from mindcv_mnasnet.search.proxy import RESULT

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Result:
    """How a training ended: a status of ``trials``, its reason, accuracy in [0, 1] and loss on ``images``, its time."""

    status: str
    reason: str = ""
    accuracy: float | None = None
    seconds: float = 0.0
    loss: float | None = None
    images: int | None = None


class Pool(Protocol):
    """Runs the jobs of ``proxy.write_job``."""

    def run(self, jobs: Iterable[Job | None]) -> Iterator[tuple[int, Result]]:
        """(number, result) of every (number, job), as they end; fewer after ``stop``.

        A job is taken when a worker is free for it. None is no job yet: it is asked again when another has ended.
        """

    def stop(self) -> None:
        """Begin nothing more; what runs goes on."""

    def close(self) -> None:
        """End everything that still runs."""


class LocalPool:
    """Up to ``workers`` processes at once; the machine's cores are shared out among them."""

    def __init__(self, workers: int, timeout_s: float, retries: int):
        self._workers, self._timeout, self._retries = workers, timeout_s, retries
        self._running: dict[int, Training] = {}
        self._stopped = False

    def run(self, jobs: Iterable[Job | None]) -> Iterator[tuple[int, Result]]:
        """See ``Pool``."""
        waiting = WaitingJobs(jobs, self._retries)
        while self._running or (waiting.more and not self._stopped):
            while len(self._running) < self._workers and not self._stopped and (taken := waiting.take()):
                number, path, attempts = taken
                free = min(set(range(self._workers)) - {training.worker for training in self._running.values()})
                self._running[number] = Training(path, self._timeout, attempts, self._workers, free)
            for number, process in list(self._running.items()):
                result = process.poll()
                if result is None:
                    continue
                del self._running[number]
                if result.status == "died" and process.attempts > 0 and not self._stopped:
                    waiting.give_back((number, process.job, process.attempts - 1))
                else:
                    yield number, settled(result)
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """See ``Pool``."""
        self._stopped = True

    def close(self) -> None:
        """See ``Pool``."""
        for process in self._running.values():
            process.kill()
        self._running.clear()


class Training:
    """A job's process, which ends by itself, at its time limit or by ``kill``.

    ``worker`` of ``workers`` has its own cores; None: the system chooses.
    """

    def __init__(
        self,
        job: Path,
        timeout_s: float,
        attempts: int,
        workers: int,
        worker: int | None = None,
        program: Sequence[str] | None = None,
    ):
        self.job, self.attempts, self.worker = job, attempts, worker
        self._began, self._timeout = time.monotonic(), timeout_s
        (job.parent / RESULT).unlink(missing_ok=True)
        with (job.parent / "output.txt").open("wb") as output:
            self._process = subprocess.Popen(
                [*(program or (sys.executable, "-m", "mindcv_mnasnet.search.proxy")), str(job)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment.worker_environment(workers),
                start_new_session=True,  # Ctrl-C is for the search, which lets trials end
            )
        if worker is not None:
            pin_to_share(self._process.pid, worker, workers)

    def poll(self) -> Result | None:
        """The result when the process has ended or its time is up."""
        seconds = time.monotonic() - self._began
        code = self._process.poll()
        if code is None:
            if seconds < self._timeout:
                return None
            self.kill()
            return Result("timeout", f"longer than trial_timeout_s {self._timeout:g}", None, seconds)
        return read_result(self.job, code, seconds)

    def kill(self) -> None:
        """End the process and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_GRACE_SECONDS)


def read_result(job: Path, code: int, seconds: float) -> Result:
    """What a process that ended with ``code`` left; status ``died`` if it left nothing."""
    path = job.parent / RESULT
    if code == 0 and path.is_file():
        stored: Mapping[str, Any] = json.loads(path.read_text())
        return Result(
            stored["status"],
            stored.get("reason", ""),
            stored.get("accuracy"),
            seconds,
            stored.get("loss"),
            stored.get("images"),
        )
    try:
        lines = (job.parent / "output.txt").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    if any("MemoryError" in line or "bad_alloc" in line for line in lines[-50:]):
        return Result("memory", "out of memory", None, seconds)
    said = f": {lines[-1][:200]}" if lines else ""
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return Result("died", f"its process ended with {how}{said}", None, seconds)


def settled(result: Result) -> Result:
    """A death that is not tried again is a failure."""
    return Result("failed", result.reason, None, result.seconds) if result.status == "died" else result


class RayPool:
    """Workers of a Ray cluster, one NPU each where the cluster has NPUs; needs the extra ``ray``.

    Every worker runs a job in a process of its own, as ``LocalPool`` does, so time limits hold and a crash is a result.
    The job's folder has to be on storage that all machines see. ``program`` runs a job's file; None trains it.
    """

    def __init__(
        self,
        workers: int,
        timeout_s: float,
        retries: int,
        address: str | None = None,
        program: Sequence[str] | None = None,
    ):
        self._ray = require_extra("ray", "ray")
        self._workers, self._retries, self._stopped = workers, retries, False
        if not self._ray.is_initialized():
            # None would also find a cluster by itself, through the environment or a file of Ray's
            where = {"address": address} if address else {"address": "local", "num_cpus": workers}
            try:
                self._ray.init(**where, include_dashboard=False, log_to_driver=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise JobError(f"ray_address {address or 'local'}: {first_line(error)}") from None
        npus = self._ray.cluster_resources().get("NPU", 0)
        # https://docs.ray.io/en/latest/ray-core/scheduling/accelerators.html: Ascend NPUs are the resource "NPU"
        resources = {"NPU": 1} if npus else {}
        remote = self._ray.remote(num_cpus=1, resources=resources, max_retries=0)(_run_on_worker)
        self._start = lambda job: remote.remote(str(job), timeout_s, 1 if npus else workers, program)

    def run(self, jobs: Iterable[Job | None]) -> Iterator[tuple[int, Result]]:
        """See ``Pool``."""
        waiting = WaitingJobs(jobs, self._retries)
        running: dict[Any, tuple[int, Path, int, float]] = {}
        while running or (waiting.more and not self._stopped):
            while len(running) < self._workers and not self._stopped and (taken := waiting.take()):
                number, path, attempts = taken
                running[self._start(path)] = (number, path, attempts, time.monotonic())
            done, _ = self._ray.wait(list(running), num_returns=1, timeout=1.0) if running else ([], [])
            for task in done:
                number, path, attempts, began = running.pop(task)
                try:
                    result = Result(**self._ray.get(task))
                except self._ray.exceptions.RayError as error:
                    result = Result("died", f"its Ray worker died: {first_line(error)}", None, time.monotonic() - began)
                if result.status == "died" and attempts > 0 and not self._stopped:
                    waiting.give_back((number, path, attempts - 1))
                else:
                    yield number, settled(result)

    def stop(self) -> None:
        """See ``Pool``."""
        self._stopped = True

    def close(self) -> None:
        """See ``Pool``."""
        self._ray.shutdown()


def _run_on_worker(job: str, timeout_s: float, workers: int, program: Sequence[str] | None) -> dict[str, Any]:
    """Run one job on a Ray worker; the fields of a ``Result``."""
    process = Training(Path(job), timeout_s, 0, workers, program=program)
    try:
        while (result := process.poll()) is None:
            time.sleep(_POLL_SECONDS)
    except BaseException:
        process.kill()
        raise
    return asdict(result)


def open_pool(kind: str, workers: int, timeout_s: float, retries: int, ray_address: str | None = None) -> Pool:
    """A pool: ``local`` or ``ray``."""
    if kind == "ray":
        return RayPool(workers, timeout_s, retries, ray_address)
    return LocalPool(workers, timeout_s, retries)
