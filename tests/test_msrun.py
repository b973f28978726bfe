"""Data-parallel training for real: msrun starts two processes on this machine's CPU."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from processes import (
    ROOT,
    STEPS_PER_EPOCH,
    TINY,
    cli,
    messages,
    msrun,
    run,
    state,
    steps,
    unequal,
    write_recipe,
)
from shipped import write_images

import validate
from mindcv_mnasnet.run.checkpoint import read_checkpoint
from mindcv_mnasnet.run.log import read_log

LAST = 2 * STEPS_PER_EPOCH

# Trains like train.py; every process leaves all tensors of its training state in rank_<rank>.npz. The word before the
# arguments lets one rank fail, die or be told to stop when a step is over: the 25th, or N of ``kill:N``.
_PROGRAM = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
import train
from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.train import engine
from mindcv_mnasnet.errors import JobError, run_cli

jobs, prepare, note = [], engine.prepare, engine._Training._note_loss
word, _, at = sys.argv[1].partition(":")

def remember(recipe):
    jobs.append(prepare(recipe))
    return jobs[0]

def ending(self, *arguments):
    note(self, *arguments)
    if self.job.attempted_steps == int(at or 25) and self.job.runtime.rank == 1:
        if word == "stop":
            os.kill(os.getpid(), signal.SIGTERM)
        if word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "fail":
            raise JobError("this rank's disk is full")

engine.prepare, engine._Training._note_loss = remember, ending
code = run_cli(lambda: train.main(sys.argv[2:]))
for job in jobs:
    np.savez(f"rank_{{job.runtime.rank}}.npz", **job.step.state())
if word == "finish":
    second = runtime.start("CPU", deterministic=True)
    total = runtime.sum_over_ranks(np.ones(1, np.int64), second.world)
    np.savez(f"second_{{second.rank}}.npz", total=total)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "train_and_tell.py"
    path.write_text(_PROGRAM)
    return path


@pytest.fixture(scope="module")
def halves(tmp_path_factory, digits):
    """A recipe whose batches, on two devices, are those of ``TINY``."""
    keys = {"batch_size": 16, "epoch_size": 2, "data_dir": str(digits), "distribute": True}
    return write_recipe(tmp_path_factory.mktemp("recipe"), TINY, **keys)


@pytest.fixture(scope="module")
def pair(tmp_path_factory, program, halves):
    """(working folder, msrun's output) of a finished job of two processes."""
    folder = tmp_path_factory.mktemp("pair")
    ended = msrun(program, "finish", "-c", halves, "--run_name", "run", cwd=folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder, ended.stdout


def ranks(folder: Path) -> list[dict[str, np.ndarray]]:
    return [dict(np.load(folder / f"rank_{rank}.npz")) for rank in (0, 1)]


def test_both_ranks_end_with_the_same_bits_and_the_checkpoint_has_them(pair):
    first, second = ranks(pair[0])
    assert any(name.endswith("moving_variance") for name in first)
    assert any(name.startswith("ema.") for name in first)
    assert unequal(first, second) == []
    assert unequal(first, state(pair[0] / "runs" / "run", LAST)) == []


def test_processes_of_a_group_begin_a_second_job(pair):
    """As a script does that trains, then validates."""
    assert [np.load(pair[0] / f"second_{rank}.npz")["total"].tolist() for rank in (0, 1)] == [[2], [2]]


def test_there_is_one_log_and_one_set_of_checkpoints(pair):
    folder, output = pair
    assert [path.name for path in (folder / "runs").iterdir()] == ["run"]
    assert [step for step, *_ in steps(folder / "runs" / "run")] == list(range(1, LAST + 1))
    assert output.count("run folder ") == 1
    names = {path.name for path in (folder / "runs" / "run" / "checkpoints").iterdir()}
    assert names == {"best.safetensors"} | {f"step_{n:08d}.safetensors" for n in (7, 14, 20, 21, 28, 35, 40)}


def test_the_job_knows_that_it_has_two_devices(pair):
    summary = json.loads((pair[0] / "runs" / "run" / "summary.json").read_text())
    assert (summary["cards"], summary["batch_size"], summary["global_batch"]) == (2, 16, 32)
    assert "trains alone" not in messages(pair[0] / "runs" / "run")


def test_two_processes_count_what_one_counts(pair, tmp_path):
    """The accuracy that both measured together is that of one process, on the same weights."""
    path = pair[0] / "runs" / "run" / "checkpoints" / f"step_{LAST:08d}.safetensors"
    words = (path, "--weights", "ema", "--distribute", "None")
    assert cli(*words, "--json", tmp_path / "one.json", program=validate) == 0
    (row,) = json.loads((tmp_path / "one.json").read_text())
    epoch = [line for line in read_log(pair[0] / "runs" / "run" / "log.jsonl") if line["kind"] == "epoch"][-1]
    assert (row["images"], row["top1"], row["top5"]) == (360, epoch["val_top1_ema"], epoch["val_top5_ema"])
    assert row["loss"] == pytest.approx(epoch["val_loss_ema"], rel=1e-5)


@pytest.mark.slow
def test_validation_on_two_processes_counts_every_image_once(pair, tmp_path):
    path = pair[0] / "runs" / "run" / "checkpoints" / "best.safetensors"
    words = (path, "--weights", "ema", "--val_batch_size", "23", "--val_resize", "24", "--json")
    ended = msrun(ROOT / "validate.py", *words, "two.json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout
    assert cli(*words, tmp_path / "one.json", program=validate) == 0
    one, two = (json.loads((tmp_path / name).read_text())[0] for name in ("one.json", "two.json"))
    assert [two[key] for key in ("images", "top1", "top5")] == [one[key] for key in ("images", "top1", "top5")]
    assert ended.stdout.count("not compared with a reported result") == 1


@pytest.mark.slow
def test_one_process_told_to_stop_takes_the_other_along_and_one_alone_goes_on(program, halves, tmp_path):
    ended = msrun(program, "stop", "-c", halves, "--run_name", "run", cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout
    path = tmp_path / "runs" / "run"
    assert [step for step, *_ in steps(path)] == list(range(1, 31))  # they agree every ten steps
    assert unequal(*ranks(tmp_path)) == []
    assert unequal(ranks(tmp_path)[0], state(path, 30)) == []
    alone = run("--resume", path, "--batch_size", "32", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert [step for step, *_ in steps(path)] == list(range(1, LAST + 1))
    assert read_checkpoint(path / "checkpoints" / f"step_{LAST:08d}.safetensors").meta["world"] == 1
    assert "not bit for bit" in messages(path)
    last = [line for line in read_log(path / "log.jsonl") if line["kind"] == "epoch"][-1]
    losses = [loss for step, loss, _ in steps(path) if step > STEPS_PER_EPOCH]
    assert last["train_loss"] == pytest.approx(np.mean(losses), rel=1e-4)  # of both parts of the epoch
    assert last["val_images"] == 360


@pytest.mark.slow
def test_one_alone_goes_on_as_two(pair, program, tmp_path, digits):
    """The same position, rate and counters, on the same images: only batch norm sees halves of the batches."""
    keys = {"batch_size": 32, "epoch_size": 2, "data_dir": str(digits)}
    recipe = write_recipe(tmp_path, TINY, **keys)
    assert cli("-c", recipe, "--ckpt_save_dir", tmp_path / "runs", "--run_name", "run") == 0
    path = tmp_path / "runs" / "run"
    for file in (path / "checkpoints").iterdir():
        if file.name != f"step_{STEPS_PER_EPOCH:08d}.safetensors":
            file.unlink()
    (path / "summary.json").unlink()
    alone = steps(path)
    ended = msrun(program, "finish", "--resume", path, "--batch_size", "16", cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout
    together = steps(path)
    assert [(step, rate) for step, _, rate in together] == [(step, rate) for step, _, rate in alone]
    assert together[:STEPS_PER_EPOCH] == alone[:STEPS_PER_EPOCH]
    assert [loss for _, loss, _ in together] == pytest.approx([loss for _, loss, _ in alone], rel=0.2)
    assert unequal(*ranks(tmp_path)) == []


@pytest.mark.slow
def test_a_rank_that_fails_ends_the_job_with_its_error_shown(program, halves, tmp_path):
    ended = msrun(program, "fail", "-c", halves, "--run_name", "run", cwd=tmp_path, patient=False)
    assert ended.returncode != 0
    assert "failed: this rank's disk is full" in ended.stdout + ended.stderr
    resumed = msrun(program, "finish", "--resume", "runs/run", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stdout
    assert [step for step, *_ in steps(tmp_path / "runs" / "run")] == list(range(1, LAST + 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnasnet_0.75_ascend", "mnasnet_a1_1.0_timm"])
def test_a_shipped_recipe_killed_and_resumed_ends_with_the_same_bits_on_both_ranks(program, name, tmp_path):
    """As it is shipped but for the device, batch and epochs."""
    write_images(tmp_path / "images")
    words = ("-c", ROOT / "configs" / "mnasnet" / f"{name}.yaml", "--data_dir", "images", "--device_target", "CPU")
    words += ("--batch_size", "2", "--epoch_size", "2", "--num_parallel_workers", "1", "--deterministic", "True")
    words += ("--ckpt_save_steps", "3", "--log_interval", "1", "--run_name", "run")
    for folder in ("straight", "killed"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "images").symlink_to(tmp_path / "images")
    assert msrun(program, "finish", *words, cwd=tmp_path / "straight").returncode == 0
    died = msrun(program, "kill:8", *words, cwd=tmp_path / "killed", patient=False)
    assert died.returncode != 0
    assert not (tmp_path / "killed" / "rank_0.npz").exists()
    resumed = msrun(program, "finish", "--resume", "runs/run", cwd=tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stdout
    straight, first, second = (*ranks(tmp_path / "straight")[:1], *ranks(tmp_path / "killed"))
    assert unequal(first, second) == []
    assert unequal(first, straight) == []
    assert steps(tmp_path / "killed" / "runs" / "run") == steps(tmp_path / "straight" / "runs" / "run")


@pytest.mark.slow
def test_mistakes_end_the_job_with_one_sentence_of_each_process(halves, tmp_path):
    ended = msrun(ROOT / "train.py", "-c", halves, "--batch_size", "1000", cwd=tmp_path, patient=False)
    assert ended.returncode != 0
    assert "do not fill one step of 2000" in ended.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_wrong_folder_ends_all_processes(halves, tmp_path):
    words = ("-c", halves, "--dataset", "imagenet", "--data_dir", "/none")
    ended = msrun(ROOT / "train.py", *words, cwd=tmp_path, patient=False)
    assert ended.returncode != 0
    assert "error: data_dir: there is no folder /none" in ended.stdout


@pytest.mark.slow
def test_a_port_in_use_ends_all_processes_with_its_number(halves, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = msrun(ROOT / "train.py", "-c", halves, cwd=tmp_path, options=(f"--master_port={port}",), patient=False)
    assert ended.returncode != 0
    assert f"error: port {port} is in use by process {os.getpid()}" in ended.stdout
    assert "--master_port" in ended.stdout


@pytest.mark.slow
def test_the_command_form_of_mindcv_binds_cores(halves, pair, tmp_path):
    if shutil.which("taskset") is None:
        pytest.skip("msrun binds cores with taskset")
    words = ("python", ROOT / "train.py", "--config", halves, "--epoch_size", "1", "--decay_epochs", "1")
    ended = msrun(*words, cwd=tmp_path, options=("--bind_core=True",))
    assert ended.returncode == 0, ended.stdout
    assert len(steps(tmp_path / "runs" / "mnasnet_100")) == STEPS_PER_EPOCH


@pytest.mark.slow
def test_processes_that_see_other_data_are_reported(halves, tmp_path, digits):
    """They would take other numbers of steps and wait for each other for ever."""
    shutil.copytree(digits, tmp_path / "set 0")
    shutil.copytree(digits, tmp_path / "set 1")
    next((tmp_path / "set 1" / "val" / "0").iterdir()).unlink()
    program = tmp_path / "each_its_own.py"
    program.write_text(
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); import train; from mindcv_mnasnet.errors import run_cli\n"
        "words = [*sys.argv[1:], '--data_dir', 'set ' + os.environ['RANK_ID']]\n"
        "sys.exit(run_cli(lambda: train.main(words)))\n"
    )
    ended = msrun(program, "-c", halves, cwd=tmp_path, patient=False)
    assert ended.returncode != 0
    assert "validation images" in ended.stdout
    assert not (tmp_path / "runs").exists()
