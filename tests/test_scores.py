"""What is reported of an epoch: the numbers of the better of raw and averaged weights, all of the same set."""

from __future__ import annotations

import pytest

from mindcv_mnasnet.run.scores import better_weights, of_better_weights, score_of

RAW_WINS = {"val_top1": 90.0, "val_top5": 99.0, "val_loss": 0.5, "val_top1_ema": 40.0, "val_top5_ema": 70.0}
AVERAGES_WIN = {"val_top1": 90.0, "val_top5": 99.0, "val_loss": 0.5, "val_top1_ema": 91.0, "val_top5_ema": 98.0}


@pytest.mark.parametrize(
    ("metrics", "weights", "top1", "top5"),
    [
        (RAW_WINS, "raw", 90.0, 99.0),
        (AVERAGES_WIN, "ema", 91.0, 98.0),
        ({"val_top1": 90.0, "val_top5": 99.0}, "ema", 90.0, 99.0),
    ],
    ids=["raw wins", "averages win", "no averages"],
)
def test_all_numbers_are_of_the_better_weights(metrics, weights, top1, top5):
    assert better_weights(metrics) == weights
    assert score_of(metrics) == of_better_weights(metrics, "top1") == top1
    assert of_better_weights(metrics, "top5") == top5


def test_a_detector_is_scored_by_its_ap():
    metrics = {"val_ap": 44.0, "val_ap_ema": 21.0, "val_ap50": 68.0, "val_ap50_ema": 36.0}
    assert score_of(metrics) == 44.0
    assert of_better_weights(metrics, "ap50") == 68.0


def test_what_was_not_measured_has_no_score():
    assert score_of({"train_loss": 1.0}) is None
    assert of_better_weights({"train_loss": 1.0}, "top1") is None
