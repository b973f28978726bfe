"""Steps written to a log, with a clock that tests set."""

from __future__ import annotations

from mindcv_mnasnet.run.log import RunLog

STEPS_PER_EPOCH = 3


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def train(log: RunLog, start: int, stop: int, clock: Clock | None = None) -> None:
    """Log steps ``start`` + 1 to ``stop`` with their epochs, one second a step."""
    for step in range(start + 1, stop + 1):
        if clock:
            clock.now += 1.0
        epoch = (step - 1) // STEPS_PER_EPOCH + 1
        log.step(step, epoch, loss=1 / step, lr=0.1, images_per_second=64.0)
        if step % STEPS_PER_EPOCH == 0:
            log.epoch(epoch, step, val_top1=50.0 + epoch)
