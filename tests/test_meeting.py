"""What would keep the processes of a group from meeting, as sentences that name the port or the variables."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from mindcv_mnasnet.devices import meeting

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


@pytest.fixture
def told(monkeypatch):
    """Sets what msrun tells a process; returns a free port."""

    def tell(role: str, host: str = "127.0.0.1") -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        address = {"MS_SCHED_HOST": host, "MS_SCHED_PORT": str(port)}
        for name, value in {"MS_ROLE": role, "MS_WORKER_NUM": "2", **address}.items():
            monkeypatch.setenv(name, value)
        return port

    return tell


def process(**variables: str) -> subprocess.Popen:
    """One that waits, and was told that."""
    return subprocess.Popen(["cat"], stdin=subprocess.PIPE, env=os.environ | variables)


@pytest.mark.parametrize("role", ["MS_WORKER", "MS_SCHED"])
def test_a_port_that_another_program_uses_is_named(told, role):
    with socket.create_server(("127.0.0.1", told(role))) as server:
        sentence = meeting.obstacle()
        assert f"port {server.getsockname()[1]} is in use by process {os.getpid()} (" in sentence
        assert "--master_port" in sentence


@pytest.mark.parametrize(("role", "other"), [("MS_WORKER", "MS_SCHED"), ("MS_SCHED", "MS_WORKER")])
def test_variables_that_an_earlier_job_left_are_named_and_a_partner_is_enough(told, role, other):
    told(role)
    sentence = meeting.obstacle(0.1)
    assert f"MS_ROLE is {role}" in sentence
    assert "unset MS_ROLE, MS_SCHED_HOST" in sentence
    with process(MS_ROLE=other) as partner:
        assert meeting.obstacle(5) is None
        partner.stdin.close()


@pytest.mark.parametrize(
    ("parent", "known"),
    [("python\0/env/bin/msrun\0--worker_num=2", True), ("sh\0tests/test_msrun.py\0", False)],
)
def test_a_process_of_msruns_own_needs_no_look_for_its_partner(told, monkeypatch, parent, known):
    told("MS_WORKER")
    monkeypatch.setattr(meeting, "_command", lambda pid: parent.encode())
    assert (meeting.obstacle(0.1) is None) == known


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MS_WORKER_NUM", None, "MS_WORKER_NUM is missing"),
        ("MS_SCHED_HOST", None, "MS_SCHED_HOST is missing"),
        ("MS_SCHED_PORT", "abc", "MS_SCHED_PORT is 'abc', which is no number"),
    ],
)
def test_a_part_of_the_variables_is_named(told, monkeypatch, name, value, said):
    told("MS_WORKER")
    monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    sentence = meeting.obstacle(0.1)
    assert said in sentence
    assert "unset MS_ROLE" in sentence


def test_a_scheduler_elsewhere_cannot_be_looked_at(told):
    told("MS_WORKER", "192.0.2.1")  # of a network for examples, RFC 5737
    assert not meeting.on_this_machine()
    assert meeting.obstacle(0.1) is None
