"""A step's time as MindSpore's profiler divides it; needs an NPU."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import mindspore as ms

from mindcv_mnasnet.device_check.computing import built, constant_batch, published
from mindcv_mnasnet.device_check.parts import FAILED, OK, Outcome

_STEPS = 5


def profile(device: str) -> Outcome:
    """Computing, communication and idle time of some steps, in ms a step."""
    recipe, machine = published(device)
    step, _ = built(recipe, machine)
    inputs = constant_batch(recipe.batch_size, recipe.image_resize)
    step(*inputs).asnumpy()
    with tempfile.TemporaryDirectory() as folder:
        profiler = ms.profiler.Profiler(output_path=folder, start_profile=False)
        profiler.start()
        for _ in range(_STEPS):
            step(*inputs).asnumpy()
        profiler.stop()
        profiler.analyse()
        tables = list(Path(folder).rglob("step_trace_time.csv"))
        rows = list(csv.DictReader(tables[0].open())) if tables else []
    return divided(rows)


def divided(rows: list[dict[str, str]]) -> Outcome:
    """The rows of ``step_trace_time.csv``, whose columns are microseconds, as an outcome."""
    if not rows:
        return Outcome(FAILED, "the profiler wrote no step_trace_time.csv")
    names = [name for name in rows[0] if _is_number(rows[0][name]) and name not in ("Device_id", "Step")]
    facts = {name: sum(float(row[name] or 0) for row in rows) / 1000 / _STEPS for name in names}
    return Outcome(OK, ", ".join(f"{name} {value:.2f} ms" for name, value in facts.items() if value), facts)


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True
