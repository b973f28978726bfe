"""Learning rates against values worked out by hand from the authors' and MindCV's rules, and against timm's own."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.recipe.values import key_table
from mindcv_mnasnet.train.schedule import learning_rates

AUTHORS = {
    "scheduler": "exponential_decay",
    "lr_per_256": 0.016,
    "warmup_epochs": 5,
    "decay_from": "start",
    "decay_rate": 0.97,
    "decay_every_epochs": 2.4,
    "decay_staircase": True,
}


def rates(steps_per_epoch: int, **keys) -> np.ndarray:
    recipe = load_recipe(overrides={"batch_size": 1, "min_lr": 0, **keys})
    return learning_rates(recipe, Plan.make(recipe, steps_per_epoch, 0))


def test_the_authors_rule_at_imagenets_size():
    recipe = load_recipe(overrides={**AUTHORS, "batch_size": 128, "epoch_size": 350})
    plan = Plan.make(recipe, 1281167, 0, world_size=8)
    got = learning_rates(recipe, plan)
    assert plan.steps_per_epoch == 1251  # a period is 3002.4 steps, warm-up 6255
    by_hand = {0: 0.0, 3000: 0.064 * 3000 / 6255, 6254: 0.064 * 6254 / 6255}
    by_hand |= {6255: 0.064 * 0.97**2, 9007: 0.064 * 0.97**2, 9008: 0.064 * 0.97**3}
    by_hand |= {12009: 0.064 * 0.97**3, 12010: 0.064 * 0.97**4, 437849: 0.064 * 0.97**145}
    assert len(got) == 350 * 1251 == 437850
    for step, rate in by_hand.items():
        assert got[step] == pytest.approx(rate, rel=1e-6), step


@pytest.mark.parametrize(
    ("steps_per_epoch", "epochs_per_period", "period"), [(5, 2.4, 12), (10, 1.1, 11), (10, 0.3, 3)]
)
def test_a_period_that_ends_on_a_step_changes_there(steps_per_epoch, epochs_per_period, period):
    keys = {"lr_per_256": 256.0, "warmup_epochs": 0, "epoch_size": 40, "decay_every_epochs": epochs_per_period}
    got = rates(steps_per_epoch, **{**AUTHORS, **keys})
    np.testing.assert_allclose(got, 0.97 ** (np.arange(40 * steps_per_epoch) // period), rtol=1e-6)


def test_smooth_decay_passes_through_the_corners_of_the_staircase():
    smooth = rates(
        5, **{**AUTHORS, "lr_per_256": 256.0, "warmup_epochs": 0, "epoch_size": 100, "decay_staircase": False}
    )
    stairs = 0.97 ** (np.arange(500) // 12)
    np.testing.assert_allclose(smooth[::12], stairs[::12], rtol=1e-6)
    assert (np.diff(smooth) < 0).all()


BY_HAND = (  # two steps an epoch, one epoch of warm-up to 0.8; MindCV's rules but for the last five
    ({"scheduler": "constant"}, "0 0.4 0.8 0.8 0.8 0.8 0.8 0.8 0.8 0.8 0.8 0.8"),
    ({"decay_epochs": 4}, "0 0.4 0.8 0.76955 0.68284 0.55307 0.4 0.24693 0.11716 0.03045 0 0"),
    (
        {"decay_epochs": 4, "min_lr": 0.1},
        "0 0.4 0.8 0.77336 0.69749 0.58394 0.45 0.31606 0.20251 0.12664 0.1 0.1",
    ),
    (
        {"decay_epochs": 2, "num_cycles": 2, "cycle_decay": 0.5},
        "0 0.4 0.8 0.68284 0.4 0.11716 0.4 0.34142 0.2 0.05858 0 0",
    ),
    (
        {"decay_epochs": 4, "lr_epoch_stair": True, "warmup_factor": 0.25},
        "0.2 0.2 0.8 0.8 0.68284 0.68284 0.4 0.4 0.11716 0.11716 0 0",
    ),
    (
        {"scheduler": "exponential_decay", "decay_rate": 0.25},
        "0 0.4 0.8 0.4 0.2 0.1 0.05 0.025 0.0125 0.00625 0.003125 0.0015625",
    ),
    (
        {"scheduler": "exponential_decay", "decay_rate": 0.5, "lr_epoch_stair": True},
        "0 0 0.8 0.8 0.4 0.4 0.2 0.2 0.1 0.1 0.05 0.05",
    ),
    (
        {"scheduler": "step_decay", "decay_rate": 0.5, "decay_epochs": 2},
        "0 0.4 0.8 0.8 0.8 0.8 0.4 0.4 0.4 0.4 0.2 0.2",
    ),
    (
        {"scheduler": "multi_step_decay", "decay_rate": 0.5, "multi_step_decay_milestones": [1, 3]},
        "0 0.4 0.8 0.8 0.4 0.4 0.4 0.4 0.2 0.2 0.2 0.2",
    ),
    (
        {"scheduler": "step_decay", "decay_rate": 0.5, "decay_epochs": 1.5, "decay_from": "start"},
        "0 0.4 0.8 0.4 0.4 0.4 0.2 0.2 0.2 0.1 0.1 0.1",
    ),
    (
        {"scheduler": "constant", "lr_epoch_stair": True, "warmup_epochs": 2.5},
        "0 0 0.32 0.32 0.64 0.64 0.8 0.8 0.8 0.8 0.8 0.8",
    ),
    ({"scheduler": "polynomial_decay", "decay_epochs": 4}, "0 0.4 0.8 0.7 0.6 0.5 0.4 0.3 0.2 0.1 0 0"),
    (
        {"scheduler": "polynomial_decay", "decay_epochs": 2, "poly_power": 2, "min_lr": 0.4},
        "0 0.4 0.8 0.625 0.5 0.425 0.4 0.4 0.4 0.4 0.4 0.4",
    ),
    (
        {"warmup_epochs": 0, "decay_epochs": 6},
        "0.8 0.78637 0.74641 0.68284 0.6 0.50353 0.4 0.29647 0.2 0.11716 0.05359 0.01363",
    ),
)


@pytest.mark.parametrize(("keys", "by_hand"), BY_HAND)
def test_each_schedule_by_hand(keys, by_hand):
    got = rates(2, **{"epoch_size": 6, "warmup_epochs": 1, "lr": 0.8, **keys})
    np.testing.assert_allclose(got, [float(rate) for rate in by_hand.split()], atol=1e-5)
    assert got.dtype == np.float32


BY_EPOCH = {"epoch_size": 30, "lr_epoch_stair": True}
OF_TIMM = {**BY_EPOCH, "decay_from": "start"}


@pytest.mark.parametrize(
    ("keys", "golden"),
    [
        (  # timm 1.0.31: sched="step", decay_epochs=2.4, decay_rate=0.97, warmup_lr=1e-6, warmup_epochs=3
            {
                **AUTHORS,
                **OF_TIMM,
                "lr_per_256": 256 * 0.016,
                "warmup_epochs": 3,
                "warmup_factor": 6.25e-5,
            },
            {0: 1e-6, 1: 0.005334, 2: 0.010667, 3: 0.01552, 4: 0.01552, 5: 0.0150544, 7: 0.0150544, 8: 0.014602768},
        ),
        (  # timm 1.0.31: sched="cosine", num_epochs=30, min_lr=1e-6, warmup_lr=1e-4, warmup_epochs=5
            {**OF_TIMM, "lr": 0.005, "min_lr": 1e-6, "warmup_epochs": 5, "warmup_factor": 0.02},
            {0: 1e-4, 1: 0.00108, 4: 0.00402, 5: 0.0046651305, 6: 0.004522638, 15: 0.0025005, 29: 1.46925225e-5},
        ),
        (  # torch: LinearLR(0.01, total_iters=5), then CosineAnnealingLR(25), as torchvision's references have it
            {**BY_EPOCH, "lr": 0.5, "min_lr": 0.0, "warmup_epochs": 5, "warmup_factor": 0.01},
            {0: 0.005, 1: 0.104, 4: 0.401, 5: 0.5, 6: 0.49802868, 15: 0.32725425, 29: 0.00197132467},
        ),
    ],
    ids=["timm-step", "timm-cosine", "torchvision"],
)
def test_schedules_of_the_libraries(keys, golden):
    got = rates(3, **keys).reshape(30, 3)
    assert (got == got[:, :1]).all()
    for epoch, rate in golden.items():
        assert got[epoch, 0] == pytest.approx(rate, rel=2e-6), epoch


def test_the_rates_of_timms_recipe_for_mnasnet_small():
    """timm's cosine, which counts warm-up's epochs: 0.005 * (1 + cos(pi * 5 / 450)) / 2 after it, 1e-4 at first."""
    recipe = load_recipe(Path(__file__).parents[1] / "configs" / "mnasnet" / "mnasnet_small_timm.yaml")
    got = learning_rates(recipe, Plan.make(recipe, 8 * 256, 0, world_size=8))
    assert got[[0, 1, 5, 225]] == pytest.approx([1e-4, 0.00108, 0.00499847709, 0.0025005], rel=1e-6)
    assert (recipe.opt, recipe.clip_grad, recipe.clip_value) == ("lamb", True, 1.0)


@given(
    keys=st.fixed_dictionaries(
        {
            "scheduler": st.sampled_from(key_table()["scheduler"].rule.choices),
            "epoch_size": st.integers(1, 12),
            "warmup_epochs": st.floats(0, 15),
            "decay_epochs": st.floats(0.1, 30),
            "lr_epoch_stair": st.booleans(),
            "decay_from": st.sampled_from(("start", "warmup")),
        }
    ),
    steps=st.integers(1, 40),
)
def test_no_schedule_leaves_its_bounds_or_turns_round(keys, steps):
    got = rates(steps, lr=0.5, min_lr=0.01, warmup_factor=0.02, multi_step_decay_milestones=[2, 5], **keys)
    assert got.shape == (steps * keys["epoch_size"],)
    assert (got > 0).all()
    assert (got <= 0.5 + 1e-7).all()
    per_stair = steps if keys["lr_epoch_stair"] else 1
    rising = per_stair * int(np.ceil(keys["warmup_epochs"] * steps / per_stair - 1e-9))
    assert (np.diff(got[:rising]) >= -1e-8).all()
    assert (np.diff(got[rising:]) <= 1e-7).all()
