"""Whole searches: their trials, what several workers change, references, supernets."""

from __future__ import annotations

import heapq
import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from processes import PLAIN, write_recipe
from search_files import SPACE, SYNTHETIC, search

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.network import resolve, round_width
from mindcv_mnasnet.search import anchor, results, runner
from mindcv_mnasnet.search.candidates import Candidate, reference_network, reference_of
from mindcv_mnasnet.search.evaluators import Surrogate, TableEvaluator
from mindcv_mnasnet.search.meters import SurrogateMeter
from mindcv_mnasnet.search.pools import Result
from mindcv_mnasnet.search.report import write_report
from mindcv_mnasnet.search.runner import Search
from mindcv_mnasnet.search.settings import load_settings
from mindcv_mnasnet.search.supernet.training import SuperTrainer
from mindcv_mnasnet.search.surrogate import surrogate_accuracy
from mindcv_mnasnet.search.trials import TrialLog


def test_trials_are_numbered_and_rewarded(tmp_path):
    one = search(tmp_path)
    trials = one.run()
    assert [trial.number for trial in trials] == list(range(60))
    reward = one.settings.reward_function()
    for trial in trials:
        assert trial.reward == pytest.approx(reward(trial.accuracy, trial.latency_ms))
        assert trial.latency["device"] == "surrogate (synthetic, not measured)"
        assert one.space.encode(trial.blocks) == trial.tokens


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


def test_references_and_the_first_networks_are_trained_side_by_side(tmp_path, monkeypatch):
    workers = Workers(4)
    _with_workers(monkeypatch, workers)
    search(tmp_path, strategy="random", trials=8, generation=4, workers=4, references=["mnasnet-a1"]).run()
    assert workers.busy[0] == 4
    assert len(workers.busy) == 9


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
    assert network.layers() == resolve("mnasnet_small", width_mult=0.5).layers()
    assert (network.width_mult, network.head) == (None, 64)
    with pytest.raises(UserError, match="'mnasnet_small@x' is not a model's name"):
        reference_network("mnasnet_small@x", network)


def test_a_reference_can_be_a_recipe_at_another_width(tmp_path):
    folder = tmp_path / "me@here"
    folder.mkdir()
    recipe = write_recipe(folder, PLAIN, blocks=["r1_k3_s22_e1_o64", "r2_k3_s11_e2_o128"], stem=16)
    (folder / "search.yaml").write_text(f"references: [{recipe.name}, {recipe.name}@0.625]\n")
    settings = load_settings(folder / "search.yaml", SYNTHETIC)
    whole, narrow = (reference_of(settings, settings.open_space(), name) for name in settings.references)
    assert [layer.out_width for layer in whole.layers()] == [64, 128, 128]
    assert [layer.out_width for layer in narrow.layers()] == [40, 80, 80]
    assert narrow.stem_width == round_width(16, 0.625)
    stored = yaml.safe_load(settings.dump())["references"]
    assert stored == [str(recipe), f"{recipe}@0.625"]


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
