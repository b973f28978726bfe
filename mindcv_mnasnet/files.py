"""Files that are whole or not there, folders of jobs, and what names on a command line stand for."""

from __future__ import annotations

import fcntl
import glob
import os
import shlex
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from mindcv_mnasnet.errors import JobError, UserError


def utf8(name: str) -> str:
    """A name for a file of text: the bytes of a file's name that are no UTF-8 are escaped, as on the console."""
    return name.encode("utf-8", "backslashreplace").decode()


def with_home(name: str | os.PathLike[str]) -> Path:
    """The path of a name in which ~ is a home folder; one of a user who is not known here stays as it is written."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 (Path's own raises where there is no such user)


def unwritable(path: Path, error: OSError) -> JobError:
    """The one sentence about a path that could not be written, for reasons such as a full disk."""
    return JobError(f"cannot write {path}: {error.strerror or error}")


def is_special(path: Path) -> bool:
    """Whether a path leads to a device, a pipe or a socket, such as /dev/stdout."""
    return path.exists() and not path.is_file() and not path.is_dir()


def replace_file(path: Path, content: bytes) -> None:
    """Make ``path`` hold ``content``; a crash at any moment leaves it with all of that or with what it held before.

    A link stays one, and the file that it leads to is replaced; devices and pipes are written to.

    Raises:
        JobError: it cannot be written; ``path`` is as it was.
    """
    if is_special(path):
        try:
            path.write_bytes(content)
        except OSError as error:
            raise unwritable(path, error) from error
        return
    path = Path(os.path.realpath(path))
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def require_writable(option: str, path: str | Path | None) -> None:
    """Try before hours of work whether a file can be written afterwards; None is no file.

    Raises:
        UserError: its folder is not there or cannot be written in, or it is a folder itself.
    """
    if path is None:
        return
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"{option}: {path} is a folder; name a file")
        if is_special(path):
            return
        folder = Path(os.path.realpath(path)).parent
        if not folder.is_dir():
            raise UserError(f"{option}: there is no folder {folder}")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{option}: cannot write {path}: {error.strerror}") from None


def quoted(path: Path) -> str:
    """A path as a shell takes it, for commands that are printed."""
    return shlex.quote(str(path))


def new_folder(root: Path, name: str, exact: bool) -> Path:
    """Make a folder of this name below ``root``; where it is taken, ``name-2``, ``name-3``, ... unless ``exact``.

    Raises:
        UserError: it is taken, and ``exact``.
        JobError: it cannot be made.
    """
    path, number = root / name, 1
    try:
        root.mkdir(parents=True, exist_ok=True)
        while True:
            with suppress(FileExistsError):
                path.mkdir()
                return path
            if exact:
                raise UserError(
                    f"run_name: {path} exists; --resume {quoted(path)} goes on with it, another name starts anew"
                )
            number += 1
            path = root / f"{name}-{number}"
    except OSError as error:
        raise unwritable(path, error) from None


def lock_folder(path: Path, work: str) -> IO[str]:
    """Keep other processes out of a folder until this one ends or the file that is returned is closed.

    Args:
        work: who may be in there already and what it does, for the error: "another job is training".
    Raises:
        UserError: somebody is in there.
    """
    try:
        file = (path / ".lock").open("w")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{work} in {path}; wait for it, or start one elsewhere") from None
    except OSError as error:
        raise unwritable(path / ".lock", error) from None
    return file


def matching(name: str) -> list[Path]:
    """The path of this name, or else what the glob pattern (``**`` is any depth) stands for, sorted; ~ is home."""
    path = with_home(name)
    with suppress(OSError):  # a name that is longer than names can be
        if path.exists():
            return [path]
    return sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
