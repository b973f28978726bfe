"""Signals that end training after the running step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stop_signal() -> Iterator[list[int]]:
    """A list that fills when SIGTERM, SIGHUP or Ctrl-C arrives; a second Ctrl-C interrupts at once."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    ending = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup leaves it
        ending.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in ending}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
