"""Progress on the console and what it says of the time left; curves and TensorBoard."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from logged_steps import Clock, train
from PIL import Image

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.run.curves import draw_curves, smooth
from mindcv_mnasnet.run.log import RunLog, read_log
from mindcv_mnasnet.run.progress import Progress, Reading, duration, estimate


@pytest.fixture
def no_curves(monkeypatch):
    monkeypatch.setattr(RunLog, "_draw", lambda log: None)


def test_without_a_terminal_there_are_plain_lines_now_and_then(tmp_path, no_curves, capsys):
    clock = Clock()
    with RunLog(tmp_path, total_steps=99, clock=clock) as log:
        for step in range(1, 100):
            clock.now += 1.0
            log.step(step, 1, 1.0, 0.1, 64.0)
    output, errors = capsys.readouterr()
    assert errors == ""
    assert "\r" not in output
    lines = [line.split()[1] for line in output.splitlines() if line.startswith("step")]
    assert lines == ["1/99", "31/99", "61/99", "91/99", "99/99"]


def test_a_terminal_has_one_bar_that_messages_do_not_tear(tmp_path, no_curves, monkeypatch, capsys):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with RunLog(tmp_path, total_steps=9) as log:
        train(log, 0, 9)
        log.message("done")
    frames = [frame for frame in terminal.getvalue().split("\r") if "9/9" in frame]
    assert "100%" in frames[-1]
    assert "loss 0.111, 64 images/s" in frames[-1]
    assert "left" in frames[-1]
    assert capsys.readouterr().out.splitlines()[-1] == "done"


def said_of_the_whole(paces):
    """(step, time left) of every sentence about 3701 steps, whose first ones take these seconds."""
    clock = Clock()
    progress, found = Progress(3701, clock), []
    for step, seconds in enumerate(paces, 1):
        clock.now += seconds
        if sentence := progress.update(step, 1, 1.0, 0.1, 64.0):
            found.append((step, sentence.partition(" for ")[0]))
    return found


@pytest.mark.parametrize(
    ("paces", "said"),
    [
        ([1000.0] + [0.5] * 300, [(16, "about 30 min 42 s")]),
        ([1000.0] + [6.0] * 90, [(3, "about 6 h 10 min")]),
        ([1000.0] + [2.0] * 5 + [1.0] * 300, [(6, "about 2 h 3 min"), (101, "about 1 h 3 min")]),
    ],
    ids=["even", "slow", "faster later"],
)
def test_the_job_is_estimated_early_and_corrected_and_compilation_does_not_count(paces, said, capsys):
    assert said_of_the_whole(paces) == said


def test_the_estimate_is_logged(tmp_path, no_curves):
    clock = Clock()
    with RunLog(tmp_path, total_steps=3611, clock=clock) as log:
        train(log, 0, 300, clock)
    messages = [record for record in read_log(tmp_path / "log.jsonl") if record["kind"] == "message"]
    assert [record["step"] for record in messages] == [11]
    assert "about 1 h 0 min for the remaining 3,600 steps" in messages[0]["text"]


@pytest.mark.parametrize(("total", "seconds"), [(1000, 450.0), (100, 0.0), (50, 0.0)])
def test_the_estimate_is_pace_times_steps_left(total, seconds):
    assert estimate(Reading(20, 7.0), Reading(100, 47.0), total) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599.9, "1 h 0 min"),
        (12000, "3 h 20 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations_read_well_at_their_edges(seconds, text):
    assert duration(seconds) == text


def test_closing_draws_the_curves(tmp_path):
    with RunLog(tmp_path) as log:
        train(log, 0, 9)
        log.step(10, 4, float("nan"), 0.1, 64.0)
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 500
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10


@pytest.mark.parametrize("records", [[], [{"kind": "epoch", "step": 1, "val_top1": None}]], ids=["empty", "null only"])
def test_a_log_with_nothing_to_show_is_drawn(tmp_path, records):
    draw_curves(records, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_smoothing_is_a_running_mean_that_leaves_gaps_out():
    values = np.array([1.0, 2.0, np.nan, 4.0, 9.0])
    np.testing.assert_array_equal(smooth(values, 3), [1.5, 1.5, 3.0, 6.5, 6.5])
    np.testing.assert_array_equal(smooth(values, 1), values)
    assert len(smooth(np.array([]), 3)) == 0


def test_missing_tensorboard_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install 'mindcv_mnasnet\[tensorboard\]'"):
        RunLog(tmp_path, tensorboard=True)


def test_tensorboard_gets_every_number(tmp_path, no_curves, monkeypatch):
    module = pytest.importorskip("tensorboardX")
    written = []
    monkeypatch.setattr(module.SummaryWriter, "add_scalar", lambda self, *scalar: written.append(scalar))
    with RunLog(tmp_path, tensorboard=True) as log:
        log.step(1, 1, 2.0, 0.1, 64.0, note="text")
        log.epoch(1, 1, val_top1=50.0)
    assert {("train/loss", 2.0, 1), ("train/lr", 0.1, 1), ("epoch/val_top1", 50.0, 1)} <= set(written)
    assert list((tmp_path / "tensorboard").iterdir())
