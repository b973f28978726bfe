"""Dry runs of recipes: set up, started in a process of their own, read from its log."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Timer

import numpy as np

from mindcv_mnasnet.devices import simulation
from mindcv_mnasnet.devices.environment import cache_folder
from mindcv_mnasnet.dry_run.report import Report
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe
from mindcv_mnasnet.search.evaluators import network_keys
from mindcv_mnasnet.search.settings import Settings

LEVELS = ("O0", "O1")
PHASES = ("train", "validate", "export", "loop")
DEFAULT_CLASSES = 1000
_MOST_SECONDS = 1800


def dry_run(
    recipe: Recipe,
    name: str,
    devices: int = 1,
    jit_level: str | None = None,
    phases: Sequence[str] = ("train", "validate", "loop"),
    search: Settings | None = None,
) -> Report:
    """Compile a job for NPUs and go through a step of it without computing; nothing is left behind.

    Args:
        name: what the report calls the recipe.
        devices: how many NPUs the job runs on; rank 0 of them is compiled.
        jit_level: O0 or O1; None is the recipe's, where O2 and unset stand for O1.
        phases: ``train`` (with ``accumulate`` where the recipe accumulates), ``validate``, ``export`` (a MindIR file,
            written and run), ``loop`` (the whole job for two steps on random images), and ``supernet``, which makes
            ``gradients`` and ``update``, the halves of a supernet's step.
        search: the search whose supernet that is.
    Raises:
        UserError: an impossible number of devices or level, or the back end cannot be had here.
        JobError: the job does not compile; the sentence names the operator and the line of our code.
    """
    level = jit_level or (recipe.jit_level if recipe.jit_level in LEVELS else "O1")
    require_possible([devices], [level])
    report = Report(name, level, devices, notes=_notes(recipe, level))
    classes = recipe.num_classes or DEFAULT_CLASSES
    given = replace(
        recipe, jit_level=level, device_target="Ascend", resume=None, init_from=None, ckpt_path="", pretrained=False
    )
    request = {"recipe": given.to_dict(), "classes": classes, "search": search and search.dump()}
    counted = [one for one in phases if one != "loop"]
    for names, logged in ((counted, True), (["loop"] if "loop" in phases else [], False)):
        if names:
            words = ["-m", "mindcv_mnasnet.dry_run.job", json.dumps({**request, "phases": names})]
            follow(report, words, logged)
    return report


def require_possible(devices: Sequence[int], levels: Sequence[str]) -> None:
    """Refuse numbers of devices and levels that cannot be dry-run.

    Raises:
        UserError: one of them is impossible.
    """
    for count in devices:
        if count < 1:
            raise UserError(f"devices: {count} is impossible; it is 1 or more")
    for level in levels:
        if level not in LEVELS:
            raise UserError(f"jit_level: {level!r} cannot be dry-run; it can be {' or '.join(LEVELS)}")


def follow(report: Report, words: Sequence[str], logged: bool = True) -> None:
    """Let Python run ``words`` as rank 0 of the report's devices, in a folder that is deleted, and read its log.

    Args:
        logged: let MindSpore log the kernels that it chooses.
    Raises:
        UserError: the back end cannot be had here.
        JobError: it fails; the sentence names the operator and the line of our code.
    """
    environment = simulation.environment(cache_folder(), report.devices, logged)
    environment["PYTHONPATH"] = ":".join([str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")])
    with TemporaryDirectory(prefix="dry-run-") as scratch:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=scratch,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        with process, _ended_in_time(process) as late:
            assert process.stdout is not None
            others = report.read(process.stdout)
            code = process.wait()
    if late.is_set():
        others.append(f"failed: it took more than {_MOST_SECONDS:g} seconds")
    if code != 0:
        raise JobError(
            f"{report.recipe} at {report.jit_level} on {report.devices} device(s) fails: {explained(others)}"
        )


@contextmanager
def _ended_in_time(process: subprocess.Popen[str]) -> Iterator[Event]:
    """Within it, an error or ``_MOST_SECONDS``, which set the event, end a process and its children."""
    late = Event()

    def end() -> None:
        late.set()
        kill()

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = Timer(_MOST_SECONDS, end)
    timer.start()
    try:
        yield late
    except BaseException:
        kill()
        raise
    finally:
        timer.cancel()


def dry_run_search(settings: Settings, name: str, jit_level: str | None = None) -> Report:
    """``dry_run`` of what a search computes on an NPU: a trial's training, or its supernet's step.

    Raises:
        UserError: the search trains nothing.
    """
    require_training(settings, name)
    space = settings.open_space()
    network = space.network(space.random(np.random.default_rng(settings.seed)))
    keys = {**settings.rung_keys(0), "num_classes": network.num_classes}
    if settings.evaluator == "supernet":
        return dry_run(load_recipe(overrides=keys), name, 1, jit_level, ("supernet",), settings)
    return dry_run(load_recipe(overrides=keys | network_keys(network)), name, 1, jit_level, ("train", "validate"))


def require_training(settings: Settings, name: str) -> None:
    """Refuse a search without a network to train.

    Raises:
        UserError: its evaluator trains nothing.
    """
    if settings.evaluator not in ("proxy", "supernet"):
        raise UserError(f"{name}: evaluator {settings.evaluator} trains nothing that could be dry-run")


def _notes(recipe: Recipe, level: str) -> list[str]:
    notes = (
        [] if simulation.cann_folder() else ["CANN is not installed: stand-ins for its libraries, built from the wheel"]
    )
    if recipe.jit_level not in (None, level):
        notes.append(f"jit_level {recipe.jit_level} of the recipe is run as {level}")
    if recipe.num_classes is None:
        notes.append(f"num_classes is not in the recipe: {DEFAULT_CLASSES} are taken")
    return notes


def explained(lines: Sequence[str]) -> str:
    """The sentence in what a failed job printed: our own error, or MindSpore's with the last line of our code."""
    for line in reversed(lines):
        if own := re.match(r"(?:error|failed): (.*)", line):
            return own[1]
    reasons = [line for line in lines if re.match(r"\w*(?:Error|Exception)\b", line)]
    reason = reasons[-1] if reasons else (lines[-1] if lines else "it ended without a word")
    text = "\n".join(lines)
    # MindSpore's traceback, which it marks with #, ends in the line that fails; other lists of its begin with it.
    places = re.findall(r"^# .*[Ii]n file \S*?(mindcv_mnasnet/\S+?\.py):(\d+)", text, re.MULTILINE)
    places = places or re.findall(r"[Ii]n file \S*?(mindcv_mnasnet/\S+?\.py):(\d+)", text)[::-1]
    places = [place for place in places if "dry_run" not in place[0]]
    return f"{reason} ({places[-1][0]}:{places[-1][1]})" if places else reason
