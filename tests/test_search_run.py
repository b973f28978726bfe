"""Whole searches: resumed after kill -9, failing trials as recorded states, reports and winners."""

from __future__ import annotations

import heapq
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from processes import PLAIN, ROOT, SECONDS, write_recipe

from mindcv_mnasnet.errors import DivergedError, JobError, UserError
from mindcv_mnasnet.latency.record import LatencyError
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.run.log import read_log
from mindcv_mnasnet.search import anchor, pools, proxy, results, runner, session
from mindcv_mnasnet.search.candidates import Candidate, reference_network
from mindcv_mnasnet.search.evaluators import Surrogate, TableEvaluator
from mindcv_mnasnet.search.folder import SearchFolder
from mindcv_mnasnet.search.meters import SurrogateMeter
from mindcv_mnasnet.search.pools import LocalPool, Result
from mindcv_mnasnet.search.report import write_report
from mindcv_mnasnet.search.runner import Search
from mindcv_mnasnet.search.settings import load_settings
from mindcv_mnasnet.search.supernet.training import SuperTrainer
from mindcv_mnasnet.search.surrogate import surrogate_accuracy
from mindcv_mnasnet.search.timing import Speed, time_trainings, watch
from mindcv_mnasnet.search.trials import TrialLog

_POPEN = subprocess.Popen
SYNTHETIC = {"evaluator": "surrogate", "latency": "surrogate", "strategy": "evolution", "trials": 60, "generation": 10}
SPACE = {
    "stem": 8,
    "strides": [1, 2],
    "filters": [8, 16],
    "layers": [1, 1],
    "decisions": {"operator": ["conv", "sepconv"], "kernel": [3, 5], "filters": [0.5, 1]},
}


def search(tmp_path, name="run", **keys):
    settings = load_settings(overrides={**SYNTHETIC, "search_dir": str(tmp_path), "run_name": name, **keys})
    return Search(settings, SearchFolder.create(settings))


def cli(*words):
    command = [sys.executable, ROOT / "tools" / "search.py", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)


def write_search(tmp_path, **keys):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**SYNTHETIC, "search_dir": str(tmp_path), **keys}))
    return path


def test_trials_are_numbered_and_rewarded(tmp_path):
    one = search(tmp_path)
    trials = one.run()
    assert [trial.number for trial in trials] == list(range(60))
    reward = one.settings.reward_function()
    for trial in trials:
        assert trial.reward == pytest.approx(reward(trial.accuracy, trial.latency_ms))
        assert trial.latency["device"] == "surrogate (synthetic, not measured)"
        assert one.space.encode(trial.blocks) == trial.tokens


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
    resumed = cli("--resume", tmp_path / "killed")
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
    bar = session._Bar(one, 0)
    now[0] = 1000.0  # a supernet's training
    bar.update(trial)
    now[0] = 1040.0
    bar.update(trial)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("trial 1/10  best reward")
    assert "left" not in first
    assert second.endswith("5 min 20 s left")  # 8 times 40 s


def test_a_search_stopped_before_its_first_trial_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Search, "run", lambda self, progress: [])
    session.begin(load_settings(overrides={**SYNTHETIC, "search_dir": str(tmp_path), "run_name": "run"}))
    assert f"stopped after 0 of 60 trials; --resume {tmp_path / 'run'} goes on" in capsys.readouterr().out


def test_networks_that_were_tried_are_not_tried_again(tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(SPACE))
    trials = search(tmp_path, space=str(space), strategy="random", trials=150).run()
    first: dict[tuple[str, ...], int] = {}
    for trial in trials:
        assert trial.repeats == first.get(trial.blocks)
        first.setdefault(trial.blocks, trial.number)
    assert len(first) <= 64


def test_networks_of_equal_layers_are_one_network(tmp_path):
    """A choice of shortcut where none fits changes the block's words and nothing else."""
    space = tmp_path / "space.yaml"
    decisions = {"operator": ["sepconv"], "skip": ["identity", "none"], "kernel": [3, 5]}
    space.write_text(yaml.safe_dump({**SPACE, "strides": [2, 2], "decisions": decisions}))
    trials = search(tmp_path, space=str(space), strategy="random", trials=60).run()
    assert len({trial.blocks for trial in trials}) == 16
    assert sum(trial.repeats is None for trial in trials) == 4


def test_a_search_over_a_table_of_trainings(tmp_path, digits):
    """The file of one search serves another, which finds in it what it asks for."""
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(SPACE))
    keys = {"space": str(space), "trials": 200, "strategy": "random", "search_dir": str(tmp_path)}
    first = search(tmp_path, "first", **keys).run()
    file = tmp_path / "first" / "trials.jsonl"
    half = [line for line in file.read_text().splitlines() if json.loads(line)["blocks"][0].startswith("r1_k3")]
    (tmp_path / "half.jsonl").write_text("\n".join(half))
    keys |= {"evaluator": "table", "accuracy_table": str(tmp_path / "half.jsonl"), "trials": 20, "strategy": "auto"}
    recipe = write_recipe(tmp_path, PLAIN, data_dir=str(digits), num_classes=10)
    settings = load_settings(overrides={**SYNTHETIC, **keys, "latency": "mindspore", "recipe": str(recipe)})
    evaluator = TableEvaluator(tmp_path / "half.jsonl")
    candidates = [Candidate(t.number, 0, t.tokens, settings.open_space().network(t.tokens), 0) for t in first]
    known = {trial.blocks: trial.accuracy for trial in first}
    for candidate, (number, result) in zip(candidates, evaluator.run(candidates), strict=True):
        assert number == candidate.number
        blocks = candidate.network.block_strings
        assert result.accuracy == (known[blocks] if blocks[0].startswith("r1_k3") else None)
        assert (candidate.network in evaluator) == (result.status == "ok")
    (tmp_path / "odd.jsonl").write_text('{"blocks": []}\n')
    with pytest.raises(UserError, match="line 1 has no blocks and accuracy"):
        TableEvaluator(tmp_path / "odd.jsonl")


class Workers(Surrogate):
    """So many at once, in a made-up time; ``busy`` is how many ran when each ended."""

    immediate = False

    def __init__(self, count, lasts=lambda number: 1.0):
        self.count, self.busy, self._lasts = count, [], lasts

    def run(self, candidates):
        running, source, now = [], iter(candidates), 0.0
        while True:
            while len(running) < self.count and (one := next(source, None)) is not None:
                heapq.heappush(running, (now + self._lasts(one.number), one.number, one))
            if not running:
                return
            self.busy.append(len(running))
            now, _, one = heapq.heappop(running)
            yield one.number, Result("ok", "", surrogate_accuracy(one.network))


def _with_workers(monkeypatch, workers):
    monkeypatch.setattr(runner, "open_evaluator", lambda *_: workers)
    monkeypatch.setattr(anchor, "meter_for", lambda _: SurrogateMeter())


def test_all_workers_are_busy_whatever_the_size_of_a_generation(tmp_path, monkeypatch):
    """64 workers, generations of 20, every seventh training half as long again."""
    workers = Workers(64, lambda number: 1.5 if number % 7 == 0 else 1 + 0.01 * (number % 5))
    _with_workers(monkeypatch, workers)
    one = search(tmp_path, strategy="evolution", trials=800, generation=20, workers=64, pool="ray")
    assert one.settings.generations_ahead == 5
    trials = one.run()
    assert len(trials) == 800
    middle = workers.busy[: 800 - 2 * 64]
    assert np.mean([busy == 64 for busy in middle]) > 0.9


def test_results_in_any_order_lead_to_the_same_end(tmp_path, monkeypatch):
    keys = {"strategy": "evolution", "trials": 200, "generation": 10, "population": 20, "ahead": 3}
    found = []
    for name, lasts in (("a", lambda number: 1.0), ("b", lambda number: 1.0 + number % 7)):
        _with_workers(monkeypatch, Workers(16, lasts))
        one = search(tmp_path, name, **keys)
        found.append([(trial.tokens, trial.reward) for trial in one.run()])
    assert found[0] == found[1]


def test_proposals_ahead_survive_a_crash(tmp_path, monkeypatch):
    keys = {"strategy": "evolution", "trials": 60, "generation": 5, "population": 10, "ahead": 2}
    _with_workers(monkeypatch, Workers(8))
    whole = search(tmp_path, "whole", **keys).run()
    broken = search(tmp_path, "broken", **keys)
    original = runner.Ledger.keep

    def crash(ledger, trials):
        original(ledger, trials)
        if len(ledger.log.read()) % 7 == 0:
            raise KeyboardInterrupt

    for _ in range(9):
        with monkeypatch.context() as within:
            within.setattr(runner.Ledger, "keep", crash)
            try:
                Search(broken.settings, broken.folder).run()
            except KeyboardInterrupt:
                continue
    again = Search(broken.settings, broken.folder).run()
    assert [(t.number, t.tokens, t.reward) for t in again] == [(t.number, t.tokens, t.reward) for t in whole]


def test_generations_ahead_are_kept_when_workers_change(tmp_path):
    one = search(tmp_path, strategy="evolution", workers=20)
    assert one.settings.generations_ahead == 3
    assert one.folder.stored_settings(workers=1).generations_ahead == 3
    assert search(tmp_path, "few", workers=2).settings.generations_ahead == 0


def test_the_default_strategy_is_by_the_number_of_trials():
    assert load_settings(overrides={**SYNTHETIC, "strategy": "auto", "trials": 200}).chosen_strategy == "evolution"
    assert load_settings(overrides={**SYNTHETIC, "strategy": "auto", "trials": 8000}).chosen_strategy == "controller"


def test_a_trial_validates_one_set_of_weights(tmp_path, digits):
    job = _job(tmp_path, digits, ema=True)
    found = proxy.run(job)
    assert found["status"] == "ok"
    assert np.isfinite(found["loss"])
    (epoch,) = [r for r in read_log(tmp_path / "job" / "run" / "log.jsonl") if r["kind"] == "epoch"]
    assert "val_top1_ema" in epoch
    assert "val_top1" not in epoch


class Faulty(Surrogate):
    """Some trainings fail in every way that there is."""

    immediate = False

    def run(self, candidates):
        faults = [
            Result("diverged", "NaN"),
            Result("timeout", "hangs"),
            Result("memory", "too much"),
            Result("failed", "?"),
        ]
        for candidate in candidates:
            yield candidate.number, faults[candidate.number] if candidate.number < 4 else Result("ok", "", 0.5)


def test_failed_trials_are_states_and_the_search_goes_on(tmp_path, monkeypatch):
    class Unreachable(SurrogateMeter):
        def measure(self, network):
            if next(self.calls) == 5:
                raise LatencyError("no route to the board")
            return super().measure(network)

        calls = iter(range(100))

    monkeypatch.setattr(runner, "open_evaluator", lambda *_: Faulty())
    monkeypatch.setattr(anchor, "meter_for", lambda _: Unreachable())
    trials = search(tmp_path, trials=20).run()
    assert [trial.status for trial in trials[:7]] == [
        "diverged",
        "timeout",
        "memory",
        "failed",
        "ok",
        "unmeasured",
        "ok",
    ]
    assert all(trial.reward == 0 for trial in trials if not trial.ok)
    assert trials[5].reason == "no route to the board"
    assert len(trials) == 20


def test_too_many_failures_end_a_search_with_the_last_reason(tmp_path, monkeypatch):
    class Broken(Surrogate):
        def run(self, candidates):
            yield from ((candidate.number, Result("failed", "no space left")) for candidate in candidates)

    monkeypatch.setattr(runner, "open_evaluator", lambda *_: Broken())
    with pytest.raises(JobError, match=r"10 of 10 trials failed.*failed: no space left; --resume"):
        search(tmp_path).run()


def test_limits_are_kept_by_a_search(tmp_path):
    trials = search(tmp_path, max_madds=2.5e8, trials=40).run()
    assert max(trial.madds for trial in trials) <= 2.5e8


def test_references_are_tried_beside_and_never_learnt_from(tmp_path):
    with_them = search(tmp_path, "a", references=["mnasnet-a1", "mnasnet-b1@0.75"]).run()
    assert with_them == search(tmp_path, "b").run()
    stored = {trial.name: trial for trial in TrialLog(tmp_path / "a" / "trials.jsonl").read() if trial.number < 0}
    assert set(stored) == {"mnasnet-a1", "mnasnet-b1@0.75"}
    report = write_report(tmp_path / "a").with_suffix(".md").read_text()
    assert "At the latency of mnasnet-a1" in report


def test_a_reference_keeps_its_blocks_and_takes_the_ends_of_the_space():
    like = load_settings(overrides={**SYNTHETIC, "space": "a1"}).open_space()
    network = reference_network(
        "mnasnet_small@0.5", replace(like.network(like.random(np.random.default_rng(0))), head=64)
    )
    assert (network.family, network.width_mult, network.head) == ("small", 0.5, 64)
    with pytest.raises(UserError, match="'mnasnet_small@x' is not a model's name"):
        reference_network("mnasnet_small@x", network)


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


def _job(tmp_path, digits, **keys):
    recipe = {**PLAIN, "data_dir": str(digits), **keys}
    return proxy.write_job(tmp_path / "job", recipe, 0.1, None)


def test_a_training_in_a_process_of_its_own_tells_its_accuracy(tmp_path, digits):
    pool = LocalPool(1, SECONDS, 0)
    ((number, result),) = pool.run([(3, _job(tmp_path, digits))])
    assert (number, result.status) == (3, "ok"), result
    assert 0 <= result.accuracy <= 1
    assert result.seconds > 0
    recipe = load_recipe(tmp_path / "job" / "run" / "recipe.yaml")
    assert recipe.val_fraction == 0.1
    assert recipe.data_dir.endswith("train")  # held out of the training images, never the validation ones


def test_what_goes_wrong_in_a_training_is_its_status(tmp_path, digits, monkeypatch):
    job = _job(tmp_path, digits, lr=1e30)
    assert proxy.run(job)["status"] == "diverged"
    missing = _job(tmp_path, tmp_path / "nothing", dataset="cifar10")
    assert proxy.run(missing)["status"] == "failed"
    for error, status in ((DivergedError("NaN"), "diverged"), (MemoryError(), "memory"), (JobError("disk"), "failed")):

        def fails(recipe, averaged_only, error=error):
            raise error

        monkeypatch.setattr("mindcv_mnasnet.train.engine.fit", fails)
        assert proxy.run(_job(tmp_path, digits))["status"] == status


def _stand_in(monkeypatch, code):
    """Processes that run ``code`` in place of a training."""
    whole = "import sys, pathlib, json, time, os, signal; job = pathlib.Path(sys.argv[-1])\n" + code
    monkeypatch.setattr(
        pools.subprocess, "Popen", lambda words, **keys: _POPEN([sys.executable, "-c", whole, words[-1]], **keys)
    )


def _jobs(tmp_path, count):
    return [(number, proxy.write_job(tmp_path / str(number), {}, 0.1, None)) for number in range(count)]


def test_a_hanging_training_is_killed_with_all_that_it_started(tmp_path, monkeypatch):
    _stand_in(monkeypatch, "child = os.fork()\n(job.parent / str(os.getpid())).touch()\ntime.sleep(600)")
    ((_, result),) = LocalPool(1, 1.0, 3).run(_jobs(tmp_path, 1))
    assert result.status == "timeout"
    assert "trial_timeout_s 1" in result.reason
    started = [int(path.name) for path in (tmp_path / "0").iterdir() if path.name.isdigit()]
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in started)


def _alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_worker_that_dies_is_tried_again_then_given_up(tmp_path, monkeypatch):
    count = "path = job.parent.parent / f'{job.parent.name}.count'; n = int(path.read_text()) if path.exists() else 0\n"
    count += "path.write_text(str(n + 1))\n"
    dies_once = "if n == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
    answer = "(job.parent / 'result.json').write_text(json.dumps({'status': 'ok', 'accuracy': 0.5}))"
    _stand_in(monkeypatch, count + dies_once + answer)
    ended = dict(LocalPool(2, 60, 1).run(_jobs(tmp_path, 3)))
    assert {result.status for result in ended.values()} == {"ok"}
    _stand_in(monkeypatch, count + "print('out of luck'); sys.exit(3)")
    ((_, result),) = LocalPool(1, 60, 2).run(_jobs(tmp_path, 1))
    assert result.status == "failed"
    assert "exit code 3: out of luck" in result.reason
    assert (tmp_path / "0.count").read_text() == "5"


def test_workers_run_at_once_and_a_stopped_pool_begins_nothing_more(tmp_path, monkeypatch):
    answer = "(job.parent / 'result.json').write_text(json.dumps({'status': 'ok', 'accuracy': 0.5}))"
    _stand_in(monkeypatch, f"time.sleep(0.5)\n{answer}")
    pool = LocalPool(2, 60, 0)
    seen = []
    for number, _ in pool.run(_jobs(tmp_path, 6)):
        seen.append(number)
        pool.stop()
    assert sorted(seen) == [0, 1]


def test_a_worker_of_a_ray_cluster_that_is_killed_is_replaced(tmp_path):
    """A real cluster on this machine; the first job kills the Ray worker that runs it, once."""
    ray = pytest.importorskip("ray")
    script = tmp_path / "stand_in.py"
    script.write_text(
        "import json, os, pathlib, signal, sys\n"
        "job = pathlib.Path(sys.argv[-1]); once = job.parent.parent / 'once'\n"
        "if job.parent.name == '0' and not once.exists():\n"
        "    once.touch(); os.kill(os.getppid(), signal.SIGKILL)\n"
        "(job.parent / 'result.json').write_text(json.dumps({'status': 'ok', 'accuracy': 0.25}))\n"
    )
    pool = pools.RayPool(2, SECONDS, 1, program=(sys.executable, str(script)))
    try:
        ended = dict(pool.run(_jobs(tmp_path, 4)))
    finally:
        pool.close()
    assert (tmp_path / "once").exists()
    assert {number: result.status for number, result in ended.items()} == dict.fromkeys(range(4), "ok")
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([], 2, "--config FILE is needed"),
        (["-c", "nothing.yaml"], 2, "nothing.yaml: No such file"),
        (["--resume", "nowhere"], 2, "not a search folder"),
        (["--report", "nowhere"], 2, "not a search folder"),
        (["-c", "FILE", "--trails", "3"], 2, "unknown key 'trails'"),
        (["-c", "FILE", "--reward", "softer"], 2, "reward: 'softer'"),
        (["-c", "FILE", "--evaluator", "proxy"], 2, "needs the recipe"),
        (["-c", "FILE", "--latency", "table"], 2, "not mixed"),
        (["-c", "FILE", "--min_madds", "9", "--max_madds", "3"], 2, "min_madds: 9 is above max_madds"),
        (["-c", "FILE", "--proxy_check", "5"], 2, "trains nothing"),
        (["-c", "FILE", "--max_params", "10"], 2, "none of 2000 networks"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, words, code, sentence):
    path = write_search(tmp_path)
    done = cli(*(path if word == "FILE" else word for word in words))
    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_two_searches_in_one_folder_are_refused(tmp_path):
    one = search(tmp_path)
    one.folder.lock()
    done = cli("--resume", one.folder.path)
    assert done.returncode == 2
    assert "another search is at work" in done.stderr
    again = cli("-c", write_search(tmp_path), "--run_name", "run")
    assert again.returncode == 2
    assert "--resume" in again.stderr


def test_a_dry_run_says_what_it_would_cost_and_makes_nothing(tmp_path, digits):
    recipe = write_recipe(tmp_path, PLAIN, data_dir=str(digits), num_classes=10)
    path = write_search(tmp_path, evaluator="proxy", latency="onnxruntime", recipe=str(recipe), trials=100, workers=2)
    before = sorted(tmp_path.iterdir())
    done = cli("-c", path, "--dry_run", "--images_per_second", "10")
    assert done.returncode == 0, done.stderr
    assert "100 trials" in done.stdout
    assert "1 epochs of 64 images" in done.stdout
    assert "14 s each" in done.stdout  # 64 images to train on, and 143.7 held out at twice the speed
    assert sorted(tmp_path.iterdir()) == before


def test_a_training_is_timed_by_its_log(tmp_path):
    """100 steps of 32 images in 8 s, after a start of 12 s."""
    folder = tmp_path / "run"
    folder.mkdir()
    times = [(1, 1012.0), (51, 1016.5), (101, 1020.0)]
    lines = [json.dumps({"kind": "step", "step": step, "time": time}) for step, time in times]
    (folder / "log.jsonl").write_text("\n".join(lines))
    assert watch(tmp_path / "job.json", 32, 1000.0) == (Speed(400.0, 12.0), 8.0)
    assert watch(tmp_path / "nowhere" / "job.json", 32, 1000.0) == (None, 0.0)


def test_a_machine_is_timed_by_trainings_on_all_its_workers(tmp_path, digits):
    recipe = write_recipe(tmp_path, PLAIN, data_dir=str(digits), num_classes=10, num_samples=1000, epoch_size=100)
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(SPACE))
    keys = {"evaluator": "proxy", "latency": "onnxruntime", "recipe": str(recipe), "space": str(space), "workers": 2}
    found = time_trainings(load_settings(write_search(tmp_path, **keys)), seconds=0.5)
    assert found.images_per_second > 10
    assert 0 < found.start_s < SECONDS


def test_a_dry_run_of_a_supernet_counts_one_training_and_many_rankings(tmp_path, digits):
    recipe = write_recipe(tmp_path, PLAIN, data_dir=str(digits), num_classes=10)
    keys = {"supernet_epochs": 5, "supernet_sandwich": True, "trials": 40}
    path = write_search(tmp_path, evaluator="supernet", latency="onnxruntime", recipe=str(recipe), **keys)
    done = cli("-c", path, "--dry_run", "--images_per_second", "10")
    assert done.returncode == 0, done.stderr
    assert "5 epochs of 64 images" in done.stdout
    assert "1 min 36 s, then 4 min 47 s for 40 trials" in done.stdout  # 5 x 3 x 64 / 10; 40 x 143.7 / 20


def test_a_proxy_check_compares_ranks_and_tells_the_spread_of_seeds(tmp_path, digits, monkeypatch, capsys):
    asked = {}

    class Ranks:
        """Accuracies by number, in the opposite order after longer trainings; repeated networks vary by seed."""

        def __init__(self, settings, space, folder):
            self.name, asked[folder.name] = folder.name, settings.proxy_keys(settings.final_recipe())["epoch_size"]

        def run(self, candidates):
            for candidate in candidates:
                if (self.name, candidate.number) == ("long", 4):
                    yield candidate.number, Result("failed", "no luck")
                elif candidate.number < 6:
                    yield (
                        candidate.number,
                        Result("ok", "", 0.1 * (candidate.number if self.name == "short" else 9 - candidate.number)),
                    )
                else:
                    yield candidate.number, Result("ok", "", 0.5 + 0.02 * (candidate.number % 2))

        def close(self):
            asked[f"{self.name} closed"] = True

    monkeypatch.setattr(session, "open_evaluator", Ranks)
    recipe = write_recipe(tmp_path, PLAIN, data_dir=str(digits), num_classes=10)
    path = write_search(tmp_path, evaluator="proxy", latency="onnxruntime", recipe=str(recipe))
    said = session.proxy_check(load_settings(path), networks=6, longer=3, seeds=2)
    assert asked == {"short": 1, "long": 3, "short closed": True, "long closed": True}
    assert "5 networks, 1 epochs against 3 epochs alone: Spearman -1.000, Kendall -1.000" in said
    assert f"spread over seeds {100 * 0.02 / 2**0.5:.2f} points" in said  # deviation of two values 0.02 apart
    stored = json.loads(Path(said.rpartition("; ")[2]).read_text())
    assert stored["kendall"] == pytest.approx(-1)
    assert stored["networks"] == 5
    printed = capsys.readouterr().out
    assert "network 4: failed: no luck" in printed
    assert "network 3: 30.00 %" in printed  # where there is no progress bar


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"rungs": {"keep": 1}}, "not a list of mappings"),
        ({"rungs": [{"epoch_size": 3}]}, "rung 1 of .* needs keep"),
        ({"rungs": [{"keep": 3}, {"keep": 5}]}, "rung 2 of .* needs keep"),
        ({"rungs": [{"keep": 3, "epochs": 5}]}, "unknown key 'epochs'"),
        ({"target": "mnasnet_small"}, "a mapping of network and"),
        ({"evaluator": "table"}, "accuracy_table: evaluator table needs"),
        ({"rungs": [{"keep": 3}]}, "evaluator surrogate has no trainings"),
    ],
)
def test_rungs_and_targets_that_cannot_be_are_refused(tmp_path, keys, sentence):
    with pytest.raises(UserError, match=sentence):
        load_settings(write_search(tmp_path, **keys))


def test_a_rung_changes_the_keys_of_the_one_before(tmp_path, digits):
    recipe = write_recipe(tmp_path, PLAIN, data_dir=str(digits), num_classes=10, epoch_size=9)
    keys = {
        "evaluator": "proxy",
        "latency": "onnxruntime",
        "recipe": str(recipe),
        "proxy": {"epoch_size": 1, "lr": 0.1},
    }
    keys |= {"rungs": [{"keep": 4, "epoch_size": 2}, {"keep": 2, "image_resize": 24}]}
    keys |= {"target": {"network": "mnasnet_small", "factor": 0.5}}
    settings = load_settings(write_search(tmp_path, **keys))
    shown = [
        tuple(settings.rung_keys(rung).get(name) for name in ("epoch_size", "lr", "image_resize")) for rung in range(4)
    ]
    assert shown == [(1, 0.1, 16), (2, 0.1, 16), (2, 0.1, 24), (9, PLAIN["lr"], 16)]
    assert (settings.target_network, settings.target_factor) == ("mnasnet_small", 0.5)
    (tmp_path / "again.yaml").write_text(settings.dump())
    assert load_settings(tmp_path / "again.yaml").identity() == settings.identity()


def test_settings_survive_their_file(tmp_path):
    settings = load_settings(write_search(tmp_path, proxy={"epoch_size": 3}, alpha=-0.2))
    (tmp_path / "again.yaml").write_text(settings.dump())
    again = load_settings(tmp_path / "again.yaml")
    assert again.identity() == settings.identity()
    assert json.loads(json.dumps(again.identity()))["proxy"] == {"epoch_size": 3}
    with pytest.raises(UserError, match="unknown key 'epochsize'"):
        load_settings(write_search(tmp_path, proxy={"epochsize": 3}))


def test_a_supernet_is_trained_once_across_a_stop_and_ranks_all_trials(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(anchor, "meter_for", lambda _: SurrogateMeter())
    recipe = write_recipe(tmp_path, PLAIN, data_dir=str(digits), num_classes=10, num_samples=256)
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump({**SPACE, "decisions": {**SPACE["decisions"], "operator": ["sepconv", "mbconv3"]}}))
    keys = {"evaluator": "supernet", "latency": "onnxruntime", "recipe": str(recipe), "space": str(space)}
    one = search(tmp_path, strategy="random", trials=4, generation=2, supernet_epochs=2, **keys)
    with monkeypatch.context() as within:
        begun, epoch = [], SuperTrainer._epoch

        def last_epoch(trainer, number):
            begun.append(number)
            one.stop()
            return epoch(trainer, number)

        within.setattr(SuperTrainer, "_epoch", last_epoch)
        assert one.run() == []
        assert begun == [0]  # stopped after that epoch
    trials = Search(one.settings, one.folder).run()
    assert [trial.status for trial in trials] == ["ok"] * 4
    assert all(0 <= trial.accuracy <= 1 for trial in trials)
    stored = (one.folder.path / "supernet.safetensors").read_bytes()
    one.folder.trials.unlink()
    one.folder.state.unlink()
    again = Search(one.settings, one.folder).run()
    assert [trial.accuracy for trial in again] == [trial.accuracy for trial in trials]
    assert (one.folder.path / "supernet.safetensors").read_bytes() == stored


def test_a_supernet_refuses_plain_convolutions(tmp_path, digits):
    recipe = write_recipe(tmp_path, PLAIN, data_dir=str(digits), num_classes=10)
    path = write_search(tmp_path, evaluator="supernet", latency="mindspore", recipe=str(recipe), space="paper")
    done = cli("-c", path)
    assert done.returncode == 2
    assert "MBConv blocks only" in done.stderr


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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_at_full_scale_the_controller_beats_random_search(tmp_path, seed):
    """8000 trials, hard reward, space paper: in mean reward and in the best accuracy within the target."""
    mean, best = {}, {}
    for strategy in ("controller", "random"):
        keys = {"strategy": strategy, "trials": 8000, "generation": 20, "reward": "hard", "seed": seed}
        trials = search(tmp_path, strategy, **keys).run()
        mean[strategy] = np.mean([trial.reward for trial in trials])
        best[strategy] = results.best_feasible(trials, 75.0).accuracy
    assert mean["controller"] > mean["random"] + 0.06
    assert best["controller"] > best["random"] + 0.005  # noise of the surrogate: 0.003
