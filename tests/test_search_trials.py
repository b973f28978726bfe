"""Trainings of a search and their processes: failing, hanging and dying ones are recorded states."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import PLAIN, SECONDS
from search_files import search

from mindcv_mnasnet.errors import DivergedError, JobError
from mindcv_mnasnet.latency.record import LatencyError
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.run.log import read_log
from mindcv_mnasnet.search import anchor, pools, proxy, runner
from mindcv_mnasnet.search.evaluators import Surrogate
from mindcv_mnasnet.search.meters import SurrogateMeter
from mindcv_mnasnet.search.pools import LocalPool, Result

_POPEN = subprocess.Popen


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


def test_a_trial_validates_one_set_of_weights(tmp_path, digits):
    job = _job(tmp_path, digits, ema=True)
    found = proxy.run(job)
    assert found["status"] == "ok"
    assert np.isfinite(found["loss"])
    (epoch,) = [r for r in read_log(tmp_path / "job" / "run" / "log.jsonl") if r["kind"] == "epoch"]
    assert "val_top1_ema" in epoch
    assert "val_top1" not in epoch


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


_DIES_ONCE = """
from mindcv_mnasnet.run.log import RunLog
from mindcv_mnasnet.search import proxy

step, mark = RunLog.step, job.parent / "died"

def dying(self, done, *args, **more):
    step(self, done, *args, **more)
    if done == 9 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)

RunLog.step = dying
sys.exit(proxy.main(job))
"""


@pytest.mark.parametrize(("held_out", "every", "resumes"), [(0.1, 4, True), (None, 1000, False)])
def test_a_killed_training_is_tried_again_from_its_checkpoint(tmp_path, digits, monkeypatch, held_out, every, resumes):
    recipe = {**PLAIN, "data_dir": str(digits), "num_samples": 384, "epoch_size": 1, "log_interval": 1}
    recipe["ckpt_save_steps"] = every
    straight, killed = (proxy.write_job(tmp_path / name, recipe, held_out, None) for name in ("straight", "killed"))
    wanted = proxy.run(straight)
    _stand_in(monkeypatch, _DIES_ONCE)
    ((_, result),) = LocalPool(1, SECONDS, 1).run([(0, killed)])
    assert (result.status, result.accuracy, result.loss) == ("ok", wanted["accuracy"], wanted["loss"])
    assert (killed.parent / "died").is_file()
    assert ("resuming from" in (killed.parent / "output.txt").read_text()) == resumes


def test_a_job_written_again_keeps_what_was_trained_and_another_one_does_not(tmp_path):
    job = proxy.write_job(tmp_path / "job", {"lr": 1.0}, 0.1, None)
    begun = job.parent / "run"
    begun.mkdir()
    assert proxy.write_job(tmp_path / "job", {"lr": 1.0}, 0.1, None) == job
    assert begun.is_dir()
    proxy.write_job(tmp_path / "job", {"lr": 2.0}, 0.1, None)
    assert not begun.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it on Linux")
def test_a_training_ends_with_a_search_that_is_killed():
    child = "from mindcv_mnasnet.search.proxy import end_with_parent as f; f(); print(1, flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    read, write = os.pipe()
    with subprocess.Popen([sys.executable, "-c", parent], stdin=read, stdout=subprocess.PIPE) as process:
        os.close(read)
        assert process.stdout.readline() == b"1\n"
        process.kill()
        assert process.stdout.read() == b""  # the end of the file comes when the child is gone, too
    os.close(write)


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


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not bind processes to cores")
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_share_the_cores_out(tmp_path, monkeypatch, workers):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < workers:
        pytest.skip("one core")
    answer = "(job.parent / 'result.json').write_text(json.dumps({'status': 'ok', 'accuracy': 0.5}))"
    _stand_in(monkeypatch, f"time.sleep(1)\n(job.parent / 'cores').write_text(str(os.sched_getaffinity(0)))\n{answer}")
    jobs = _jobs(tmp_path, 2 * workers)
    assert len(list(LocalPool(workers, 60, 0).run(jobs))) == 2 * workers
    taken = [ast.literal_eval((path.parent / "cores").read_text()) for _, path in jobs]
    share = len(cores) // workers
    for shared in (taken[:workers], taken[workers:]):  # a worker that is free again has the same cores
        assert sorted(map(sorted, shared)) == [cores[i * share : (i + 1) * share] for i in range(workers)]


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
