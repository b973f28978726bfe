"""What a search keeps of its files, so that it goes on as it began from anywhere, and what it leaves of mistakes."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import yaml
from processes import PLAIN, write_recipe
from search_files import SPACE, SYNTHETIC, cli, search, write_search

from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.search import session
from mindcv_mnasnet.search.folder import SearchFolder
from mindcv_mnasnet.search.report import write_report
from mindcv_mnasnet.search.results import remove_numbered
from mindcv_mnasnet.search.runner import Search
from mindcv_mnasnet.search.settings import load_settings
from mindcv_mnasnet.search.trials import TrialLog

PROXY = {"evaluator": "proxy", "latency": "onnxruntime"}


def test_a_search_grows_beyond_a_short_last_generation(tmp_path):
    one = search(tmp_path, trials=33)
    one.run()
    grown = cli("--resume", one.folder.path, "--trials", 60)
    assert grown.returncode == 0, grown.stderr
    trials = TrialLog(one.folder.trials).read()
    assert [trial.number for trial in trials] == list(range(60))
    assert [sum(trial.generation == n for trial in trials) for n in range(7)] == [10, 10, 10, 3, 10, 10, 7]
    again = cli("--resume", one.folder.path)
    assert again.returncode == 0, again.stderr
    assert TrialLog(one.folder.trials).read() == trials


def test_what_goes_on_keeps_the_strategy_and_the_order_that_it_began_with(tmp_path):
    settings = load_settings(overrides={**SYNTHETIC, "strategy": "auto", "trials": 30, "search_dir": str(tmp_path)})
    assert load_settings(overrides={**SYNTHETIC, "strategy": "auto", "trials": 8000}).chosen_strategy == "controller"
    grown = SearchFolder.create(settings).stored_settings(trials=8000, workers=64)
    assert (grown.chosen_strategy, grown.generations_ahead) == ("evolution", settings.generations_ahead)


def test_a_search_keeps_its_recipe_and_its_space(tmp_path, monkeypatch, digits):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(digits)
    recipe = write_recipe(tmp_path, PLAIN, data_dir="data", num_classes=10)
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SPACE))
    path = write_search(tmp_path, **PROXY, recipe=recipe.name, space="s.yaml", run_name="run", data_dir="data")
    folder = SearchFolder.create(load_settings(path))
    blocks = folder.stored_settings().open_space().network([0] * 6).blocks
    recipe.write_text(recipe.read_text() + "epoch_size: 77\n")
    (tmp_path / "s.yaml").write_text("later")
    monkeypatch.chdir("/")
    stored = folder.stored_settings()
    assert stored.final_recipe().epoch_size != 77
    assert stored.final_recipe().data_dir == stored.data_dir == str(tmp_path / "data")
    assert stored.open_space().network([0] * 6).blocks == blocks
    moved = folder.path.rename(tmp_path / "elsewhere")
    assert SearchFolder.open(moved).stored_settings().beside("recipe.yaml") == moved / "recipe.yaml"


@pytest.mark.parametrize("does", ["--resume", "--report"])
def test_trials_of_another_space_are_refused(tmp_path, does):
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SPACE))
    one = cli("-c", write_search(tmp_path, space="s.yaml", trials=20, run_name="run"))
    assert one.returncode == 0, one.stderr
    (tmp_path / "run" / "space" / "s.yaml").write_text(yaml.safe_dump({**SPACE, "filters": [16, 24]}))
    done = cli(does, tmp_path / "run")
    assert done.returncode == 2
    assert "has trials of another space than" in done.stderr


def test_paths_of_a_search_file_start_at_its_folder(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, epochs in ((here, 1), (there, 2)):
        folder.mkdir()
        write_recipe(folder, PLAIN, num_classes=10, epoch_size=epochs)
    name = write_recipe(there, PLAIN, num_classes=10, epoch_size=2).name
    path = write_search(there, **PROXY, recipe=name)
    monkeypatch.chdir(here)
    assert load_settings(path).final_recipe().epoch_size == 2
    assert load_settings(path, {"recipe": name}).final_recipe().epoch_size == 1  # of the command line


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"target": {"factor": 0.5}}, "is a mapping of network"),
        ({"target": {"network": None}}, "is a mapping of network"),
        ({"target": {"network": "mnasnet_small"}, "target_network": "mnasnet_100"}, "target_network: target of"),
        ({"proxy": {"seed": 3}}, "seed: every trial sets it itself"),
        ({"proxy": {"epoch_size": "many"}}, "epoch_size: 'many'"),
        ({"rungs": [{"keep": True, "epoch_size": 2}]}, "rung 1 of"),
        ({"rungs": [{"keep": 3, "run_name": "x"}]}, "run_name: every trial sets it itself"),
    ],
)
def test_sections_that_say_nothing_or_too_much_are_refused(tmp_path, keys, sentence):
    with pytest.raises(UserError, match=sentence):
        load_settings(write_search(tmp_path, **keys))


def test_one_reference_may_have_blanks_in_its_path(tmp_path):
    assert load_settings(write_search(tmp_path, references="my net.yaml")).references == ("my net.yaml",)


def test_a_report_of_a_running_search_leaves_its_log_alone(tmp_path):
    one = search(tmp_path, trials=20)
    one.run()
    log = one.folder.trials
    log.write_bytes(log.read_bytes() + b'{"number": 20, "genera')
    before = log.read_bytes()
    write_report(one.folder.path)
    assert log.read_bytes() == before


def test_winners_of_an_earlier_report_do_not_stay(tmp_path):
    for name in ("1.yaml", "2.yaml", "3.yaml", "mine.yaml", "3.txt"):
        (tmp_path / name).touch()
    remove_numbered(tmp_path, "*.yaml", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.yaml", "3.txt", "mine.yaml"]


def test_a_search_whose_trials_all_fail_is_a_failed_job(tmp_path, monkeypatch):
    found = search(tmp_path, "other", trials=20).run()
    failed = [replace(trial, status="crash", reason="no", accuracy=None) for trial in found]
    monkeypatch.setattr(Search, "run", lambda self, *_: failed)
    with pytest.raises(JobError, match="all 20 trials failed; the last: crash: no"):
        session.begin(load_settings(overrides={**SYNTHETIC, "trials": 20, "search_dir": str(tmp_path)}))


def test_a_search_whose_folder_is_deleted_says_what_it_cannot_write(tmp_path, monkeypatch):
    append = TrialLog.append

    def deleted(log, *trials):
        shutil.rmtree(log.path.parent)
        append(log, *trials)

    monkeypatch.setattr(TrialLog, "append", deleted)
    with pytest.raises(JobError, match=r"trials\.jsonl: No such file"):
        session.begin(load_settings(overrides={**SYNTHETIC, "trials": 20, "search_dir": str(tmp_path)}))


def test_a_mistake_leaves_no_folder(tmp_path):
    path = write_search(tmp_path, run_name="run")
    assert cli("-c", path, "--max_params", 10).returncode == 2
    assert not (tmp_path / "run").exists()
    assert cli("-c", path).returncode == 0
