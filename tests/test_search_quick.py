"""A search from a folder of images: the files that it writes, what it plans for a budget, what it leaves."""

from __future__ import annotations

import json
import shutil
import signal

import numpy as np
import pytest
import yaml
from PIL import Image
from processes import cli, refused

from mindcv_mnasnet.commands import search as command
from mindcv_mnasnet.data.index import list_folder
from mindcv_mnasnet.data.pack_writer import write_pack
from mindcv_mnasnet.data.sets import open_train_val
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.search import anchor, band, first_recipe, pools, proxy, quick
from mindcv_mnasnet.search.budget import held_out_share, parse_duration, plan
from mindcv_mnasnet.search.meters import SurrogateMeter
from mindcv_mnasnet.search.settings import load_settings
from mindcv_mnasnet.search.timing import Speed
from mindcv_mnasnet.search.trials import TrialLog


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of two classes, 60 images each, of 40 x 30 pixels, one class brighter than the other."""
    root, rng = tmp_path_factory.mktemp("my images") / "birds and fish", np.random.default_rng(0)
    for name, level in (("bird", 60), ("fish", 180)):
        (root / name).mkdir(parents=True)
        for number in range(60):
            pixels = rng.normal(level, 30, (30, 40, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize(("text", "seconds"), [("2h", 7200), ("90min", 5400), ("1h 30min", 5400), ("45s", 45)])
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "two hours", "1h x"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UserError, match="is no duration, such as 2h"):
        parse_duration(text)


def test_shares_of_a_latency_are_read():
    assert (quick.parse_target("0.5x"), quick.parse_target("1x"), quick.parse_target("0.8")) == (0.5, 1.0, 0.8)
    for text in ("fast", "-1x", "0x"):
        with pytest.raises(UserError, match="is no share of a latency"):
            quick.parse_target(text)


@pytest.mark.parametrize("budget", [1800, 7200, 36000])
@pytest.mark.parametrize("speed", [100.0, 1000.0])
def test_a_plan_keeps_to_its_budget_and_trains_longer_from_rung_to_rung(budget, speed):
    found = plan(budget, 2, 5000, 500, speed, 10.0, 30)
    assert sum(found.seconds) <= 1.1 * budget
    assert list(found.networks) == sorted(found.networks, reverse=True)
    assert list(found.epochs) == sorted(found.epochs)
    assert found.epochs[-1] <= 30


def test_a_plan_that_cannot_be_names_the_shortest_budget():
    with pytest.raises(UserError, match=r"too short for 12 networks of 2 epoch\(s\) each; 35 min are needed"):
        plan(600, 1, 3000, 0, 100.0, 10.0, 30)
    assert plan(35 * 60, 1, 3000, 0, 100.0, 10.0, 30).epochs[0] == 2


@pytest.mark.parametrize("most_epochs", [15, 50, 100])
def test_the_first_rung_is_long_enough_to_tell_networks_of_a_small_set_apart(most_epochs):
    """An epoch of 1,300 images is 40 steps, after which every network answers by chance."""
    assert plan(1800, 1, 1300, 140, 290.0, 12.0, most_epochs).epochs[0] >= 0.05 * most_epochs


@pytest.mark.parametrize(("images", "measured"), [(100, 30), (1400, 420), (2500, 500), (5000, 500), (45000, 4500)])
def test_small_sets_hold_out_enough_images_to_rank_by(images, measured):
    assert held_out_share(images) * images == pytest.approx(measured)


@pytest.mark.parametrize("like", ["mnasnet_small", "mnasnet-a1", "mnasnet_100@0.5"])
def test_the_space_around_a_network_holds_it(tmp_path, images, like):
    path = quick.write_files(tmp_path / "new", images, like, 0.5, 2)
    settings = load_settings(path)
    recipe = settings.final_recipe()
    network = recipe.network(2)
    assert settings.open_space().reasons_outside(network.blocks) == []
    name, _, width = like.partition("@")
    known = resolve(name, **({"width_mult": float(width)} if width else {}))
    assert [(one.out_width, one.kernel, one.expand) for one in network.layers()] == [
        (one.out_width, one.kernel, one.expand) for one in known.layers()
    ]
    assert (settings.target_factor, settings.band, recipe.image_resize) == (0.5, 0.85, 24)


def test_what_is_held_back_is_in_no_training(tmp_path, images):
    settings = load_settings(quick.write_files(tmp_path / "new", images, "mnasnet_small", 1.0, 1))
    train, val = open_train_val(settings.final_recipe())
    assert (len(train), len(val)) == (102, 18)
    sources = [{(tmp_path / index.name(i)).resolve() for i in range(len(index))} for index in (train, val)]
    assert not sources[0] & sources[1]
    assert len(sources[0] | sources[1]) == 120
    assert settings.final_recipe().val_fraction is None


def test_the_rate_of_a_first_recipe_follows_its_batch():
    few, many = (first_recipe.recipe_keys(resolve("mnasnet_small"), {}, images, 24) for images in (500, 5000))
    assert few["batch_size"] < many["batch_size"]
    assert few["lr"] / few["batch_size"] == pytest.approx(many["lr"] / many["batch_size"])


def test_mistakes_are_one_sentence(tmp_path, images, capsys):
    for words, sentence in (
        (("--images", tmp_path / "none", "--search_dir", tmp_path / "a"), "is not a folder"),
        (("--images", images, "--like", "mnasnet_10", "--search_dir", tmp_path / "b"), "unknown model"),
        (("--images", images, "--budget", "soon", "--search_dir", tmp_path / "c"), "budget: 'soon'"),
        (("--images", images, "--target", "soon", "--search_dir", tmp_path / "d"), "target: 'soon'"),
    ):
        assert sentence in refused(capsys, *words, program=command)


def test_a_runtime_that_is_missing_is_said_before_the_machine_is_timed(tmp_path, images, monkeypatch, capsys):
    def missing(settings):
        raise UserError("onnxruntime is not installed: pip install 'mindcv_mnasnet[onnx]'")

    monkeypatch.setattr(quick, "meter_for", missing)
    assert "[onnx]" in refused(capsys, "--images", images, "--search_dir", tmp_path / "new", program=command)
    assert not any((tmp_path / "new").iterdir())


def test_a_budget_that_is_too_short_leaves_the_folder_to_the_next_try(tmp_path, images, monkeypatch, capsys):
    monkeypatch.setattr(quick.timing, "time_trainings", lambda settings: Speed(10.0, 20.0))
    words = ("--images", images, "--search_dir", tmp_path, "--run_name", "mine", "--dry_run", "--budget")
    assert "is too short" in refused(capsys, *words, "1min", program=command)
    assert list(tmp_path.iterdir()) == []
    assert cli(*words, "10h", program=command) == 0
    assert "exists; --resume" in refused(capsys, *words, "10h", program=command)
    assert load_settings(tmp_path / "mine" / "search.yaml").trials >= 12  # what was there is left alone


@pytest.mark.parametrize("name", ["..", ".", "../../escaped", "a/b"])
def test_a_name_stays_below_its_folder_and_nothing_else_is_removed(tmp_path, images, name, monkeypatch, capsys):
    work = tmp_path / "work"
    work.mkdir()
    (work / "mine.txt").write_text("of years")
    monkeypatch.chdir(work)
    assert "run_name" in refused(capsys, "--images", images, "--run_name", name, program=command)
    assert [path.name for path in tmp_path.rglob("*")] == ["work", "mine.txt"]


def test_the_second_of_two_searches_of_a_folder_leaves_the_first_alone(tmp_path, images, monkeypatch, capsys):
    """The folder comes to be after the second has looked for it."""
    real = quick.new_folder

    def overtaken(root, name, exact):
        (root / name).mkdir()
        (root / name / "search.yaml").write_text("of the first")
        return real(root, name, exact)

    monkeypatch.setattr(quick, "new_folder", overtaken)
    assert "exists" in refused(capsys, "--images", images, "--search_dir", tmp_path, program=command)
    assert (tmp_path / "search_birds and fish" / "search.yaml").read_text() == "of the first"


def test_a_search_from_images_that_is_told_to_end_leaves_nothing(tmp_path, images, monkeypatch):
    monkeypatch.setattr(quick.timing, "time_trainings", lambda settings: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(quick, "meter_for", lambda _: SurrogateMeter())
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        quick.main(["--images", str(images), "--search_dir", str(tmp_path)])
    assert ended.value.code == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_images_that_cannot_be_searched_with_are_named(tmp_path, images, capsys):
    broken = tmp_path / "some"
    shutil.copytree(images, broken)
    for path in broken.rglob("*.png"):
        path.write_bytes(b"no image")
    words = ("--search_dir", tmp_path / "runs", "--dry_run")
    assert "no image that Pillow recognizes" in refused(capsys, "--images", broken, *words, program=command)
    pack = tmp_path / "pack"
    write_pack(list_folder(images), pack, 1, lambda done: None)
    assert "is a pack without a split" in refused(capsys, "--images", pack, *words, program=command)
    assert "workers: '0'" in refused(capsys, "--images", images, *words, "--workers", 0, program=command)
    (tmp_path / "file").write_text("")
    words = ("--images", images, "--search_dir", tmp_path / "file", "--dry_run")
    assert "cannot write" in refused(capsys, *words, code=1, program=command)
    assert not any((tmp_path / "runs").iterdir())


def test_a_pack_is_searched_with_as_its_folder_is(tmp_path, images):
    for part in ("train", "val"):
        write_pack(list_folder(images), tmp_path / "pack" / part, 1, lambda done: None)
    settings = load_settings(quick.write_files(tmp_path / "new", tmp_path / "pack", "mnasnet_small", 1.0, 1))
    assert settings.final_recipe().image_resize == 24


def test_a_home_folder_is_found(tmp_path, images, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(quick.timing, "time_trainings", lambda settings: Speed(1000.0, 1.0))
    monkeypatch.chdir(tmp_path)
    words = ("--images", images, "--search_dir=~/mine", "--run_name", "one", "--budget", "10h", "--dry_run")
    assert cli(*words, program=command) == 0
    assert (tmp_path / "mine" / "one" / "search.yaml").is_file()


def in_this_process(pool, jobs):
    """What ``LocalPool.run`` yields, without processes."""
    for number, path in (job for job in jobs if job is not None):
        yield number, pools.settled(pools.Result(**proxy.run(path)))


def test_from_images_to_winners(tmp_path, images, monkeypatch, capsys):
    """Real trainings of tiny networks in this process; the machine's speed and latencies are made up."""
    monkeypatch.setattr(pools.LocalPool, "run", in_this_process)
    monkeypatch.setattr(quick.timing, "time_trainings", lambda settings: Speed(1e5, 0.0))
    for module in (quick, anchor):
        monkeypatch.setattr(module, "meter_for", lambda _: SurrogateMeter())
    monkeypatch.setattr(band, "has_parts", lambda kind: False)
    tiny = {"networks": (2,), "epochs": (1,), "seconds": (1.0,)}
    monkeypatch.setattr(quick.budget, "plan", lambda *_: quick.budget.Plan(**tiny))
    monkeypatch.setattr(first_recipe, "_SEEN", 100)
    monkeypatch.setattr(first_recipe, "_LEAST_EPOCHS", 2)
    recipe = tmp_path / "like.yaml"
    recipe.write_text(yaml.safe_dump({"blocks": ["r1_k3_s22_e3_o8"], "stem": 8, "head": 16}))
    words = ["--images", images, "--like", recipe, "--search_dir", tmp_path, "--run_name", "mine", "--workers", 1]
    assert command.main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    assert "the finalists' trainings take about" in said
    everything = TrialLog(tmp_path / "mine" / "search" / "trials.jsonl").read()
    first, finalists = (sum(one.rung == rung and one.number >= 0 for one in everything) for rung in range(2))
    assert first == 2
    assert 1 <= finalists <= 2
    assert all(one.ok for one in everything)
    assert "points, 95 % interval" in said
    end = said[said.index("points, 95 % interval") :]
    assert "onnx" in end
    assert "tflite" in end
    assert command.main(["--resume", str(tmp_path / "mine" / "search")]) == 0
    assert capsys.readouterr().out.endswith(end)  # a search that was interrupted ends alike
    assert (tmp_path / "mine" / "search" / "winners" / "1.yaml").is_file()
    assert json.loads((tmp_path / "mine" / "search" / "anchor.json").read_text())["device"].startswith("surrogate")
