"""Validation from one command: the run's own numbers again, beside what others report."""

from __future__ import annotations

import csv
import json
import shutil
from contextlib import nullcontext

import pytest
from processes import PLAIN, cli, refused, write_recipe

import validate
from mindcv_mnasnet.errors import JobError
from mindcv_mnasnet.inference import results
from mindcv_mnasnet.inference.verdict import Verdict
from mindcv_mnasnet.networks.reported import load_reported
from mindcv_mnasnet.run.checkpoint import read_checkpoint, write_checkpoint
from mindcv_mnasnet.run.folder import find_checkpoints
from mindcv_mnasnet.run.log import read_log
from mindcv_mnasnet.run.scores import better_weights, of_better_weights
from mindcv_mnasnet.train.metrics import Counts


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    """A run of two epochs with averaged weights, a little better than chance."""
    folder = tmp_path_factory.mktemp("trained")
    keys = {"epoch_size": 2, "num_samples": 640, "ema": True, "ema_decay": 0.9, "val_while_train": True}
    path = write_recipe(folder, PLAIN, data_dir=str(digits), **keys)
    assert cli("-c", path, "--ckpt_save_dir", folder, "--run_name", "run") == 0
    return folder / "run"


@pytest.fixture(scope="module")
def last_epoch(trained):
    return [record for record in read_log(trained / "log.jsonl") if record["kind"] == "epoch"][-1]


@pytest.fixture
def measure(tmp_path):
    """Runs validate.py and returns the rows of its JSON."""

    def run(*words):
        path = tmp_path / "results of a test.json"
        assert cli(*words, "--json", path, program=validate) == 0
        return json.loads(path.read_text())

    return run


def newest(run_folder):
    return run_folder / "checkpoints" / "step_00000080.safetensors"


@pytest.mark.parametrize("weights", ["ema", "raw", None])
def test_it_measures_what_training_measured(trained, last_epoch, measure, weights):
    (row,) = measure("--ckpt_path", newest(trained), *(("--weights", weights) if weights else ()))
    assert row["weights"] == (weights or better_weights(last_epoch))
    suffix = "_ema" if row["weights"] == "ema" else ""
    assert row["images"] == 360
    assert row["top1"] == last_epoch[f"val_top1{suffix}"]
    assert row["top5"] == last_epoch[f"val_top5{suffix}"]
    assert row["loss"] == pytest.approx(last_epoch[f"val_loss{suffix}"], rel=1e-5)
    assert row["images_per_second"] > 0
    assert row["reported"]["comparable"] is False
    assert "360 images of digits" in row["reported"]["reason"]


def test_any_size_of_batch_counts_every_image_once(trained, last_epoch, measure):
    (row,) = measure(newest(trained), "--val_batch_size", "97")
    assert (row["images"], row["top1"]) == (360, of_better_weights(last_epoch, "top1"))


def test_a_run_folder_stands_for_its_best_checkpoint_and_globs_for_all(trained, measure, tmp_path, capsys):
    rows = measure(trained, trained / "checkpoints" / "step_*", "--csv", tmp_path / "all.csv")
    assert [row["checkpoint"] for row in rows] == [
        str(trained / "checkpoints" / name)
        for name in ("best.safetensors", "step_00000040.safetensors", "step_00000080.safetensors")
    ]
    assert capsys.readouterr().out.count("not compared") == 3
    measure(trained, "--csv", tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["checkpoint"] for line in lines] == [row["checkpoint"] for row in [*rows, rows[0]]]
    assert [float(line["top1"]) for line in lines[:3]] == [row["top1"] for row in rows]


def test_a_glob_finds_run_folders_and_an_unfinished_run_has_its_newest(trained, tmp_path):
    copy = tmp_path / "runs" / "unfinished"
    shutil.copytree(trained, copy)
    (copy / "checkpoints" / "best.safetensors").unlink()
    newest(copy).write_bytes(newest(copy).read_bytes()[:500])
    (found,) = find_checkpoints([str(tmp_path / "runs" / "*")])
    assert found.name == "step_00000040.safetensors"


def test_a_csv_that_editors_have_saved_is_gone_on_with(trained, tmp_path, measure):
    path = tmp_path / "all.csv"
    measure(trained, "--csv", path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().rstrip())  # Excel marks UTF-8, others end the last line
    measure(trained, "--csv", path)
    assert len(list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))) == 2


def test_a_csv_of_something_else_is_left_alone(trained, tmp_path, capsys):
    (tmp_path / "image.csv").write_bytes(b"\xff\xd8\xff\n")
    assert "cannot be read as text" in refused(capsys, trained, "--csv", tmp_path / "image.csv", program=validate)
    path = tmp_path / "other.csv"
    path.write_text("name,age\n")
    assert "other columns" in refused(capsys, trained, "--csv", path, program=validate)
    assert path.read_text() == "name,age\n"


# --- recipes and settings -------------------------------------------------------------------------------------------


def test_a_recipe_that_agrees_may_be_given_and_its_settings_count(trained, last_epoch, measure, tmp_path, digits):
    path = write_recipe(tmp_path, PLAIN, data_dir=str(digits), val_resize=32, lr=3.0)
    (row,) = measure("-c", path, "--ckpt_path", newest(trained))
    assert row["loss"] != last_epoch["val_loss_ema"]
    assert (row,) != measure("-c", path, "--ckpt_path", newest(trained), "--val_resize", "18")


@pytest.mark.parametrize(("key", "value"), [("head", 16), ("num_classes", 12), ("padding", "same")])
def test_a_recipe_of_another_network_is_refused_with_what_differs(trained, tmp_path, capsys, key, value):
    path = write_recipe(tmp_path, PLAIN, **{key: value})
    sentence = refused(capsys, "-c", path, "--ckpt_path", newest(trained), program=validate)
    assert sentence.startswith(f"error: {key}: ")


def test_conventions_of_the_network_may_be_named_as_overrides(trained, measure):
    (usual,) = measure(newest(trained))
    (row,) = measure(newest(trained), "--padding", "same")
    assert row["loss"] != usual["loss"]


def test_labels_from_a_file(trained, last_epoch, measure, tmp_path, digits):
    """A flat folder with ImageNet's kind of list, or with ReaL's several labels (here: all, so that all are right)."""
    flat = tmp_path / "flat" / "val"
    flat.mkdir(parents=True)
    lines = []
    for path in (digits / "val").glob("*/*.png"):
        shutil.copy(path, flat / path.name)
        lines.append(f"{path.stem},{path.parent.name}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    words = (newest(trained), "--dataset", "own", "--data_dir", flat.parent, "--val_labels")
    (row,) = measure(*words, tmp_path / "labels.csv")
    assert (row["images"], row["top1"]) == (360, of_better_weights(last_epoch, "top1"))
    (tmp_path / "real.json").write_text(json.dumps([[], *[list(range(10))] * 359]))
    (row,) = measure(*words, tmp_path / "real.json")
    assert (row["images"], row["top1"]) == (359, 100.0)


# --- reported results -------------------------------------------------------------------------------------------------


def test_reported_results_are_listed_without_mindspore_or_data(capsys):
    assert cli("--list_reported", program=validate) == 0
    listed = capsys.readouterr().out
    assert "75.2" in listed
    assert "mnasnet-a1" in listed


def test_what_is_not_comparable_does_not_reproduce(trained, capsys):
    sentence = refused(capsys, newest(trained), "--require_reported", program=validate, code=1)
    assert "360 images of digits" in sentence


@pytest.mark.parametrize(
    ("difference", "reason", "reproduces"),
    [(0.0, None, True), (0.09, None, True), (-0.11, None, False), (0.0, "another crop", False)],
)
def test_require_reported_wants_a_comparable_result_inside_the_tolerance(difference, reason, reproduces):
    entry = next(one for one in load_reported() if one.top1 is not None)
    verdict = Verdict(entry, entry.top1 + difference, entry.top5, 0.1, reason)
    result = results.Result("some.safetensors", "ema", "m", Counts(1, 1, 1, 0.0), 0, 1.0, verdict)
    with nullcontext() if reproduces else pytest.raises(JobError, match=r"some\.safetensors"):
        results.require_reported([result])


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "needs a checkpoint"),
        (("no such.safetensors",), "not there"),
        (("no such/*.safetensors",), "not there"),
        (("{folder}",), "neither a checkpoint nor a run folder"),
        (("{run}/recipe.yaml",), "safetensors"),
        (("{run}", "--tolerance", "nan"), "tolerance"),
        (("{run}", "--tolerance", "-1"), "tolerance"),
        (("{run}", "--data_dir", "{folder}/nowhere", "--dataset", "own"), "nowhere"),
        (("{run}", "--val_split", "test"), "val_split"),
        (("{run}", "--val_bacth_size", "3"), "val_batch_size"),
        (("{run}", "--crop_pct", "2"), "crop_pct"),
        (("{run}", "--weights", "both"), "weights"),
        (("{run}", "--num_classes", "12"), "num_classes: 12 is asked for"),
        (("{run}", "--in_channels", "1"), "in_channels: 1 is asked for"),
        (("{run}", "--width_mult", "2"), "width_mult: 2.0 is asked for"),
        (("{run}", "-c", ""), "is empty"),
        (("{run}", "--ema", "False"), "ema: this command has no use for it"),
        (("{run}", "--num_samples", "5"), "num_samples: this command has no use for it"),
        (("{run}", "--lr", "7"), "lr: this command has no use for it"),
        (("{run}", "--image_resize", "32", "--val_resize", "30", "--eval_crop", "tf_square"), "eval_crop"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes_are_one_sentence(trained, capsys, words, says):
    words = [word.format(run=trained, folder=trained.parent) for word in words]
    assert says in refused(capsys, *words, program=validate)


def test_broken_checkpoints_are_reported(trained, tmp_path, capsys):
    path = tmp_path / "broken.safetensors"
    content = bytearray(newest(trained).read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert "damaged" in refused(capsys, path, program=validate)
    path.write_bytes(content[:-50])
    assert "truncated" in refused(capsys, path, program=validate)


def test_averaged_weights_that_are_not_there_are_reported(trained, tmp_path, capsys):
    stored = read_checkpoint(newest(trained))
    path = tmp_path / "raw.safetensors"
    write_checkpoint(path, stored.weights(ema=False), {k: v for k, v in stored.meta.items() if k != "format"})
    assert "ema" in refused(capsys, path, "--weights", "ema", program=validate)


def test_data_of_other_classes_is_refused(trained, tmp_path, capsys, digits):
    shutil.copytree(digits / "val", tmp_path / "set" / "val")
    (tmp_path / "set" / "val" / "3").rename(tmp_path / "set" / "val" / "three")
    assert "three" in refused(
        capsys, newest(trained), "--dataset", "own", "--data_dir", tmp_path / "set", program=validate
    )
