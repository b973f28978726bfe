"""Standard output and error as they may be: closed, full, read by nobody, in an encoding without some characters."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


def prepare() -> None:
    """Make printing a matter of bytes: what the encoding lacks is escaped, and closed descriptors lead to nowhere.

    Else the next file to be opened would get a closed descriptor's number, and what libraries print would go into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    escaping = ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace"))
    for stream, errors in escaping:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


class ConsoleError(OSError):
    """What is printed does not arrive, for the reason that it says."""


def _drop(stream: TextIO) -> None:
    """Send a stream that cannot be written to nowhere, so that Python's own last flush does not fail either."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Strict:
    """A text stream whose failures are :class:`ConsoleError`."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            known = self._stream.encoding or "ascii"
            return self.write(text.encode(known, "backslashreplace").decode(known))
        except (OSError, ValueError) as error:  # a closed stream's is a ValueError
            self._failed(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._failed(error)

    def _failed(self, error: OSError | ValueError) -> None:
        _drop(self._stream)
        raise ConsoleError(getattr(error, "strerror", None) or str(error)) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Lenient(_Strict):
    """A text stream whose failures are nobody's concern."""

    def _failed(self, error: OSError | ValueError) -> None:
        _drop(self._stream)


@contextmanager
def strict() -> Iterator[None]:
    """Within it, printing fails by :class:`ConsoleError`, at the end for what was not written before."""
    before, end = sys.stdout, None
    if before is not None:
        sys.stdout = _Strict(before)
    try:
        try:
            yield
        except SystemExit as error:  # argparse's, after a help text
            end = error
        if before is None:
            raise ConsoleError("it is closed")
        sys.stdout.flush()
        if end is not None:
            raise end
    finally:
        sys.stdout = before


@contextmanager
def lenient() -> Iterator[None]:
    """Within it, printing never fails: for work that must not end because its messages cannot be shown."""
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        sys.stdout, sys.stderr = (_Lenient(one or nowhere) for one in before)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = before
