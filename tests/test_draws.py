"""Random numbers of a step: what they depend on, and how they are distributed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mindcv_mnasnet.train.random_inputs import RandomLayout, draw_inputs

ALL = RandomLayout(32, drop_columns=3, mixup=0.8, cutmix=1.0, erase_prob=0.5)
SEEDS, STEPS, RANKS = st.integers(0, 2**31 - 1), st.integers(0, 2**40), st.integers(0, 4095)
SIZES = st.integers(16, 1024)


def rows(layout: RandomLayout, steps: int, batch: int = 1, seed: int = 0) -> np.ndarray:
    """The random_inputs of many steps below each other."""
    return np.concatenate([draw_inputs(layout, batch, seed, step, 0) for step in range(steps)])


@given(SEEDS, STEPS, RANKS, st.integers(1, 9))
def test_equal_seed_step_and_rank_draw_the_same_whatever_was_drawn_before(seed, step, rank, batch):
    first = draw_inputs(ALL, batch, seed, step, rank)
    draw_inputs(ALL, 3, seed + 1, step + 5, rank)
    np.random.random(3)  # the global generator has no part in it
    again = draw_inputs(ALL, batch, seed, step, rank)
    assert first.dtype == np.float32
    assert first.shape == (batch, ALL.columns)
    np.testing.assert_array_equal(first, again)


@given(SEEDS, STEPS, RANKS, SEEDS, STEPS, RANKS)
def test_another_seed_step_or_rank_draws_other_numbers(seed, step, rank, seed2, step2, rank2):
    assume((seed, step, rank) != (seed2, step2, rank2))
    layout = RandomLayout(32, drop_columns=8)
    assert not np.array_equal(draw_inputs(layout, 4, seed, step, rank), draw_inputs(layout, 4, seed2, step2, rank2))


@given(SEEDS, STEPS, RANKS)
def test_mixing_is_the_same_over_ranks_and_rows_and_the_rest_is_not(seed, step, rank):
    mine, other = draw_inputs(ALL, 4, seed, step, rank), draw_inputs(ALL, 4, seed, step, rank + 1)
    mixing = mine[:, : ALL.mix_end]
    np.testing.assert_array_equal(mixing, np.broadcast_to(mixing[0], mixing.shape))
    np.testing.assert_array_equal(mixing, other[:, : ALL.mix_end])
    assert not np.array_equal(mine[:, ALL.erase_end :], other[:, ALL.erase_end :])


@given(SEEDS, st.sampled_from([{"mixup": 0.0, "cutmix": 0.0}, {"erase_prob": 0.0}]))
def test_switching_augmentation_off_removes_its_columns(seed, off):
    layout = replace(ALL, **off)
    drawn = draw_inputs(layout, 4, seed, 3, 0)
    assert drawn.shape == (4, layout.columns)
    assert layout.columns == ALL.columns - (6 if "mixup" in off else 4)
    if "mixup" in off:  # mixing has a stream of its own, so that the ranks agree on it
        np.testing.assert_array_equal(drawn, draw_inputs(ALL, 4, seed, 3, 0)[:, 6:])


def test_a_plain_step_draws_nothing():
    assert RandomLayout(224).columns == 0
    assert draw_inputs(RandomLayout(224), 8, 0, 0, 0).shape == (8, 0)


def test_dropping_numbers_are_uniform_below_one():
    drawn = rows(RandomLayout(32, drop_columns=50), 200, batch=10).ravel()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts, _ = np.histogram(drawn, 20, (0, 1))
    expected = drawn.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 52.6  # chi-square, 19 degrees of freedom, p = 5e-5


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
def test_mixup_weights_follow_their_beta_distribution(alpha):
    drawn = rows(RandomLayout(32, mixup=alpha), 2000)
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 5])
    assert not drawn[:, 1:5].any()
    assert drawn[:, 0].mean() == pytest.approx(0.5, abs=0.04)
    assert drawn[:, 0].var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)  # of Beta(a, a)


@given(SIZES, SEEDS)
def test_cutmix_labels_weigh_the_area_that_is_left(size, seed):
    for weight, y0, y1, x0, x1, label in draw_inputs(RandomLayout(size, cutmix=1.0), 2, seed, 0, 0):
        assert weight == 1
        assert 0 <= y0 <= y1 <= size
        assert 0 <= x0 <= x1 <= size
        assert label == pytest.approx(1 - (y1 - y0) * (x1 - x0) / size**2, abs=1e-6)


def test_cutmix_boxes_are_square_inside_and_cut_at_the_border():
    drawn = rows(RandomLayout(64, cutmix=1.0), 2000)
    heights, widths = drawn[:, 2] - drawn[:, 1], drawn[:, 4] - drawn[:, 3]
    whole = (drawn[:, 1:4:2] > 0).all(1) & (drawn[:, 2:5:2] < 64).all(1)
    assert whole.sum() > 200
    assert np.abs(heights - widths)[whole].max() <= 1
    assert (heights != widths)[~whole].any()
    # Expected share of a box of relative side s with a uniform center is (s - s^2 / 4)^2; s^2 is uniform for alpha 1.
    assert (1 - drawn[:, 5]).mean() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.02)


@pytest.mark.parametrize(("mixup", "cutmix", "share_cut"), [(0.8, 1.0, 0.5), (0.8, 0.0, 0.0), (0.0, 1.0, 1.0)])
def test_mixup_and_cutmix_take_turns_with_equal_chance(mixup, cutmix, share_cut):
    drawn = rows(RandomLayout(64, mixup=mixup, cutmix=cutmix), 1000)
    assert (drawn[:, 0] == 1).mean() == pytest.approx(share_cut, abs=0.05)


def test_mixing_can_spare_batches():
    drawn = rows(RandomLayout(64, mixup=1.0, mix_prob=0.3), 1000)
    assert (drawn[:, 0] < 1).mean() == pytest.approx(0.3, abs=0.05)
    assert set(drawn[drawn[:, 0] == 1][:, 5]) == {1.0}


@given(
    SIZES,
    SEEDS,
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted).map(tuple),
    st.tuples(st.floats(0.05, 20), st.floats(0.05, 20)).map(sorted).map(tuple),
)
def test_erased_boxes_lie_inside_the_image(size, seed, scale, ratio):
    drawn = draw_inputs(RandomLayout(size, erase_prob=1.0, erase_scale=scale, erase_ratio=ratio), 16, seed, 1, 0)
    np.testing.assert_array_equal(drawn, np.rint(drawn))
    y0, y1, x0, x1 = drawn.T
    assert (y0 >= 0).all()
    assert (y1 >= y0).all()
    assert (y1 <= size).all()
    assert (x0 >= 0).all()
    assert (x1 >= x0).all()
    assert (x1 <= size).all()


def test_erased_areas_and_shapes_are_those_asked_for():
    y0, y1, x0, x1 = rows(RandomLayout(1000, erase_prob=1.0), 100, batch=20).T.astype(float)
    area, log_ratio = (y1 - y0) * (x1 - x0) / 1e6, np.log((y1 - y0) / (x1 - x0))
    assert area.min() >= 0.0195
    assert area.max() <= 0.3305
    assert area.mean() == pytest.approx(0.175, abs=0.01)
    assert np.exp(log_ratio.min()) == pytest.approx(0.3, rel=0.05)
    assert np.exp(log_ratio.max()) == pytest.approx(3.3, rel=0.05)
    assert log_ratio.mean() == pytest.approx(0, abs=0.06)  # log-uniform: tall and wide alike
    center = (y0 + y1) / 2000
    assert center.mean() == pytest.approx(0.5, abs=0.02)


def test_erasing_spares_its_share_of_images():
    drawn = rows(RandomLayout(64, erase_prob=0.25), 50, batch=20)
    assert drawn.any(1).mean() == pytest.approx(0.25, abs=0.05)


def test_a_box_that_never_fits_erases_nothing():
    drawn = draw_inputs(RandomLayout(16, erase_prob=1.0, erase_scale=(1.0, 1.0), erase_ratio=(3.0, 3.3)), 8, 0, 0, 0)
    assert not drawn.any()
