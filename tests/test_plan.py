"""Derived numbers of a job."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import load_recipe

IMAGENET = (1281167, 50000)


def plan(images: int | None = 1000, val: int = 100, world: int = 1, cores: int = 8, **keys) -> Plan:
    return Plan.make(load_recipe(overrides=keys), images, val, world, cores)


def test_imagenet_on_eight_devices_by_hand():
    made = plan(*IMAGENET, world=8, batch_size=256, epoch_size=350, warmup_epochs=5, lr=0.016)
    assert (made.global_batch, made.steps_per_epoch, made.total_steps) == (2048, 625, 218750)  # 1281167 / 2048 = 625.6
    assert made.warmup_steps == 3125
    assert made.peak_lr == 0.016
    assert made.val_batches == 25  # 6250 images per device, 24.4 batches of 256


def test_the_peak_rate_follows_the_whole_global_batch():
    made = plan(*IMAGENET, world=8, batch_size=128, gradient_accumulation_steps=2, lr_per_256=0.016)
    assert made.global_batch == 2048
    assert made.peak_lr == pytest.approx(0.128)
    assert made.batches_per_epoch == 2 * made.steps_per_epoch == 1250


@given(
    images=st.integers(1, 5000), batch=st.integers(1, 64), world=st.integers(1, 8), accumulation=st.integers(1, 4),
    drop=st.booleans(),
)  # fmt: skip
def test_an_epoch_is_whole_steps_and_covers_what_it_can(images, batch, world, accumulation, drop):
    per_step = batch * world * accumulation
    keys = {"batch_size": batch, "gradient_accumulation_steps": accumulation, "drop_remainder": drop, "lr": 1.0}
    if drop and images < per_step:
        with pytest.raises(UserError, match="drop_remainder False"):
            plan(images, world=world, **keys)
        return
    made = plan(images, world=world, **keys)
    assert made.batches_per_epoch == made.steps_per_epoch * accumulation
    missed = images - made.steps_per_epoch * per_step
    assert 0 <= missed < per_step if drop else -per_step < missed <= 0


@given(images=st.integers(1, 5000), batch=st.integers(1, 300), world=st.integers(1, 8))
def test_validation_batches_hold_every_image(images, batch, world):
    made = plan(None, images, world, val_batch_size=batch)
    assert made.val_batches * made.val_batch * world >= images
    assert (made.val_batches - 1) * made.val_batch * world < images
    assert made.val_batch <= batch


def test_num_samples_limits_the_images_and_no_image_is_an_error():
    assert plan(1000, num_samples=300, batch_size=100).steps_per_epoch == 3
    assert plan(100, num_samples=300, batch_size=100).train_images == 100
    for drop in (True, False):
        with pytest.raises(UserError, match="0 training images"):
            plan(0, drop_remainder=drop)


def test_a_warmup_of_fractional_epochs_stays_exact():
    assert plan(1000, batch_size=100, warmup_epochs=0.25).warmup_steps == 2.5


def test_workers_are_clamped_and_it_is_said_once():
    made = plan(cores=2, num_parallel_workers=8)
    assert made.workers == 2
    assert [note for note in made.notes if "num_parallel_workers" in note] == list(made.notes)
    assert plan(cores=8, num_parallel_workers=8).notes == ()


def test_a_floor_above_the_derived_peak_is_refused():
    with pytest.raises(UserError, match="min_lr"):
        plan(1000, batch_size=1, lr_per_256=0.001, min_lr=1e-4)


def test_when_to_log_validate_and_save():
    keys = {"batch_size": 100, "epoch_size": 5, "log_interval": 20, "val_while_train": True, "val_interval": 2}
    made = plan(1000, ckpt_save_interval=2, ckpt_save_steps=15, **keys)
    steps = range(1, made.total_steps + 1)
    assert [step for step in steps if made.logs(step)] == [1, 20, 40, 50]
    assert [step for step in steps if made.saves(step)] == [15, 20, 30, 40, 45, 50]
    assert [epoch for epoch in range(1, 6) if made.validates(epoch)] == [2, 4, 5]
    assert not any(plan(val=0, val_while_train=True).validates(epoch) for epoch in range(1, 91))
