"""TensorFlow checkpoints on disk: as files, in a folder, or in a tar archive, which is not trusted."""

from __future__ import annotations

import gzip
import io
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from mindcv_mnasnet.errors import UserError

ARCHIVES = (".tgz", ".tar.gz", ".tar")
MAX_BYTES = 1 << 30  # of an archive's content; the largest of the authors', with optimizer slots, is about 100 MB
MAX_MEMBERS = 10_000
_DATA = re.compile(r"\.data-\d{5}-of-\d{5}$")


def looks_like_tensorflow(path: Path) -> bool:
    """Whether a path means a checkpoint of TensorFlow, by the names of files alone."""
    if path.name.lower().endswith((".tgz", ".tar.gz", ".index")) or _DATA.search(path.name):
        return True
    return (path / "checkpoint").is_file() or (path.name != "" and _index(path).is_file())


@contextmanager
def open_checkpoint(path: Path) -> Iterator[Path]:
    """The prefix of the checkpoint that ``path`` means: a prefix, a file of it, a folder, or an archive.

    What is in an archive is unpacked into a temporary folder, which is gone afterwards.

    Raises:
        UserError: there is none, or more than one and no ``checkpoint`` file that chooses; an archive that is
            truncated, too large, or has members outside its folder or links.
    """
    if path.is_file() and path.name.lower().endswith(ARCHIVES):
        with tempfile.TemporaryDirectory(prefix="mindcv_mnasnet_") as folder:
            _unpack(path, Path(folder))
            yield _prefix_in(Path(folder), str(path))
    elif path.is_dir():
        yield _prefix_in(path, str(path))
    else:
        prefix = path.with_name(_DATA.sub("", path.name.removesuffix(".index")))
        if not _index(prefix).is_file():
            raise UserError(f"no TensorFlow checkpoint {path}: there is no {_index(prefix).name}")
        yield prefix


def data_bytes(prefix: Path) -> int:
    """Size of a checkpoint's data files.

    Raises:
        UserError: there are none.
    """
    found = [each for each in prefix.parent.iterdir() if each.name == prefix.name + _matched(_DATA, each.name)]
    if not found:
        raise UserError(f"TensorFlow checkpoint {prefix} has an index, but no {prefix.name}.data-00000-of-00001")
    return sum(each.stat().st_size for each in found)


def _matched(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[0] if found else "?"


def _index(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def _prefix_in(folder: Path, origin: str) -> Path:
    """The one checkpoint below a folder; one in a SavedModel counts only where there is no other."""
    named = [prefix for state in sorted(folder.rglob("checkpoint")) if (prefix := _chosen(state)) is not None]
    found = named or [each.with_name(each.name.removesuffix(".index")) for each in sorted(folder.rglob("*.index"))]
    found = [prefix for prefix in found if "saved_model" not in prefix.relative_to(folder).parts] or found
    if not found:
        raise UserError(f"{origin} has no TensorFlow checkpoint: no file in it ends in .index")
    if len(found) > 1:
        listed = ", ".join(str(prefix.relative_to(folder)) for prefix in found[:4])
        raise UserError(f"{origin} has {len(found)} checkpoints ({listed}); name one of them")
    return found[0]


def _chosen(state: Path) -> Path | None:
    """The newest checkpoint by TensorFlow's ``checkpoint`` file; only its name counts, folders may have moved."""
    if not state.is_file() or state.stat().st_size > 1 << 20:
        return None
    said = re.search(r'^model_checkpoint_path:\s*"([^"\n]+)"', state.read_text(errors="replace"), re.MULTILINE)
    prefix = state.with_name(PurePosixPath(said[1]).name) if said and PurePosixPath(said[1]).name else None
    return prefix if prefix is not None and _index(prefix).is_file() else None


class _Bounded(io.RawIOBase):
    """Reads from a stream, but no more than ``MAX_BYTES``: what a few kilobytes of gzip may grow to has no end."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self._left = MAX_BYTES

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise UserError(f"unpacks to more than {MAX_BYTES >> 20} MiB")
        return content


def _unpack(path: Path, folder: Path) -> None:
    """Unpack the checkpoint files of an archive, after a look at every member's name and kind."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with (
            gzip.open(path) if zipped else path.open("rb") as stream,
            tarfile.open(fileobj=_Bounded(stream), mode="r|", bufsize=1 << 20) as archive,
        ):
            for number, member in enumerate(archive):
                if number >= MAX_MEMBERS:
                    raise UserError(f"has more than {MAX_MEMBERS} members")
                _check(member)
                name = PurePosixPath(member.name)
                if member.isreg() and (name.name == "checkpoint" or _is_part(name.name)):
                    _extract(archive, member, folder / name)
    except UserError as error:
        raise UserError(f"{path} {error}; nothing of it is used") from None
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is truncated or not a tar archive ({error})") from None
    except (OSError, ValueError) as error:  # names that no file can have, or that another member has
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be unpacked ({why}); nothing of it is used") from None


def _is_part(name: str) -> bool:
    return name.endswith(".index") or _DATA.search(name) is not None


def _check(member: tarfile.TarInfo) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or ":" in member.name:
        raise UserError(f"has a member outside its folder ({member.name})")
    if not (member.isreg() or member.isdir()):
        raise UserError(f"has a member that is neither file nor folder ({member.name})")


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(member)
    assert content is not None
    with content, target.open("xb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
