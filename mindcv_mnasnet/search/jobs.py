"""Jobs of a pool in the order in which workers take them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

Job = tuple[int, Path]


class WaitingJobs:
    """Jobs and their attempts left; those that are tried again come first."""

    def __init__(self, jobs: Iterable[Job | None], attempts: int):
        self._jobs, self._attempts, self.more = iter(jobs), attempts, True
        self._again: list[tuple[int, Path, int]] = []

    def take(self) -> tuple[int, Path, int] | None:
        """The next job; None where there is none now, or (``more`` is False) none at all."""
        if self._again:
            return self._again.pop()
        try:
            job = next(self._jobs)
        except StopIteration:
            self.more = False
            return None
        return None if job is None else (*job, self._attempts)

    def give_back(self, job: tuple[int, Path, int]) -> None:
        """Try a job again."""
        self._again.append(job)
