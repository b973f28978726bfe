"""What a recipe means where it is written as people write, and where it leaves something out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe, load_stored_recipe, with_keys
from mindcv_mnasnet.train.schedule import learning_rates


def written(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("scheduler", ["cosine_decay", "polynomial_decay", "step_decay"])
@pytest.mark.parametrize("epochs", [1, 2, 10, 90, 350])
def test_a_rate_falls_within_the_training_where_nothing_is_said(scheduler, epochs):
    recipe = load_recipe(overrides={"epoch_size": epochs, "lr": 0.01, "scheduler": scheduler, "batch_size": 10})
    rates = learning_rates(recipe, Plan.make(recipe, 1000, 0))
    assert rates.argmax() <= 0.1 * len(rates)
    assert rates[-1] < (0.9 if scheduler == "step_decay" else 0.02) * rates.max()


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (9, 0), (25, 2), (30, 3), (90, 3)])
def test_a_warm_up_in_stairs_takes_whole_epochs_of_a_tenth(epochs, warmup):
    recipe = load_recipe(overrides={"epoch_size": epochs, "lr": 0.01, "lr_epoch_stair": True, "batch_size": 10})
    rates = learning_rates(recipe, Plan.make(recipe, 40, 0)).reshape(epochs, 4)
    assert recipe.warmup_epochs == warmup
    assert (rates == rates[:, :1]).all()
    assert rates.argmax() == 4 * warmup


def test_keys_on_top_keep_what_was_changed_and_fit_the_rest_anew():
    written = load_recipe(overrides={"epoch_size": 10, "lr": 0.1})
    longer = with_keys(written, {"epoch_size": 20})
    assert (longer.warmup_epochs, longer.decay_epochs, longer.lr) == (2, 18, 0.1)
    changed = with_keys(replace(written, label_smoothing=0.2, warmup_epochs=0.5), {"lr": 0.5})
    assert (changed.label_smoothing, changed.warmup_epochs, changed.lr) == (0.2, 0.5, 0.5)
    stored = Recipe.from_dict({"epoch_size": 10})
    assert with_keys(stored, {"run_name": "again"}) == replace(stored, run_name="again")


def test_cycles_of_cosine_decay_fill_the_training():
    recipe = load_recipe(overrides={"epoch_size": 30, "num_cycles": 3, "warmup_epochs": 0})
    assert recipe.decay_epochs == 10


def test_what_is_given_stays():
    recipe = load_recipe(overrides={"epoch_size": 10, "warmup_epochs": 3, "decay_epochs": 100})
    assert (recipe.warmup_epochs, recipe.decay_epochs) == (3, 100)


def test_a_stored_recipe_keeps_the_defaults_that_it_was_begun_with(tmp_path):
    assert (Recipe.from_dict({"epoch_size": 10}).warmup_epochs, Recipe.from_dict({}).decay_epochs) == (3, 100)
    stored = load_stored_recipe(written(tmp_path, "epoch_size: 10\n"))
    assert (stored.warmup_epochs, stored.decay_epochs) == (3, 100)


def test_a_run_folder_gives_back_the_schedule_that_was_fitted(tmp_path):
    recipe = load_recipe(overrides={"epoch_size": 10})
    assert load_stored_recipe(written(tmp_path, recipe.dump())) == recipe


@pytest.mark.parametrize("name", ["12", "012", "1.10", "1:30", "2026-11-28", "1e3"])
def test_a_name_that_looks_like_a_number_is_the_text_that_was_written(tmp_path, name):
    assert load_recipe(written(tmp_path, f"run_name: {name}\n")).run_name == name


def test_a_leading_zero_makes_no_octal(tmp_path):
    assert load_recipe(written(tmp_path, "epoch_size: 010\nbatch_size: 0128\n")).epoch_size == 10


def test_sixtieths_are_refused(tmp_path):
    with pytest.raises(UserError, match="epoch_size: '1:30'"):
        load_recipe(written(tmp_path, "epoch_size: 1:30\n"))


def test_means_in_shares_of_one_are_refused_with_the_pixel_values():
    with pytest.raises(UserError, match=r"--mean 123.675,116.28,103.53"):
        load_recipe(overrides={"mean": [0.485, 0.456, 0.406]})
    assert load_recipe(overrides={"mean": [0, 0, 0], "std": [255, 255, 255]}).mean == (0, 0, 0)
    assert Recipe.from_dict({"mean": [0.5, 0.5, 0.5]}).mean == (0.5, 0.5, 0.5)
