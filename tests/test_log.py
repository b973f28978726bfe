"""The log of a run: what is written, what survives a crash, what the console shows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from logged_steps import STEPS_PER_EPOCH, train

from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.files import replace_file, require_writable
from mindcv_mnasnet.run.log import RunLog, read_log
from mindcv_mnasnet.run.sections import Position, in_one_count


@pytest.fixture
def no_curves(monkeypatch):
    monkeypatch.setattr(RunLog, "_draw", lambda log: None)


def without_times(records: list[dict]) -> list[dict]:
    return [{key: value for key, value in record.items() if key != "time"} for record in records]


def strict_json(line: str) -> dict:
    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(line, parse_constant=refuse)


def test_every_line_is_valid_json_whatever_the_numbers(tmp_path, no_curves):
    with RunLog(tmp_path) as log:
        log.step(1, 1, float("nan"), np.float32(0.5), float("inf"), scale=np.int64(1024), counts=np.array([1, 2]))
        log.epoch(1, 1, val_top1=np.float64(51.5), confusion={"a": float("-inf")}, folder=tmp_path)
        log.message("a sentence\nof two lines with ü and \udcff")
    step, epoch, message = [strict_json(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert (step["loss"], step["lr"], step["images_per_second"]) == (None, 0.5, None)
    assert (step["scale"], step["counts"]) == (1024, [1, 2])
    assert (epoch["val_top1"], epoch["confusion"], epoch["folder"]) == (51.5, {"a": None}, str(tmp_path))
    assert message["text"] == "a sentence\nof two lines with ü and \udcff"


def test_each_line_is_in_the_file_when_the_call_returns(tmp_path, no_curves):
    path = tmp_path / "log.jsonl"
    before = b""
    with RunLog(tmp_path) as log:
        for step in range(1, 4):
            log.step(step, 1, 1.0, 0.1, 10.0)
            content = path.read_bytes()
            assert content.startswith(before)
            assert content[len(before) :].count(b"\n") == 1
            before = content


@pytest.mark.parametrize("resume_step", [0, 2, 3, 7])
def test_a_resumed_log_reads_as_if_never_interrupted(tmp_path, no_curves, resume_step):
    with RunLog(tmp_path / "straight") as log:
        train(log, 0, 9)
    with RunLog(tmp_path / "broken") as log:
        train(log, 0, 8)
    first_dropped = b'{"kind": "step", "step": %d,' % (resume_step + 1)
    kept = (tmp_path / "broken/log.jsonl").read_bytes().split(first_dropped)[0]
    with RunLog(tmp_path / "broken", resume_step=resume_step) as log:
        train(log, resume_step, 9)
    content = (tmp_path / "broken/log.jsonl").read_bytes()
    assert content.startswith(kept)
    assert without_times(read_log(tmp_path / "broken/log.jsonl")) == without_times(
        read_log(tmp_path / "straight/log.jsonl")
    )


def resumed(folder: Path, before: Position, now: Position) -> RunLog:
    return RunLog(folder, resume_step=now.step, images_per_step=now.images_per_step, checkpoint=before)


@pytest.mark.parametrize("images", [32, 8])
def test_batches_of_another_size_lose_and_double_no_line(tmp_path, no_curves, images):
    """Killed after step 8, on from step 7 of 16 images, which is two epochs done; killed and on once more."""
    with RunLog(tmp_path, images_per_step=16) as log:
        train(log, 0, 8)
    now = Position(6 * 16 // images, images)
    with resumed(tmp_path, Position(7, 16), now) as log:
        for step in range(now.step + 1, now.step + 4):
            log.step(step, 3, 1.0, 0.1, 64.0)
    later = Position(now.step + 2, images)
    with resumed(tmp_path, later, later) as log:
        log.step(later.step + 1, 3, 2.0, 0.1, 64.0)
    records = [record for record in read_log(tmp_path / "log.jsonl") if record["kind"] == "step"]
    assert [record["step"] for record in records] == [*range(1, 8), *range(now.step + 1, now.step + 4)]
    assert records[-1]["loss"] == 2.0
    whole = [record["step"] for record in in_one_count(read_log(tmp_path / "log.jsonl")) if record["kind"] == "step"]
    assert whole == list(range(1, 11))


def test_a_checkpoint_of_before_the_size_changed_takes_the_log_back_to_it(tmp_path, no_curves):
    with RunLog(tmp_path, images_per_step=16) as log:
        train(log, 0, 6)
    with resumed(tmp_path, Position(6, 16), Position(3, 32)) as log:
        train(log, 3, 6)
    with resumed(tmp_path, Position(5, 16), Position(5, 16)) as log:
        train(log, 5, 7)
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl") if record["kind"] == "step"] == [*range(1, 8)]


def test_a_log_cut_at_any_byte_is_read_and_resumed(tmp_path, no_curves):
    with RunLog(tmp_path) as log:
        train(log, 0, STEPS_PER_EPOCH)
    path = tmp_path / "log.jsonl"
    whole, records = path.read_bytes(), read_log(path)
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        complete = records[: whole.count(b"\n", 0, cut)]
        assert read_log(path)[: len(complete)] == complete
        assert len(read_log(path)) <= len(complete) + 1
        RunLog(tmp_path, resume_step=STEPS_PER_EPOCH).close()
        assert all(strict_json(line) for line in path.read_text().splitlines())
        assert path.read_bytes() == b"" or path.read_bytes().endswith(b"}\n")


def test_zeros_left_by_a_power_failure_are_skipped(tmp_path, no_curves):
    with RunLog(tmp_path) as log:
        train(log, 0, 2)
    path = tmp_path / "log.jsonl"
    path.write_bytes(path.read_bytes() + b"\0" * 4096)
    assert [record["step"] for record in read_log(path)] == [1, 2]


def test_an_intact_log_is_not_rewritten_on_resume(tmp_path, no_curves):
    with RunLog(tmp_path) as log:
        train(log, 0, 2)
    before = (tmp_path / "log.jsonl").stat()
    RunLog(tmp_path, resume_step=2).close()
    after = (tmp_path / "log.jsonl").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_fresh_run_does_not_mix_into_an_earlier_log(tmp_path, no_curves):
    with RunLog(tmp_path) as log:
        train(log, 0, 2)
    with pytest.raises(UserError, match="earlier run"):
        RunLog(tmp_path)


def test_other_ranks_write_and_print_nothing(tmp_path, capsys):
    with RunLog(tmp_path / "run", rank=1, tensorboard=True) as log:
        train(log, 0, 4)
        log.message("hidden")
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_names_the_path(tmp_path, no_curves):
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(JobError, match=r"log\.jsonl: No space left"), RunLog(tmp_path) as log:
        log.step(1, 1, 1.0, 0.1, 10.0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_replacing_a_file_on_a_full_disk_leaves_it_as_it_was(tmp_path):
    target = tmp_path / "file"
    replace_file(target, b"before")
    (tmp_path / "file.partial").symlink_to("/dev/full")
    with pytest.raises(JobError, match=r"file: No space left"):
        replace_file(target, b"after")
    assert target.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_stays_one_and_its_file_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    link, file = tmp_path / "link", tmp_path / "there" / "file"
    link.symlink_to(file)
    for content in (b"new", b"again"):
        require_writable("output", link)
        replace_file(link, content)
        assert link.is_symlink()
        assert file.read_bytes() == content
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    require_writable("output", pipe)
    replace_file(pipe, b"text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)
    assert pipe.is_fifo()


def test_trying_whether_a_file_can_be_written_leaves_all_as_it_was(tmp_path):
    (tmp_path / "file.partial").write_text("mine")
    require_writable("output", tmp_path / "file")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_missing_log_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match=r"log\.jsonl"):
        read_log(tmp_path / "log.jsonl")
