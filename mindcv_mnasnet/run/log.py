"""The log of a run: ``log.jsonl`` in its folder, progress on the console, ``curves.png``, TensorBoard on demand.

Every line is one JSON object with ``kind`` (``step``, ``epoch`` or ``message``), ``step`` (optimizer steps done) and
``time`` (seconds since 1970). A number that JSON cannot say (NaN, infinity) is ``null``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.files import replace_file, unwritable
from mindcv_mnasnet.run.curves import draw_curves
from mindcv_mnasnet.run.progress import Progress
from mindcv_mnasnet.run.sections import Position, beginning, in_one_count, kept

DRAW_EVERY_SECONDS = 60.0


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The records of a ``log.jsonl`` in order; lines torn by a crash are left out.

    Raises:
        UserError: the file is not there.
    """
    try:
        return [record for _, record in _records(Path(path).read_bytes())]
    except OSError as error:
        raise UserError(f"cannot read the log {path}: {error.strerror}") from error


def _records(content: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    for line in content.split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "kind" in record and "step" in record:
            yield line, record


def _plain(value: Any) -> Any:
    """``value`` as JSON can say it: arrays become lists, NaN and infinities None, anything odd its text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int) else str(value)


def _numbers(values: dict[str, Any]) -> list[tuple[str, float]]:
    return [(key, value) for key, value in _plain(values).items() if isinstance(value, int | float)]


class RunLog:
    """Writes the log of the run in ``folder``; a process whose ``rank`` is not 0 writes and prints nothing.

    Starting at ``resume_step`` (0 is allowed) forgets every line after that step, so a resumed run's log reads as if it
    had never stopped; an epoch's line has to be written before the checkpoint that a resume may start from.
    ``checkpoint`` is where that stands by its own count, which is another where its steps were of other sizes than
    ``images_per_step``. ``total_steps`` lets the console tell the time left; ``clock`` counts seconds.

    Raises:
        JobError: the log cannot be written, a full disk for one.
        UserError: the folder holds the log of an earlier run and this is no resume; TensorBoard is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        rank: int = 0,
        resume_step: int | None = None,
        tensorboard: bool = False,
        *,
        total_steps: int | None = None,
        images_per_step: int | None = None,
        checkpoint: Position | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.path = Path(folder) / "log.jsonl"
        self._active = rank == 0
        if not self._active:
            return
        self._clock = clock
        self._drawn = clock()
        self._step = resume_step or 0
        self._board = _open_board(Path(folder), checkpoint.step if checkpoint else resume_step) if tensorboard else None
        self._progress = Progress(total_steps, clock)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_file():
                _rewind(self.path, checkpoint if checkpoint or resume_step is None else Position(resume_step))
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            raise unwritable(self.path, error) from error
        if checkpoint is not None and checkpoint.images_per_step != images_per_step:
            self.message(**beginning(checkpoint, Position(self._step, images_per_step)))

    def step(self, step: int, epoch: int, loss: float, lr: float, images_per_second: float, **more: Any) -> None:
        """Log that optimizer step number ``step`` (counted from 1) of ``epoch`` (counted from 1) is done."""
        if not self._active:
            return
        values = {"loss": loss, "lr": lr, "images_per_second": images_per_second, **more}
        self._write("step", step, epoch=epoch, **values)
        self._scalars("train", values)
        sentence = self._progress.update(step, epoch, float(loss), float(lr), float(images_per_second))
        if sentence:
            self.message(sentence)

    def epoch(self, epoch: int, step: int, **metrics: Any) -> None:
        """Log the end of ``epoch`` after ``step`` steps. Accuracies and precisions are in percent.

        The curves show the score that ``run.scores`` names: ``val_top1``, say, beside ``val_top1_ema``.
        """
        if not self._active:
            return
        self._write("epoch", step, epoch=epoch, **metrics)
        self._scalars("epoch", metrics)
        shown = "  ".join(f"{key} {value:.4g}" for key, value in _numbers(metrics))
        self._progress.print(f"epoch {epoch}: {shown}")
        if self._clock() - self._drawn >= DRAW_EVERY_SECONDS:
            self._draw()

    def message(self, text: str, **more: Any) -> None:
        """Log and print a sentence; ``more`` is logged beside it."""
        if self._active:
            self._write("message", self._step, text=text, **more)
            self._progress.print(text)

    def close(self) -> None:
        """Draw ``curves.png`` and close what is open; closing twice does no harm."""
        if not self._active:
            return
        self._active = False
        self._progress.close()
        self._file.close()
        if self._board is not None:
            self._board.close()
        self._draw()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(JobError) if error else nullcontext():  # what went wrong first is what is shown
            self.close()

    def _write(self, kind: str, step: int, **values: Any) -> None:
        self._step = int(step)
        record = {"kind": kind, "step": self._step, "time": round(time.time(), 3), **_plain(values)}
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _scalars(self, group: str, values: dict[str, Any]) -> None:
        if self._board is not None:
            for key, value in _numbers(values):
                self._board.add_scalar(f"{group}/{key}", value, self._step)

    def _draw(self) -> None:
        self._drawn = self._clock()
        draw_curves(in_one_count(read_log(self.path)), self.path.with_name("curves.png"))


def _rewind(path: Path, position: Position | None) -> None:
    """Drop torn lines and those after ``position``; a log that has neither stays untouched."""
    content = path.read_bytes()
    if position is None and content:
        raise UserError(f"{path} is the log of an earlier run: resume that run or choose another folder")
    lines = list(_records(content))
    before = kept([record for _, record in lines], position or Position(0))
    wanted = b"".join(line + b"\n" for (line, _), keep in zip(lines, before, strict=True) if keep)
    if wanted != content:
        replace_file(path, wanted)


def require_tensorboard() -> Any:
    """TensorBoard's writer.

    Raises:
        UserError: it is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError("tensorboard is not installed: pip install 'mindcv_mnasnet[tensorboard]'") from error
    return SummaryWriter


def _open_board(folder: Path, resume_step: int | None) -> Any:
    writer = require_tensorboard()
    return writer(str(folder / "tensorboard"), purge_step=None if resume_step is None else resume_step + 1)
