"""Training from one command: what it leaves behind, what stops it, what it refuses, what data it takes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from image_files import encode, make_folder, scene
from PIL import Image
from processes import PLAIN, TINY, cli, messages, refused, state, steps, unequal, write_recipe
from small_jobs import images, job_on

from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.run.checkpoint import read_checkpoint
from mindcv_mnasnet.run.log import read_log


@pytest.fixture
def recipe(tmp_path, digits):
    """Arguments of a small job: four steps of 16 digits, validation on 360."""
    path = write_recipe(tmp_path, PLAIN, data_dir=str(digits))
    return ("-c", path, "--ckpt_save_dir", tmp_path, "--run_name", "run")


def epochs(run_folder: Path) -> list[dict]:
    return [record for record in read_log(run_folder / "log.jsonl") if record["kind"] == "epoch"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    """A finished run: two epochs of four steps, with averages, asked for in the words of a recipe made for NPUs."""
    folder = tmp_path_factory.mktemp("trained")
    mindcv = {"amp_level": "O3", "jit_level": "O2", "distribute": True, "num_parallel_workers": 64, "mode": 0}
    keys = {"epoch_size": 2, "ema": True, "ema_decay": 0.5, "val_while_train": True, "log_interval": 3, **mindcv}
    path = write_recipe(folder, PLAIN, data_dir=str(digits), **keys)
    assert cli("--config", path, "--ckpt_save_dir", folder, "--run_name", "run") == 0
    return folder / "run"


def test_the_run_folder_holds_what_it_promises(trained):
    names = {path.name for path in trained.iterdir() if not path.name.startswith(".")}
    assert names == {
        "recipe.yaml",
        "data.json",
        "environment.json",
        "log.jsonl",
        "curves.png",
        "summary.json",
        "checkpoints",
    }
    checkpoints = {path.name for path in (trained / "checkpoints").iterdir()}
    assert checkpoints == {"best.safetensors", "step_00000004.safetensors", "step_00000008.safetensors"}
    assert Image.open(trained / "curves.png").size > (300, 200)


def test_the_summary_has_the_columns_that_mindcv_publishes(trained):
    summary = json.loads((trained / "summary.json").read_text())
    columns = {"params", "cards", "batch_size", "resolution", "jit_level", "graph_compile_seconds", "ms_per_step"}
    assert columns | {"images_per_second", "top1", "top5", "recipe"} <= summary.keys()
    assert [summary[key] for key in ("cards", "batch_size", "resolution", "jit_level")] == [1, 16, "16x16", "O1"]
    assert summary["ms_per_step"] * summary["images_per_second"] == pytest.approx(1000 * 16, rel=0.1)
    assert summary["graph_compile_seconds"] > 0
    assert summary["recipe_fingerprint"] == load_recipe(trained / "recipe.yaml").fingerprint()
    last = epochs(trained)[-1]
    assert (summary["top1"], summary["top5"]) == (last["val_top1_ema"], last["val_top5_ema"])


def test_the_log_has_one_schema(trained):
    records = read_log(trained / "log.jsonl")
    assert [record["kind"] for record in records if record["kind"] != "message"] == [
        *("step", "step", "step", "epoch"),
        *("step", "step", "epoch"),
    ]
    assert [step for step, *_ in steps(trained)] == [1, 3, 4, 6, 8]
    for record in records:
        extra = {
            "message": {"text"},
            "step": {"epoch", "loss", "lr", "images_per_second", "data_wait_percent"},
            "epoch": {"epoch", "train_loss", "train_top1", "train_top5", "val_images"}
            | {f"val_{name}{kind}" for name in ("top1", "top5", "loss") for kind in ("", "_ema")},
        }[record["kind"]]
        assert record.keys() == {"kind", "step", "time"} | extra
    assert {line["val_images"] for line in epochs(trained)} == {360}


@pytest.mark.parametrize("word", ["jit_level O2", "amp_level O3", "distribute", "num_parallel_workers"])
def test_what_this_machine_cannot_do_is_said_in_one_line(trained, word):
    assert len([line for line in messages(trained).splitlines() if word in line]) == 1


def test_the_best_checkpoint_is_that_of_the_best_epoch(trained):
    best = read_checkpoint(trained / "checkpoints" / "best.safetensors").meta
    scores = [line["val_top1_ema"] for line in epochs(trained)]
    assert best["best"]["top1"] == max(scores)
    assert best["metrics"]["val_top1_ema"] == max(scores)


def test_the_stored_recipe_starts_the_same_job(trained, tmp_path):
    words = ("-c", trained / "recipe.yaml", "--ckpt_save_dir", tmp_path, "--run_name", "again")
    assert cli(*words, "--distribute", "False") == 0
    assert steps(tmp_path / "again") == steps(trained)
    assert cli(*words[:-1], "other", "--seed", "1") == 0
    assert steps(tmp_path / "other") != steps(trained)


def test_a_loss_that_is_not_finite_names_the_step_and_remedies(recipe, tmp_path, capsys):
    sentence = refused(capsys, *recipe, "--lr", "1e30", code=1)
    assert f"loss is not finite at step {steps(tmp_path / 'run')[-1][0] + 1};" in sentence
    assert all(word in sentence for word in ("none yet", "--lr", "--clip_grad", "--warmup_epochs"))
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_weights_that_are_not_finite_are_not_saved_and_the_last_good_checkpoint_is_named(recipe, tmp_path, capsys):
    """The loss of a step says nothing about what the step did."""
    sentence = refused(capsys, *recipe, "--lr", "1e30", "--ckpt_save_steps", "1", code=1)
    done = steps(tmp_path / "run")[-1][0]
    assert f"weights are not finite after step {done};" in sentence
    (good,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert good.name == f"step_{done - 1:08d}.safetensors"
    assert str(good) in sentence


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 kB, more than one checkpoint and less than ten."""
    place = tmp_path / "small disk"
    place.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", place], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_stops_with_the_path_and_training_goes_on_when_there_is_room(recipe, small_disk, capsys):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(120 * 1024))
    words = [*recipe[:2], "--ckpt_save_dir", small_disk, "--run_name", "run"]
    many = ("--ckpt_save_steps", "1", "--keep_checkpoint_max", "50", "--epoch_size", "3")
    run = small_disk / "run"
    sentence = refused(capsys, *words, *many, code=1)
    assert "No space left on device" in sentence
    assert str(run) in sentence
    saved = sorted((run / "checkpoints").glob("step_*"))
    assert saved
    for path in saved:
        read_checkpoint(path)  # whole
    ballast.unlink()
    assert cli("--resume", run, "--allow_changes", "keep_checkpoint_max", "--keep_checkpoint_max", "2") == 0
    assert [step for step, *_ in steps(run)] == list(range(1, 13))


def test_a_broken_image_ends_training_with_its_name_or_is_skipped_and_counted(tmp_path, capsys):
    folder = make_folder(tmp_path / "set", images("train", 16) | images("val", 4))
    broken = folder / "train" / "c1" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    unseen = next((folder / "val").rglob("*.png"))
    unseen.write_bytes(unseen.read_bytes()[:60])
    words = job_on(folder, tmp_path)
    sentence = refused(capsys, *words, code=1)
    assert str(broken) in sentence
    assert "--on_bad_image skip" in sentence
    assert cli(*words[:-1], "skipping", "--on_bad_image", "skip") == 0
    last = epochs(tmp_path / "skipping")[-1]
    assert (last["skipped_images"], last["val_images"], last["val_skipped_images"]) == (1, 3, 1)
    assert str(broken) in messages(tmp_path / "skipping")


def test_raw_weights_are_kept_as_the_best_where_the_average_is_not_ready(tmp_path, digits):
    """A decay of 0.9999 over a few steps: the averaged weights are nearly those of the start."""
    learns = ["r1_k3_s11_e1_o8_noskip", "r2_k3_s22_e3_o8_se0.25"]  # sooner than TINY's own blocks do
    recipe = write_recipe(tmp_path, TINY, data_dir=str(digits), ema_ramp=False, blocks=learns)
    assert cli("-c", recipe, "--ckpt_save_dir", tmp_path, "--run_name", "run") == 0
    last = epochs(tmp_path / "run")[-1]
    best = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.safetensors")
    assert last["val_top1"] > last["val_top1_ema"]
    assert (best.meta["best"]["weights"], best.meta["best"]["top1"]) == ("raw", best.meta["metrics"]["val_top1"])
    assert best.chosen() == "raw"
    assert unequal(best.weights(), best.weights(ema=False)) == []
    assert "ema_decay 0.9999 is long for 60 steps: 99 %" in messages(tmp_path / "run")


def test_gray_cmyk_and_palette_images_in_numbers_that_nothing_divides(tmp_path):
    """Seven training images in batches of four, the last one filled up; five for validation on batches of three."""
    odd = {
        "train/c0/gray.jpg": encode(scene().convert("L"), "JPEG"),
        "train/c1/cmyk.jpg": encode(scene().convert("CMYK"), "JPEG"),
        "train/c0/palette.png": encode(scene().convert("P")),
        "train/c1/png named.jpg": encode(scene()),
        "train/c0/tiny.png": encode(scene(1, 1)),
    }
    folder = make_folder(tmp_path / "set", odd | images("train", 2) | images("val", 5))
    assert cli(*job_on(folder, tmp_path, drop_remainder=False, val_batch_size=3, epoch_size=2)) == 0
    assert [step for step, *_ in steps(tmp_path / "run")] == [1, 2, 3, 4]
    assert epochs(tmp_path / "run")[-1]["val_images"] == 5


def test_one_image_and_no_validation(tmp_path):
    folder = make_folder(tmp_path / "set", images("train", 2))
    assert cli(*job_on(folder, tmp_path, batch_size=1, num_samples=1)) == 0
    assert len(steps(tmp_path / "run")) == 1
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["top1"] is None
    assert "no images for validation" in messages(tmp_path / "run")


def test_accumulated_batches_are_one_step(recipe, tmp_path):
    assert cli(*recipe, "--batch_size", "8", "--gradient_accumulation_steps", "3") == 0
    assert [step for step, *_ in steps(tmp_path / "run")] == [1, 2]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["global_batch"], summary["steps"]) == (24, 2)


def test_a_frozen_backbone_keeps_its_bits_under_a_new_classifier(trained, tmp_path):
    folder = make_folder(tmp_path / "set", images("train", 12, classes=3) | images("val", 6, classes=3))
    start = trained / "checkpoints" / "step_00000008.safetensors"
    assert cli(*job_on(folder, tmp_path), "--init_from", start, "--freeze", "backbone") == 0
    weights, before = state(tmp_path / "run", 3), read_checkpoint(start).weights(ema=True)
    backbone = [name for name in before if not name.startswith("classifier.")]
    assert any("moving_mean" in name for name in backbone)
    assert [name for name in backbone if weights[name].tobytes() != before[name].tobytes()] == []
    assert weights["classifier.weight"].shape == (3, 8)
    (said,) = [line for line in messages(tmp_path / "run").splitlines() if "started from" in line]
    assert str(start) in said
    assert "3 classes instead of 10" in said


def test_the_frozen_stem_and_stage_stay_and_the_rest_moves(trained, recipe, tmp_path):
    assert cli(*recipe, "--ckpt_path", trained, "--freeze", "1") == 0  # MindCV's way of naming it; a run is its best
    best = read_checkpoint(trained / "checkpoints" / "best.safetensors")
    weights, before = state(tmp_path / "run", 4), best.weights(ema=True)
    moved = {name.split(".")[0] for name in before if weights[name].tobytes() != before[name].tobytes()}
    assert moved == {"head", "classifier"}


def test_a_checkpoint_of_another_network_is_refused_with_its_tensors(trained, recipe, tmp_path, capsys):
    start = trained / "checkpoints" / "step_00000008.safetensors"
    sentence = refused(capsys, *recipe, "--init_from", start, "--head", "24")
    assert "head.conv.weight" in sentence
    assert "of another shape" in sentence
    assert not (tmp_path / "run").exists()
