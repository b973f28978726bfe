"""Counting against a plain sort, image by image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mindcv_mnasnet.train.metrics import Counts, count

CLASSES = 7
NUMBERS = st.integers(-3, 3).map(float)  # few values, so that ties are common
LOGITS = st.integers(1, 9).flatmap(lambda rows: arrays.arrays(np.float32, (rows, CLASSES), elements=NUMBERS))


@st.composite
def batches(draw: st.DrawFn, lowest: int = -1) -> tuple[np.ndarray, np.ndarray]:
    logits = draw(LOGITS)
    labels = draw(arrays.arrays(np.int32, len(logits), elements=st.integers(lowest, CLASSES - 1)))
    return logits, labels


def by_sorting(logits: np.ndarray, labels: np.ndarray) -> tuple[int, int, int, float]:
    """Seen, hits and summed loss; labels is a list of sets of right classes, an empty one pads."""
    seen, hits, loss = 0, [0, 0], 0.0
    for row, right in zip(logits.astype(float), labels, strict=True):
        if not right:
            continue
        ranking = sorted(range(len(row)), key=lambda index: (-row[index], index))
        seen += 1
        hits[0] += bool(right & set(ranking[:1]))
        hits[1] += bool(right & set(ranking[:5]))
        probabilities = np.exp(row) / np.exp(row).sum()
        loss += min(-np.log(probabilities[index]) for index in right)
    return seen, *hits, loss


@given(batches())
def test_counts_are_those_of_sorted_rankings_with_ties_by_class_index(batch):
    logits, labels = batch
    got = count(logits, labels)
    seen, top1, top5, loss = by_sorting(logits, [{label} - {-1} for label in labels])
    assert (got.seen, got.top1_hits, got.top5_hits) == (seen, top1, top5)
    assert got.loss == pytest.approx(loss, rel=1e-9, abs=1e-9)


@given(LOGITS, st.data())
def test_any_of_several_labels_is_right(logits, data):
    sets = [data.draw(st.sets(st.integers(0, CLASSES - 1), max_size=3)) for _ in logits]
    labels = np.array([[*right, *[-1] * (3 - len(right))] for right in sets], np.int32)
    got = count(logits, labels)
    seen, top1, top5, loss = by_sorting(logits, sets)
    assert (got.seen, got.top1_hits, got.top5_hits) == (seen, top1, top5)
    assert got.loss == pytest.approx(loss, rel=1e-9, abs=1e-9)


@given(batches(), st.data())
def test_batches_and_padding_may_be_cut_anywhere(batch, data):
    logits, labels = batch
    cut = data.draw(st.integers(0, len(labels)))
    padded = np.concatenate([labels[cut:], np.full(3, -1, np.int32)])
    filler = np.concatenate([logits[cut:], np.zeros((3, CLASSES), np.float32)])
    parts = count(logits[:cut], labels[:cut]) + count(filler, padded)
    whole = count(logits, labels)
    assert (parts.seen, parts.top1_hits, parts.top5_hits) == (whole.seen, whole.top1_hits, whole.top5_hits)
    assert parts.loss == pytest.approx(whole.loss)


@given(batches(lowest=0), st.data())
def test_a_row_with_a_nan_is_wrong_wherever_the_nan_stands(batch, data):
    logits, labels = batch
    row = data.draw(st.integers(0, len(labels) - 1))
    clean = count(np.delete(logits, row, 0), np.delete(labels, row))
    logits[row, data.draw(st.integers(0, CLASSES - 1))] = np.nan
    got = count(logits, labels)
    assert (got.seen, got.top1_hits, got.top5_hits) == (clean.seen + 1, clean.top1_hits, clean.top5_hits)
    assert np.isnan(got.loss)


def test_a_network_that_says_nothing_gains_nothing():
    labels = np.arange(1000, dtype=np.int32)
    got = count(np.zeros((1000, 1000), np.float32), labels)
    assert (got.top1_hits, got.top5_hits) == (1, 5)
    assert got.mean_loss == pytest.approx(np.log(1000))


def test_huge_logits_do_not_overflow():
    logits = np.array([[60000, -60000, 0]], np.float16)
    assert count(logits, np.array([0])) == Counts(1, 1, 1, 0.0)
    assert count(logits, np.array([1])).loss == pytest.approx(120000, rel=0.01)


def test_fewer_than_five_classes_are_all_among_the_first_five():
    assert count(np.zeros((2, 3)), np.array([2, 1])).top5_hits == 2
    assert count(np.full((2, 3), np.nan), np.array([2, 1])).top5_hits == 0


def test_percentages_and_mean_loss():
    counts = Counts(8, 2, 6, 4.0)
    assert counts.to_dict() == {"top1": 25.0, "top5": 75.0, "loss": 0.5, "images": 8}


def test_nothing_seen_has_no_accuracy():
    counts = count(np.zeros((2, 4)), np.array([-1, -1]))
    assert counts == Counts()
    assert all(np.isnan([counts.top1, counts.top5, counts.mean_loss]))
    assert counts + Counts(3, 1, 2, 1.5) == Counts(3, 1, 2, 1.5)
