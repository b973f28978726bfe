"""Going on with a run: killed, stopped or damaged in between, it ends where it would have ended."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import (
    ROOT,
    SECONDS,
    STEPS_PER_EPOCH,
    TINY,
    cli,
    environment,
    messages,
    refused,
    run,
    run_until,
    state,
    steps,
    stopped_at,
    unequal,
    write_recipe,
)

from mindcv_mnasnet.run.log import read_log

LAST = TINY["epoch_size"] * STEPS_PER_EPOCH


def epoch_lines(run_folder: Path) -> list[dict]:
    lines = [record for record in read_log(run_folder / "log.jsonl") if record["kind"] == "epoch"]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


def checkpoint_names(run_folder: Path) -> list[str]:
    return sorted(path.name for path in (run_folder / "checkpoints").iterdir())


# --- one run killed, damaged and stopped again and again, beside one that was left alone -----------------------------


@dataclass
class Ordeal:
    straight: Path  # run folders
    run: Path
    sessions: dict[str, subprocess.CompletedProcess[str]]
    kill: int
    finished: dict[str, bytes]  # the run folder's files when it had come to its end
    before_first: list[str]  # checkpoints after the first kill


@pytest.fixture(scope="module")
def ordeal(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("ordeal")
    recipe = write_recipe(folder, TINY, data_dir=str(digits))
    assert run_until("never:0:0", "-c", recipe, "--run_name", "straight", cwd=folder).returncode == 0
    path, sessions = folder / "runs" / "ordeal", {}
    kill = random.Random().randint(15, 19)

    def resume(name: str, moment: str) -> None:
        sessions[name] = run_until(moment, "--resume", path, cwd=folder)

    sessions["compile"] = run_until("compile:0:SIGKILL", "-c", recipe, "--run_name", "ordeal", cwd=folder)
    before_first = checkpoint_names(path)
    resume("epoch 1", f"step:{kill}:SIGKILL")
    newest = path / "checkpoints" / "step_00000014.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1000])
    resume("write", "write:28:SIGKILL")
    flipped = bytearray((path / "checkpoints" / "step_00000021.safetensors").read_bytes())
    flipped[-2000] ^= 4
    (path / "checkpoints" / "step_00000021.safetensors").write_bytes(flipped)
    resume("SIGTERM", "step:31:SIGTERM")
    resume("end", "never:0:0")
    finished = {str(file): file.read_bytes() for file in path.rglob("*") if file.suffix in (".json", ".safetensors")}
    assert cli("--resume", path) == 0
    return Ordeal(folder / "runs" / "straight", path, sessions, kill, finished, before_first)


def test_the_sessions_died_when_they_were_meant_to(ordeal):
    codes = {name: session.returncode for name, session in ordeal.sessions.items()}
    killed = dict.fromkeys(("compile", "epoch 1", "write"), -signal.SIGKILL)
    assert codes == killed | dict.fromkeys(("SIGTERM", "end"), 0), ordeal.sessions["end"].stderr
    assert ordeal.before_first == []


def test_a_run_killed_again_and_again_ends_with_the_same_bits(ordeal):
    straight, resumed = state(ordeal.straight, LAST), state(ordeal.run, LAST)
    assert unequal(straight, resumed) == [], f"killed at {ordeal.kill}"
    kinds = ("stem.", "optimizer.mean_square.", "optimizer.momentum.", "ema.", "state.")
    assert all(any(name.startswith(kind) for name in resumed) for kind in kinds)


def test_its_log_reads_as_if_it_had_never_stopped(ordeal):
    assert [step for step, *_ in steps(ordeal.run)] == list(range(1, LAST + 1))
    assert steps(ordeal.run) == steps(ordeal.straight)
    assert epoch_lines(ordeal.run) == epoch_lines(ordeal.straight)


def test_its_best_result_is_remembered(ordeal):
    found = [json.loads((path / "summary.json").read_text()) for path in (ordeal.straight, ordeal.run)]
    assert found[0]["best"] == found[1]["best"]
    assert [found[1][key] for key in ("stopped", "steps", "epochs")] == [False, LAST, TINY["epoch_size"]]


@pytest.mark.parametrize(
    ("session", "from_step", "broken"),
    [("write", 7, "step_00000014"), ("SIGTERM", 20, "step_00000021"), ("end", 32, None)],
)
def test_the_newest_intact_checkpoint_is_used_and_said_so(ordeal, session, from_step, broken):
    said = ordeal.sessions[session].stdout.splitlines()
    (source,) = [line for line in said if line.startswith("resuming from")]
    assert f"step_{from_step:08d}.safetensors" in source
    complaints = [line for line in said if "passed over" in line]
    assert len(complaints) == bool(broken)
    assert all(broken in line for line in complaints)


def test_a_run_killed_before_its_first_checkpoint_begins_again(ordeal):
    assert "starting from the beginning" in ordeal.sessions["epoch 1"].stdout


def test_a_stopped_run_says_how_to_go_on(ordeal):
    session = ordeal.sessions["SIGTERM"]
    assert f"--resume {ordeal.run}" in session.stdout.splitlines()[-1]
    assert "Traceback" not in session.stderr


def test_nothing_half_written_stays(ordeal):
    assert not [name for name in checkpoint_names(ordeal.run) if "partial" in name]
    assert len(checkpoint_names(ordeal.run)) == 1 + 10  # best and keep_checkpoint_max


def test_resuming_a_finished_run_changes_nothing_but_its_log(ordeal):
    now = {str(file): file.read_bytes() for file in ordeal.run.rglob("*") if str(file) in ordeal.finished}
    changed = [Path(name).name for name in now if now[name] != ordeal.finished[name]]
    assert changed == ["environment.json"]  # one more session
    assert "nothing to do" in messages(ordeal.run)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.fixture
def started(ordeal, tmp_path):
    """A copy of the run, ready to be spoiled."""
    path = tmp_path / "a run"
    (path / "checkpoints").mkdir(parents=True)
    for file in ("recipe.yaml", "log.jsonl"):
        (path / file).write_bytes((ordeal.straight / file).read_bytes())
    for file in ("step_00000020.safetensors", "step_00000028.safetensors"):
        (path / "checkpoints" / file).write_bytes((ordeal.straight / "checkpoints" / file).read_bytes())
    return path


def test_no_intact_checkpoint_is_one_sentence_naming_all(started, capsys):
    for file in (started / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    sentence = refused(capsys, "--resume", started, code=1)
    assert "step_00000020" in sentence
    assert "step_00000028" in sentence


def test_a_changed_recipe_is_refused_unless_the_change_is_named(started, capsys):
    words = ("--resume", started, "--lr", "0.02", "--label_smoothing", "0.1")
    assert "lr: the run was made with 0.01 and is resumed with 0.02" in refused(capsys, *words[:4])
    assert "label_smoothing" in refused(capsys, *words, "--allow_changes", "lr")
    assert stopped_at(30, *words, "--allow_changes", "lr,label_smoothing") == 0
    rates = {step: rate for step, _, rate in steps(started)}
    assert rates[29] > 1.9 * rates[28]


def test_saying_the_same_again_is_no_change(started, tmp_path, digits, capsys):
    recipe = write_recipe(tmp_path, TINY, data_dir=str(digits))
    sentence = refused(capsys, "-c", recipe, "--resume", started, "--seed", "7")
    assert sentence.startswith("error: seed")


def test_another_size_of_the_data_set_is_refused(started, capsys):
    sentence = refused(capsys, "--resume", started, "--num_samples", "320", "--allow_changes", "num_samples")
    assert "640" in sentence
    assert "320" in sentence


def test_another_global_batch_is_refused_with_the_way_out(started, capsys):
    assert "--allow_changes batch_size" in refused(capsys, "--resume", started, "--batch_size", "16")


@pytest.mark.slow
def test_the_same_global_batch_by_accumulation_goes_on_and_stays_the_newest(started):
    """Twice as many batches count as the same progress, and back again."""
    halves = ("--batch_size", "16", "--gradient_accumulation_steps", "2")
    assert stopped_at(30, "--resume", started, *halves) == 0
    assert stopped_at(32, "--resume", started, "--batch_size", "32", "--gradient_accumulation_steps", "1") == 0
    assert "step_00000030.safetensors" in messages(started).rpartition("resuming from")[2]
    assert len(steps(started)) == 32
    assert stopped_at(34, "--resume", started) == 0
    assert "step_00000032.safetensors" in messages(started).rpartition("resuming from")[2]
    assert [step for step, *_ in steps(started)] == list(range(1, 35))


@pytest.mark.parametrize(
    ("path", "says"), [("nothing here", "no recipe.yaml"), ("recipe.yaml", "no recipe.yaml"), ("", "resume")]
)
def test_what_is_no_run_folder_is_refused(started, capsys, path, says):
    assert says in refused(capsys, "--resume", started / path if path else "")


def test_resume_and_weights_to_start_from_contradict(started, capsys):
    start = started / "checkpoints" / "step_00000020.safetensors"
    assert "contradict" in refused(capsys, "--resume", started, "--init_from", start)


def test_two_jobs_in_one_run_folder_are_refused(started, capsys):
    import fcntl

    with (started / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        before = (started / "log.jsonl").read_bytes()
        assert "another job" in refused(capsys, "--resume", started)
        assert (started / "log.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_fine_tuned_run_resumes(ordeal, tmp_path, digits):
    start = ordeal.straight / "checkpoints" / "best.safetensors"
    recipe = write_recipe(tmp_path, TINY, data_dir=str(digits), init_from=str(start), lr=0.001, epoch_size=1)
    words = ("-c", recipe, "--ckpt_save_dir", tmp_path, "--run_name", "run", "--decay_epochs", "1")
    assert stopped_at(3, *words) == 0
    assert cli("--resume", tmp_path / "run") == 0
    assert [step for step, *_ in steps(tmp_path / "run")] == list(range(1, STEPS_PER_EPOCH + 1))


# --- at any moment -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bits(ordeal, tmp_path, digits):
    """A checkpoint is being written most of the time, and kills come from outside, at times nobody chose."""
    keys = {"data_dir": str(digits), "ckpt_save_steps": 1, "keep_checkpoint_max": 2}
    recipe = write_recipe(tmp_path, TINY, **keys)
    path = tmp_path / "runs" / "run"
    rng = random.Random()
    words, delays = ["-c", str(recipe), "--run_name", "run"], []
    for _ in range(12):
        command = [sys.executable, str(ROOT / "train.py"), *words]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
        known = len(steps(path)) if (path / "log.jsonl").exists() else 0
        deadline = time.monotonic() + SECONDS
        while len(steps(path) if (path / "log.jsonl").exists() else ()) <= known and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        delays.append(rng.uniform(0, 0.4))
        time.sleep(delays[-1])
        process.kill()
        process.wait()
        if (path / "recipe.yaml").exists():
            words = ["--resume", str(path)]
    ended = run(*words, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert unequal(state(ordeal.straight, LAST), state(path, LAST)) == [], delays
    assert [step for step, *_ in steps(path)] == list(range(1, LAST + 1))
    assert steps(path) == steps(ordeal.straight)
