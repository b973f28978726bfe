"""A search killed, stopped and resumed, and what it leaves: reports, comparisons, winners."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from processes import PLAIN, ROOT, SECONDS, run, write_recipe
from search_files import SYNTHETIC, cli, search, write_search

from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.search import results, session
from mindcv_mnasnet.search.folder import SearchFolder
from mindcv_mnasnet.search.report import write_report
from mindcv_mnasnet.search.runner import Search
from mindcv_mnasnet.search.settings import load_settings
from mindcv_mnasnet.search.trials import TrialLog


@pytest.mark.parametrize("strategy", ["evolution", "nsga2"])
def test_a_killed_search_goes_on_to_the_same_end(tmp_path, strategy):
    """kill -9 at any moment: the same trials and the same state, to the bit."""
    if strategy == "nsga2":
        pytest.importorskip("optuna")
    keys = {"strategy": strategy, "trials": 600, "generation": 20}
    path = write_search(tmp_path, **keys)
    straight = cli("-c", path, "--run_name", "straight")
    assert straight.returncode == 0, straight.stderr
    command = [sys.executable, str(ROOT / "tools" / "search.py"), "-c", str(path), "--run_name", "killed"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = tmp_path / "killed" / "trials.jsonl"
    deadline = time.monotonic() + SECONDS
    while not (log.exists() and log.stat().st_size > 100_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(TrialLog(log).read()) < 600
    resumed = run("--resume", tmp_path / "killed", cwd=tmp_path, program=ROOT / "tools" / "search.py")
    assert resumed.returncode == 0, resumed.stderr
    for name in ("trials.jsonl", "state.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_every_generation_can_be_the_last_before_a_crash(tmp_path):
    whole = search(tmp_path, "whole").run()
    broken = search(tmp_path, "broken")
    lines = (tmp_path / "whole" / "trials.jsonl").read_bytes().splitlines(keepends=True)
    for kept in (0, 7, 10, 33):  # within a generation, at its end, before its state was stored
        broken.folder.state.unlink(missing_ok=True)
        broken.folder.trials.write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
        assert Search(broken.settings, broken.folder).run() == whole


def test_a_search_may_grow_but_not_change(tmp_path):
    short = search(tmp_path, "short", trials=30)
    short.run()
    grown = cli("--resume", short.folder.path, "--trials", 60)
    assert grown.returncode == 0, grown.stderr
    assert TrialLog(short.folder.trials).read() == search(tmp_path, "long").run()
    other = cli("--resume", short.folder.path, "--target_ms", 10)
    assert other.returncode == 2
    assert "target_ms: a search that goes on may change trials, workers" in other.stderr


def test_ctrl_c_stops_after_the_running_trials_and_leaves_a_report(tmp_path):
    path = write_search(tmp_path, trials=200_000)
    command = [sys.executable, str(ROOT / "tools" / "search.py"), "-c", str(path), "--run_name", "long"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "long" / "trials.jsonl"
    deadline = time.monotonic() + SECONDS
    while not (log.exists() and log.stat().st_size > 10_000) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, complaints = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, complaints
    assert "of 200000 trials" in output
    assert (tmp_path / "long" / "report.html").stat().st_size > 10_000


def test_time_left_does_not_count_what_comes_before_the_trials(tmp_path, monkeypatch, capsys):
    one = search(tmp_path, trials=10)
    trial = one.run()[0]
    capsys.readouterr()
    now = [0.0]
    monkeypatch.setattr(session.time, "monotonic", lambda: now[0])
    bar = session._Bar(one, [])
    now[0] = 1000.0  # a supernet's training
    bar.update(trial)
    now[0] = 1040.0
    bar.update(trial)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("trial 1/10  best reward")
    assert "left" not in first
    assert second.endswith("5 min 20 s left")  # 8 times 40 s


def test_time_left_counts_the_length_of_trainings(tmp_path, digits, monkeypatch, capsys):
    """Ten trials of one epoch, then two of three and a finalist of ten: 16 epochs are left, of 100 s each."""
    recipe = write_recipe(
        tmp_path, PLAIN, data_dir=str(digits), num_classes=10, num_samples=1000, epoch_size=10, val_while_train=False
    )
    proxy = {"evaluator": "proxy", "latency": "onnxruntime", "recipe": str(recipe), "proxy": {"epoch_size": 1}}
    rungs = [{"keep": 2, "epoch_size": 3}]
    path = write_search(tmp_path, **proxy, trials=10, rungs=rungs, finalists=1, held_out=0.001)
    one = Search(load_settings(path), SearchFolder.create(load_settings(path)))
    trial = search(tmp_path, "other", trials=10).run()[0]
    now = [0.0]
    monkeypatch.setattr(session.time, "monotonic", lambda: now[0])
    bar = session._Bar(one, [trial] * 4)
    for number in range(6):
        now[0] = 100.0 * number
        bar.update(trial)
    assert re.match(r"trial 10/13  best reward .*  2[67] min( \d+ s)? left$", capsys.readouterr().out.splitlines()[-1])


def test_a_search_stopped_before_its_first_trial_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Search, "run", lambda self, *_: [])
    session.begin(load_settings(overrides={**SYNTHETIC, "search_dir": str(tmp_path), "run_name": "run"}))
    assert f"stopped after 0 of 60 trials; --resume {tmp_path / 'run'} goes on" in capsys.readouterr().out


def test_two_searches_in_one_folder_are_refused(tmp_path):
    one = search(tmp_path)
    one.folder.lock()
    done = cli("--resume", one.folder.path)
    assert done.returncode == 2
    assert "another search is at work" in done.stderr
    again = cli("-c", write_search(tmp_path), "--run_name", "run")
    assert again.returncode == 2
    assert "--resume" in again.stderr


def test_searches_are_compared_in_numbers_and_images(tmp_path):
    for reward in ("soft", "hard"):
        search(tmp_path, reward, reward=reward).run()
    done = cli("--compare", tmp_path / "soft", tmp_path / "hard", "--to", tmp_path / "both")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "both" / "compare.json").read_text())["searches"]
    for row in found:
        trials = TrialLog(tmp_path / row["search"] / "trials.jsonl").read()
        assert row["mean_reward"] == pytest.approx(np.mean([trial.reward for trial in trials]))
        late = [trial.latency_ms for trial in trials[30:]]
        assert row["within_target"] == pytest.approx(np.mean([ms <= 75 for ms in late]))
        assert row["best_feasible"] == max(trial.accuracy for trial in trials if trial.latency_ms <= 75)
        assert f"| {row['search']} | 60 |" in done.stdout
    assert (tmp_path / "both" / "latencies.png").stat().st_size > 5000
    search(tmp_path, "faster", target_ms=40.0).run()
    other = cli("--compare", tmp_path / "soft", tmp_path / "faster")
    assert (other.returncode, other.stdout) == (2, "")
    assert "searches of different targets" in other.stderr


def test_the_report_says_that_the_synthetic_is_synthetic(tmp_path):
    one = search(tmp_path)
    one.run()
    path = write_report(one.folder.path)
    text = path.with_suffix(".md").read_text()
    assert "synthetic, not measured" in text
    page = path.read_text()
    assert page.count("data:image/png;base64,") == 5
    assert "src='http" not in page


def test_winners_are_recipes_that_describe_the_networks_found(tmp_path, digits):
    recipe = write_recipe(tmp_path, PLAIN, data_dir=str(digits), num_classes=10)
    one = search(tmp_path, recipe=str(recipe), space="a1")
    trials = one.run()
    write_report(one.folder.path)
    (best,) = results.best(trials, 1)
    winner = load_recipe(one.folder.winners / "1.yaml")
    network = winner.network()
    assert network.block_strings == best.blocks
    assert network.layers() == one.space.network(best.tokens).layers()
    assert (network.num_classes, winner.lr, winner.data_dir) == (10, PLAIN["lr"], str(digits))
