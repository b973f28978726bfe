"""The two errors that a user is meant to see, and what turns them into exit codes."""

from __future__ import annotations

import errno
import importlib
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mindcv_mnasnet import console


class UserError(ValueError):
    """A mistake in what was asked for: a key, a value, a path. Exit code 2."""


class JobError(RuntimeError):
    """A job that was rightly asked for and failed: a broken image, a full disk, a diverged loss. Exit code 1."""


def require_extra(module: str, extra: str) -> Any:
    """An optional module, imported.

    Raises:
        UserError: it is not installed; the sentence names the extra of this package that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != module.partition(".")[0]:
            raise
        raise UserError(f"{module} is not installed here: pip install 'mindcv_mnasnet[{extra}]'") from None


def first_line(error: Exception) -> str:
    """What another library's error says, without its further lines; the error's kind where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class DivergedError(JobError):
    """A training whose loss is not finite."""


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Within it, Ctrl-C waits for the end: MindSpore's import crashes when it is interrupted (seen in 2.10)."""
    pending: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pending:
        raise KeyboardInterrupt


def run_cli(main: Callable[[], int]) -> int:
    """Run a command line's ``main`` and return its exit code; users' mistakes are one sentence, not a traceback."""
    console.prepare()
    code, sentence = _ending(main)
    if sentence:
        with console.lenient():
            print(sentence, file=sys.stderr)
    return code


def _impossible_path(error: OSError | RuntimeError) -> str | None:
    """Why no file can be at the path that raised ``error``; None for errors of other kinds."""
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return f"{error.filename}: {error.strerror}"
    return str(error) if str(error).startswith("Symlink loop from") else None  # pathlib's before Python 3.13


def _ending(main: Callable[[], int]) -> tuple[int, str]:
    """The exit code of ``main`` and the sentence that says why it is not 0."""
    try:
        with console.strict():
            return main(), ""
    except UserError as error:
        return 2, f"error: {error}"
    except JobError as error:
        return 1, f"failed: {error}"
    except console.ConsoleError as error:
        return 1, f"failed: standard output: {error}"
    except KeyboardInterrupt:
        return 130, "interrupted"
    except MemoryError as error:
        return 1, f"failed: there is not enough memory here ({first_line(error)})"
    except (OSError, RuntimeError) as error:
        reason = _impossible_path(error)
        if reason is None:
            raise
        return 2, f"error: {reason}; name another path"
    except ModuleNotFoundError as error:
        if str(error.name).startswith("mindcv_mnasnet"):
            raise
        return 2, f"error: {sys.executable} has no module {error.name}; take the Python of .venv, or install"
