"""Settings of a search and what they are refused for; what a search says that it would cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from processes import PLAIN, ROOT, SECONDS, write_recipe
from search_files import SPACE, SYNTHETIC, cli, write_search

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.search import session, timing
from mindcv_mnasnet.search.pools import Result
from mindcv_mnasnet.search.settings import load_settings
from mindcv_mnasnet.search.space_files import load_space
from mindcv_mnasnet.search.timing import Speed, time_trainings, watch


def test_the_default_strategy_is_by_the_number_of_trials():
    assert load_settings(overrides={**SYNTHETIC, "strategy": "auto", "trials": 200}).chosen_strategy == "evolution"
    assert load_settings(overrides={**SYNTHETIC, "strategy": "auto", "trials": 8000}).chosen_strategy == "controller"


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


def test_a_dry_run_says_what_it_would_cost_and_makes_nothing(tmp_path, digits):
    recipe = write_recipe(tmp_path, PLAIN, data_dir=str(digits), num_classes=10)
    path = write_search(tmp_path, evaluator="proxy", latency="onnxruntime", recipe=str(recipe), trials=100, workers=2)
    before = sorted(tmp_path.iterdir())
    done = cli("-c", path, "--dry_run", "--images_per_second", "10")
    assert done.returncode == 0, done.stderr
    assert "100 trials" in done.stdout
    assert "trials: 100 trainings, 1 epochs of 64 images" in done.stdout
    assert "14 s each" in done.stdout  # 64 images to train on, and 144 held out at twice the speed
    assert "0.4 worker-hours, 11 min" in done.stdout
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


def test_a_machine_is_timed_by_trainings_on_all_its_workers(tmp_path, digits, monkeypatch):
    """Two networks, one on each, in place of four."""
    typical = timing.typical_networks
    monkeypatch.setattr(timing, "typical_networks", lambda space, count, seed, wanted: typical(space, 2, seed))
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
    assert "1 min 36 s, then 4 min 48 s for 40 trials" in done.stdout  # 5 x 3 x 64 / 10; 40 x 144 / 20


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


def test_a_supernet_refuses_plain_convolutions(tmp_path, digits):
    recipe = write_recipe(tmp_path, PLAIN, data_dir=str(digits), num_classes=10)
    path = write_search(tmp_path, evaluator="supernet", latency="mindspore", recipe=str(recipe), space="paper")
    done = cli("-c", path)
    assert done.returncode == 2
    assert "MBConv blocks only" in done.stderr


def test_networks_that_are_timed_are_as_heavy_as_those_in_the_band():
    """Random ones of a wide space are many times as heavy, and would tell of another search."""
    space = load_space("open")
    madds = [network_cost(one.network).madds for one in timing.typical_networks(space, 4, 0)]
    wanted = min(madds)
    near = [network_cost(one.network).madds for one in timing.typical_networks(space, 4, 0, wanted)]
    assert max(madds) > 2 * wanted
    assert all(0.7 * wanted < one < 1.4 * wanted for one in near)


def test_the_random_networks_of_the_band_are_trained_as_the_searched_ones():
    searched, random = (
        load_settings(ROOT / "configs" / "search" / f"{name}.yaml", {"data_dir": "unused"})
        for name in ("cifar10_band", "cifar10_band_random")
    )
    assert random.proxy == searched.proxy
    assert [dict(rung) | {"keep": 0} for rung in random.rungs] == [dict(rung) | {"keep": 0} for rung in searched.rungs]
    for key in ("space", "recipe", "target_network", "target_factor", "band", "held_out"):
        assert getattr(random, key) == getattr(searched, key)


def test_the_network_that_was_found_is_in_the_space_of_its_search():
    space = load_space(ROOT / "configs" / "search" / "spaces" / "cifar_band.yaml")
    network = load_recipe(ROOT / "configs" / "cifar10" / "mnasnet_cifar10_searched.yaml").network(10)
    assert space.network(space.encode(network.blocks)).blocks == network.blocks
    assert (space.stem, space.reasons_outside(network.blocks)) == (network.stem, [])
