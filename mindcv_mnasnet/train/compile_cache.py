"""Compiled graphs that are kept between runs, where MindSpore's own cache can be trusted.

MindSpore stores the front end's graph, most of the time that compiling takes, and takes it back unasked if the sources
are the same: constants, shapes and settings are the caller's risk. So every graph has a folder named by all that goes
into it, is written elsewhere and moved there whole, and is used only with the checksums that it was stored with. Used
on the CPU in single processes; nothing is known here of the cache on Ascend or under msrun.
https://www.mindspore.cn/docs/en/r2.6.0/api_python/env_var_list.html (MS_COMPILER_CACHE_ENABLE)
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from mindspore import nn

from mindcv_mnasnet.devices import environment, runtime
from mindcv_mnasnet.errors import JobError
from mindcv_mnasnet.files import replace_file

KEPT = 64  # graphs, of about 2 MB each
_SUMS = "checksums.json"


class CompileCache:
    """``with cache.first_call(cell, *arrays): cell(*arrays)`` compiles, or takes what an earlier run compiled.

    ``about`` is all that goes into the graphs beside the cells' parameters and inputs; its ``repr`` tells it apart.
    Only the first graph of a process is kept: MindSpore writes all later ones to the folder of that one.
    """

    _used = False  # in this process

    def __init__(self, *about: Any, folder: Path | None = None):
        self._about = about
        self._folder = environment.cache_folder() / "graphs" if folder is None else folder

    @contextmanager
    def first_call(self, cell: nn.Cell, *inputs: Any) -> Iterator[None]:
        """Around the first call of ``cell``, with its inputs."""
        if CompileCache._used or not Path(sys.argv[0]).is_file():  # MindSpore reads the program; a prompt has none
            yield
            return
        CompileCache._used = True
        path = self._folder / self._key(cell, inputs)
        if _whole(path):
            with suppress(OSError):
                path.touch()  # the newest ones are kept
            with environment.graphs_kept_in(path):
                yield
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=self._folder))
        except OSError:  # nowhere to keep it
            yield
            return
        try:
            with environment.graphs_kept_in(partial):
                yield
            _move(partial, path)
            self._forget_oldest()
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _key(self, cell: nn.Cell, inputs: tuple[Any, ...]) -> str:
        parameters = [(p.name, tuple(p.shape), str(p.dtype), p.requires_grad) for p in cell.get_parameters()]
        given = [None if one is None else (tuple(one.shape), str(one.dtype)) for one in inputs]
        modes = [(name, one.training) for name, one in cell.cells_and_names()]
        program = str(Path(sys.argv[0]).resolve()), sys.version, runtime.MINDSPORE_VERSION, _sources()
        content = (type(cell).__name__, parameters, modes, given, self._about, program)
        return hashlib.sha256(repr(content).encode()).hexdigest()[:32]

    def _forget_oldest(self) -> None:
        with suppress(OSError):
            found = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
            for path in found[:-KEPT]:
                shutil.rmtree(path, ignore_errors=True)


def _move(partial: Path, path: Path) -> None:
    """Give a written graph its place; on a full disk, or where another process was faster, there is none to give."""
    with suppress(OSError, JobError):
        replace_file(partial / _SUMS, json.dumps(_sums(partial)).encode())
        if path.exists() and not _whole(path):
            shutil.rmtree(path)
        partial.rename(path)


def _whole(path: Path) -> bool:
    try:
        stored = json.loads((path / _SUMS).read_text())
    except (OSError, ValueError):
        return False
    return bool(stored) and stored == _sums(path)


def _sums(path: Path) -> dict[str, str]:
    files = sorted(one for one in path.rglob("*") if one.is_file() and one.name != _SUMS)
    return {str(one.relative_to(path)): hashlib.sha256(one.read_bytes()).hexdigest() for one in files}


@cache
def _sources() -> str:
    """This package's code, which graphs are compiled from."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()
