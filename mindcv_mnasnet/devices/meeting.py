"""Where the processes of a group meet, and what would have them wait there for each other until a time-out.

msrun tells each by MS_ROLE whether it is a worker or the scheduler, which listens at MS_SCHED_HOST:MS_SCHED_PORT:
https://www.mindspore.cn/tutorials/en/master/parallel/msrun_launcher.html. On Linux alone it can be looked at.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_LISTENS = "0A"  # TCP_LISTEN, in /proc/net/tcp
_VARIABLES = "MS_ROLE, MS_SCHED_HOST, MS_SCHED_PORT, MS_WORKER_NUM and MS_NODE_ID"


def on_this_machine() -> bool:
    """Whether the scheduler's address is one of this machine's own."""
    with socket.socket() as probe:
        try:
            probe.bind((os.environ.get("MS_SCHED_HOST", "127.0.0.1"), 0))
        except OSError:
            return False
    return True


def obstacle(seconds: float = 8.0) -> str | None:
    """Why this process's group will not meet here, found out within ``seconds``, or None."""
    role, port = os.environ["MS_ROLE"], os.environ.get("MS_SCHED_PORT", "")
    for name in ("MS_WORKER_NUM", "MS_SCHED_HOST", "MS_SCHED_PORT"):
        value = os.environ.get(name, "")
        if not value or (name != "MS_SCHED_HOST" and not value.isdigit()):
            said = f"{name} is {value!r}, which is no number" if value else f"{name} is missing"
            return f"MS_ROLE is {role}, but {said}: start the job with msrun, or unset {_VARIABLES}"
    if not (_PROC / "net" / "tcp").is_file() or not on_this_machine():
        return None
    listener = _listener(int(port))
    if listener is not None and (role == "MS_SCHED" or not _is_our_scheduler(listener, port)):
        return (
            f"port {port} is in use{_named(listener)}, so the processes of this job cannot meet there: "
            f"give msrun another one, --master_port {int(port) + 1}"
        )
    other = {"MS_WORKER": "MS_SCHED", "MS_SCHED": "MS_WORKER"}[role]
    if _started_by_msrun() or (role == "MS_SCHED" and not os.environ.get("MS_SCHED_HOST", "").startswith("127.")):
        return None
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any(_variables(pid).get("MS_ROLE") == other for pid in _processes(port)):
            return None
        time.sleep(0.5)
    return (
        f"MS_ROLE is {role}, but no process with MS_ROLE {other} is here for port {port}: start the job with "
        f"msrun, or unset {_VARIABLES}"
    )


def _started_by_msrun() -> bool:
    names = (b"msrun", b"mindspore.parallel.cluster.run")
    return any(word.rpartition(b"/")[2] in names for word in _command(os.getppid()).split(b"\0"))


def _is_our_scheduler(pid: int, port: str) -> bool:
    found = _variables(pid)
    if (found.get("MS_ROLE"), found.get("MS_SCHED_PORT")) != ("MS_SCHED", port):
        return False
    siblings = _parent(pid) == os.getppid()
    return siblings if _started_by_msrun() else siblings or _command(pid) == _command(os.getpid())


def _listener(port: int) -> int | None:
    """The process that listens on a port of this machine; 0 where it is somebody else's, None where nobody does."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{fields[9]}]")
    if not sockets:
        return None
    for folder in _PROC.glob("[0-9]*"):
        with suppress(OSError):
            if any(str(link.readlink()) in sockets for link in (folder / "fd").iterdir()):
                return int(folder.name)
    return 0


def _processes(port: str) -> list[int]:
    """This user's processes whose variables name that port, this one left out."""
    pids = (int(folder.name) for folder in _PROC.glob("[0-9]*"))
    return [pid for pid in pids if pid != os.getpid() and _variables(pid).get("MS_SCHED_PORT") == port]


def _variables(pid: int) -> dict[str, str]:
    with suppress(OSError):
        text = (_PROC / str(pid) / "environ").read_bytes().decode(errors="replace")
        return {name: value for name, _, value in (entry.partition("=") for entry in text.split("\0"))}
    return {}


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return (_PROC / str(pid) / "cmdline").read_bytes()
    return b""


def _parent(pid: int) -> int | None:
    with suppress(OSError):
        return int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return None


def _named(pid: int) -> str:
    words = _command(pid).decode(errors="replace").split("\0")
    name = " ".join(Path(word).name for word in words[:2]).strip()
    return f" by process {pid} ({name})" if pid else ""
