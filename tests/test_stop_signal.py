"""Which signals end a training in order."""

from __future__ import annotations

import os
import signal

import pytest

from mindcv_mnasnet.train.stop import stop_signal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_is_noted_and_ends_nothing_at_once(number, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_DFL)  # tests may run under nohup
    with stop_signal() as received:
        os.kill(os.getpid(), number)
        assert received == [number]


def test_a_hangup_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signal() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)
