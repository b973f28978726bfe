"""Latency by any command line: adb, ssh to a board, the benchmark tools of a vendor."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean, median, pstdev
from typing import Any

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.export.folded import Folded
from mindcv_mnasnet.latency.models import write_folded, write_model
from mindcv_mnasnet.latency.record import Clock, Latency, LatencyError, LatencySettings
from mindcv_mnasnet.latency.runtime import one_at_a_time
from mindcv_mnasnet.networks.network import Network


class CommandMeter:
    """Asks any program: adb, ssh to a board, the benchmark tools of a vendor."""

    locks = True  # every call waits for its turn by itself

    def __init__(self, settings: LatencySettings):
        self._settings = settings
        if settings.command is None or "{model}" not in settings.command:
            raise UserError("latency_command: a command line with {model} in it is needed")
        if (settings.pattern is None) == (settings.json_path is None):
            raise UserError("latency_pattern: say either a pattern or latency_json_path, where the milliseconds are")
        if settings.pattern is not None:
            try:
                groups = re.compile(settings.pattern).groups
            except re.error as error:
                raise UserError(f"latency_pattern: {settings.pattern!r} is no regular expression: {error}") from None
            if groups != 1:
                raise UserError(f"latency_pattern: {settings.pattern!r} has {groups} groups; the milliseconds are one")
        try:
            self._words = shlex.split(settings.command)
        except ValueError as error:
            raise UserError(f"latency_command: {settings.command!r} is no command line: {error}") from None

    def measure(self, network: Network) -> Latency:
        """See ``Meter``."""
        with self.opened(network) as clock:
            return self._latency([clock() for _ in range(self._settings.calls)], network)

    def measure_part(self, part: Folded) -> Latency:
        """The latency of one of ``folded.parts``, as ONNX or TFLite file."""
        with tempfile.TemporaryDirectory(prefix="latency-") as folder:
            path = Path(folder) / f"part.{self._settings.format}"
            clock = self._clock(write_folded(part, path, self._settings.batch))
            return self._latency([clock() for _ in range(self._settings.calls)], part.network)

    @contextmanager
    def opened(self, network: Network) -> Iterator[Clock]:
        """A function that asks the command once more; milliseconds."""
        with tempfile.TemporaryDirectory(prefix="latency-") as folder:
            path = Path(folder) / f"model.{self._settings.format}"
            yield self._clock(write_model(network, path, self._settings.batch))

    def _clock(self, path: Path) -> Clock:
        settings = self._settings
        words = [word.replace("{model}", str(path)).replace("{threads}", str(settings.threads)) for word in self._words]

        def clock() -> float:
            with one_at_a_time():
                output = run_command(words, settings.timeout_s)
            value = self._read(output) * settings.scale
            if not math.isfinite(value) or value <= 0:
                raise LatencyError(f"latency_command answered {value:g} ms, which is no latency")
            return value

        return clock

    def describe(self, network: Network) -> Latency:
        """A record without a time."""
        return self._latency([0.0], network)

    def _latency(self, times: Sequence[float], network: Network) -> Latency:
        settings = self._settings
        one = Latency.given(median(times), network, "command", self._words[0], settings.threads, settings.batch)
        if len(times) < 2:
            return one
        return replace(one, mean_ms=mean(times), std_ms=pstdev(times), p90_ms=max(times), repetitions=len(times))

    def _read(self, output: str) -> float:
        settings = self._settings
        if settings.pattern is not None:
            match = re.search(settings.pattern, output)
            if match is None:
                raise LatencyError(
                    f"latency_command: nothing in its output matches the pattern; it says {_shown(output)}"
                )
            found: Any = match[1]
        else:
            assert settings.json_path is not None
            try:
                found = json.loads(output)
                for part in settings.json_path.split("."):
                    found = found[int(part)] if isinstance(found, list) else found[part]
            except (ValueError, KeyError, IndexError, TypeError):
                raise LatencyError(
                    f"latency_command: its output has no {settings.json_path} as JSON; it says {_shown(output)}"
                ) from None
        try:
            return float(found)
        except (TypeError, ValueError):
            raise LatencyError(f"latency_command: {str(found)[:80]!r} is not a number") from None


def run_command(words: Sequence[str], timeout_s: float) -> str:
    """The output of a command; when its time is up, it and all that it started are killed.

    Raises:
        LatencyError: it cannot be started, takes too long, or ends with a code other than 0.
    """
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise LatencyError(f"latency_command: {words[0]} cannot be started: {error.strerror or error}") from None
    try:
        output, complaints = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise LatencyError(f"latency_command: {words[0]} took longer than {timeout_s:g} s") from None
    if process.returncode:
        raise LatencyError(f"latency_command: {words[0]} ended with code {process.returncode}: {_shown(complaints)}")
    return output


def _shown(text: str) -> str:
    lines = text.strip().splitlines()
    return repr(lines[0][:120]) if lines else "nothing"
