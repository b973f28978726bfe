"""Variables of the environment: folders, compiler, kernels, and what other processes are given."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from mindcv_mnasnet.devices.processor import cores_each
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import with_home

_DEFAULTS = {
    "MS_SUBMODULE_LOG_v": "{PIPELINE:3}",  # MindSpore warns when it uses its compile cache: compile_cache.py answers
    "MS_COMPILER_CACHE_ENABLE": "0",
    "MS_COMPILER_CACHE_PATH": "",
}


def prepare() -> None:
    """Set what MindSpore reads, before it is loaded.

    A variable that is added later may move the C library's table of variables, and a thread that reads it meanwhile
    (those of data pipelines do) ends the process with a segmentation fault; a value that changes moves nothing.
    https://sourceware.org/glibc/manual/latest/html_node/Environment-Access.html
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def kernels_switched_off() -> bool:
    """Whether the environment says ``MNASNET_KERNELS=off``."""
    return kernels_variable() in ("off", "0")


def kernels_variable() -> str:
    """``MNASNET_KERNELS``: ``off``, an instruction set, or nothing, which means this processor's own."""
    return os.environ.get("MNASNET_KERNELS", "").lower()


def compiler() -> list[str]:
    """The words of a C++ compiler's command: ``$CXX``, else the first that is here of c++, g++ and clang++.

    Raises:
        UserError: ``CXX`` is no command.
    """
    known = ("c++", "g++", "clang++")
    asked = os.environ.get("CXX", "")
    try:
        return shlex.split(asked) or [next((name for name in known if shutil.which(name)), known[0])]
    except ValueError as error:
        raise UserError(f"CXX: {asked!r} in the environment is no command ({error}); unset it or mend it") from None


def whole_number(name: str, default: int, least: int = 0) -> int:
    """A variable of the environment that is a whole number, or ``default`` where it is not set.

    Raises:
        UserError: it is something else.
    """
    value = os.environ.get(name, "").strip()
    if value and not (value.isascii() and value.isdigit() and int(value) >= least):
        raise UserError(f"{name}: {value!r} in the environment is no whole number from {least}; unset it or mend it")
    return int(value) if value else default


def cache_folder(cache: str | Path | None = None) -> Path:
    """Where files are kept: ``cache``, else $MNASNET_CACHE, else mindcv_mnasnet in $XDG_CACHE_HOME or ~/.cache.

    A user without a home, as in many containers, has a folder of their own among the temporary files.
    """
    if cache or os.environ.get("MNASNET_CACHE"):
        return with_home(cache or os.environ["MNASNET_CACHE"])
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if shared.is_absolute():
        return shared / "mindcv_mnasnet"
    try:
        home = Path.home()
    except RuntimeError:  # no HOME, and no entry among the users
        return _temporary_folder()
    return home / ".cache" / "mindcv_mnasnet" if os.access(home, os.W_OK) else _temporary_folder()


@cache
def _temporary_folder() -> Path:
    """Nobody else's: libraries are loaded from there."""
    folder = Path(tempfile.gettempdir()) / f"mindcv_mnasnet-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
    return Path(tempfile.mkdtemp(prefix="mindcv_mnasnet-"))


@contextmanager
def graphs_kept_in(folder: Path) -> Iterator[None]:
    """What is compiled meanwhile is kept in ``folder``, or taken from there."""
    names = {"MS_COMPILER_CACHE_ENABLE": "1", "MS_COMPILER_CACHE_PATH": str(folder)}
    before = {name: os.environ.get(name, _DEFAULTS[name]) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        os.environ.update(before)


def worker_environment(workers: int) -> dict[str, str]:
    """The environment of one of ``workers`` processes that share this machine: each takes its part of the cores."""
    return {**os.environ, "OMP_NUM_THREADS": str(cores_each(workers))}
