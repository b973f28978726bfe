"""How far a job is, on the console: one bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from tqdm import tqdm

LINE_EVERY_SECONDS = 30.0
ESTIMATE_AFTER_STEPS = 15
ESTIMATE_AFTER_SECONDS = 10.0
CORRECTED_AFTER_STEPS = 100  # if the whole then takes another time by more than
CORRECTED_SHARE = 0.2


class Reading(NamedTuple):
    """The clock at a moment when ``step`` steps were done."""

    step: int
    seconds: float


def estimate(first: Reading, latest: Reading, total_steps: int) -> float:
    """Seconds left at the speed between two readings; evaluation and saving between them count.

    The first reading belongs after the first step of a process, so that compilation does not count.
    """
    if latest.step <= first.step:
        raise ValueError(f"no step lies between reading {first.step} and {latest.step}")
    seconds_per_step = (latest.seconds - first.seconds) / (latest.step - first.step)
    return seconds_per_step * max(0, total_steps - latest.step)


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter, such as ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def _pace(images_per_second: float) -> str:
    """Text; NaN stands for the first step, whose time is compilation's."""
    return "first step" if math.isnan(images_per_second) else f"{images_per_second:,.0f} images/s"


class Progress:
    """Shows the steps of one job. ``clock`` counts seconds; without ``total_steps`` there is nothing to estimate."""

    def __init__(self, total_steps: int | None = None, clock: Callable[[], float] = time.monotonic):
        self.total_steps = total_steps
        self._clock = clock
        self._first: Reading | None = None
        self._bar: tqdm | None = None
        self._promised: float | None = None  # seconds from the first reading to the end
        self._corrected = False
        self._last_line = float("-inf")

    def update(self, step: int, epoch: int, loss: float, lr: float, images_per_second: float) -> str | None:
        """Show that ``step`` is done; returns the sentence about the whole job when its speed is known.

        Once after the first steps, and once more where a hundred steps tell of another time.
        """
        now = Reading(step, self._clock())
        if self._first is None:
            self._first = now
            if sys.stderr.isatty():
                layout = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{remaining} left{postfix}]"
                self._bar = tqdm(
                    total=self.total_steps,
                    initial=step,
                    bar_format=layout if self.total_steps else None,
                    ncols=shutil.get_terminal_size().columns - 1,  # 79 on a terminal that tells no size
                    smoothing=0.1,
                )
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.3f}, {_pace(images_per_second)}", refresh=False)
            self._bar.update(step - self._bar.n)
        elif now.seconds - self._last_line >= LINE_EVERY_SECONDS or step == self.total_steps:
            self._last_line = now.seconds
            print(self._line(now, epoch, loss, lr, images_per_second), flush=True)
        return self._sentence(now)

    def _line(self, now: Reading, epoch: int, loss: float, lr: float, images_per_second: float) -> str:
        assert self._first is not None
        parts = [
            f"step {now.step}" + (f"/{self.total_steps}" if self.total_steps else ""),
            f"epoch {epoch}",
            f"loss {loss:.4f}",
            f"lr {lr:.3g}",
            _pace(images_per_second),
        ]
        if self.total_steps and now.step > self._first.step:
            parts.append(f"{duration(estimate(self._first, now, self.total_steps))} left")
        return "  ".join(parts)

    def _sentence(self, now: Reading) -> str | None:
        first, total = self._first, self.total_steps
        if self._corrected or first is None or total is None or not first.step < now.step < total:
            return None
        steps, seconds = now.step - first.step, now.seconds - first.seconds
        left = estimate(first, now, total)
        if self._promised is None:
            if steps < ESTIMATE_AFTER_STEPS and seconds < ESTIMATE_AFTER_SECONDS:
                return None
            self._promised = seconds + left
        elif steps < CORRECTED_AFTER_STEPS:
            return None
        else:
            self._corrected = True
            if abs(seconds + left - self._promised) <= CORRECTED_SHARE * self._promised:
                return None
        finish = time.strftime("%a %H:%M", time.localtime(time.time() + left))
        return f"about {duration(left)} for the remaining {total - now.step:,} steps, until {finish}"

    def print(self, text: str) -> None:
        """Print a line without tearing the bar."""
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)

    def close(self) -> None:
        """Leave the bar as it stands and go to a new line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
