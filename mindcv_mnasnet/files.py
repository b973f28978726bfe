"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from mindcv_mnasnet.errors import JobError, UserError


def unwritable(path: Path, error: OSError) -> JobError:
    """The one sentence about a path that could not be written, for reasons such as a full disk."""
    return JobError(f"cannot write {path}: {error.strerror or error}")


def replace_file(path: Path, content: bytes) -> None:
    """Make ``path`` hold ``content``; a crash at any moment leaves it with all of that or with what it held before.

    Raises:
        JobError: it cannot be written; ``path`` is as it was.
    """
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
    if path.is_dir():
        raise UserError(f"{option}: {path} is a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{option}: there is no folder {path.absolute().parent}")
    attempt = path.with_name(path.name + ".partial")
    try:
        with attempt.open("ab"):
            pass
        attempt.unlink()
    except OSError as error:
        raise UserError(f"{option}: cannot write {path}: {error.strerror}") from None
