"""Rewards, trials and figures of a search, each alone."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.latency.agreement import agreement, interval_of_ranks
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.search.results import best, best_feasible, expected_best, front, hypervolume
from mindcv_mnasnet.search.reward import EXPONENTS, Reward
from mindcv_mnasnet.search.surrogate import surrogate_accuracy, surrogate_latency_ms
from mindcv_mnasnet.search.trials import Trial, TrialLog

accuracies, latencies = st.floats(0, 1), st.floats(1e-3, 1e4)


def trial(number, accuracy=0.5, latency_ms=10.0, reward=None, **fields):
    values = {"generation": 0, "tokens": (number,), "blocks": (f"b{number}",), "status": "ok", "seed": 0}
    values |= {"params": 1, "madds": 1, "accuracy": accuracy, "latency_ms": latency_ms}
    return Trial(number=number, **{**values, "reward": accuracy if reward is None else reward, **fields})


@pytest.mark.parametrize(("latency", "soft", "hard"), [(80, 0.5, 0.5), (40, 0.52486, 0.5), (160, 0.47632, 0.25)])
def test_rewards_of_figure_3(latency, soft, hard):
    """Figure 3 of the paper: accuracy 0.5, target 80 ms; doubling the latency costs 5 % or half."""
    assert Reward(80.0, *EXPONENTS["soft"])(0.5, latency) == pytest.approx(soft, abs=1e-4)
    assert Reward(80.0, *EXPONENTS["hard"])(0.5, latency) == pytest.approx(hard, abs=1e-4)


@given(accuracies, latencies, st.sampled_from(list(EXPONENTS.values())))
def test_a_reward_is_bounded_and_falls_with_latency(accuracy, latency, exponents):
    reward = Reward(75.0, *exponents)
    assert 0 <= reward(accuracy, latency) <= 2
    assert reward(accuracy, 2 * latency) <= reward(accuracy, latency)


@pytest.mark.parametrize("broken", [(float("nan"), 10.0), (0.5, float("nan")), (0.5, 0.0), (0.5, float("inf"))])
def test_what_is_no_number_is_worth_nothing(broken):
    assert Reward(75.0)(*broken) == 0


def test_impossible_rewards_are_refused():
    with pytest.raises(UserError, match="target_ms is 0"):
        Reward(0)
    with pytest.raises(UserError, match="beta is 1"):
        Reward(1.0, 0.0, 1)


def test_trials_are_read_as_they_were_written(tmp_path):
    log = TrialLog(tmp_path / "trials.jsonl")
    trials = [trial(0), trial(1, None, None, 0.0, status="failed", reason="é"), trial(-1, name="b1", tokens=())]
    log.append(trials[0])
    log.append(*trials[1:])
    assert log.read() == trials


def test_trials_of_schema_1_are_read(tmp_path):
    log = TrialLog(tmp_path / "trials.jsonl")
    stored = json.loads(trial(0).to_json())
    del stored["rung"], stored["loss"], stored["images"]
    log.path.write_text(json.dumps({**stored, "schema": 1}) + "\n")
    assert log.read() == [trial(0)]


def test_a_line_that_was_cut_short_is_dropped_for_good(tmp_path):
    log = TrialLog(tmp_path / "trials.jsonl")
    log.append(trial(0), trial(1))
    content = log.path.read_bytes()
    for cut in range(1, 40):
        log.path.write_bytes(content[:-cut])
        assert log.read(repair=True) == [trial(0)]
        log.append(trial(2))
        assert log.read() == [trial(0), trial(2)]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "not a trial"),
        ('{"schema": 9}', "has schema 9"),
        ('{"schema": 2}', "missing or unknown keys"),
        (trial(0).to_json().replace('"ok"', '"okay"'), "unknown status"),
    ],
)
def test_a_damaged_trial_file_is_refused(tmp_path, line, sentence):
    log = TrialLog(tmp_path / "trials.jsonl")
    log.path.write_text(line + "\n")
    with pytest.raises(UserError, match=sentence):
        log.read()


def test_the_surrogate_is_a_function_of_the_network():
    a1 = resolve("mnasnet-a1")
    assert surrogate_accuracy(a1) == surrogate_accuracy(a1) != surrogate_accuracy(a1, seed=1)
    assert surrogate_latency_ms(a1) == pytest.approx(78, rel=0.05)  # what it is made to give, a Pixel 1's
    assert surrogate_latency_ms(resolve("mnasnet-a1", width_mult=0.5)) < surrogate_latency_ms(a1)


def test_the_front_has_what_nothing_beats():
    trials = [trial(n, accuracy, ms) for n, (accuracy, ms) in enumerate([(0.5, 10), (0.6, 20), (0.55, 25), (0.5, 9)])]
    assert [one.number for one in front(trials)] == [3, 1]
    assert hypervolume(trials, 30.0) == pytest.approx((0.5 * (30 - 9) + 0.1 * (30 - 20)) / 30)


@given(st.lists(st.tuples(accuracies, latencies), min_size=1, max_size=20))
def test_nothing_tried_beats_the_front(points):
    trials = [trial(n, accuracy, ms) for n, (accuracy, ms) in enumerate(points)]
    chosen = front(trials)
    assert all(a.latency_ms < b.latency_ms and a.accuracy < b.accuracy for a, b in itertools.pairwise(chosen))
    for one in trials:
        assert any(two.accuracy >= one.accuracy and two.latency_ms <= one.latency_ms for two in chosen)


def test_the_best_are_different_networks_that_succeeded():
    trials = [trial(0, 0.9, 5, blocks=("a",)), trial(1, 0.9, 5, blocks=("a",), repeats=0), trial(2, 0.8, 5)]
    trials.append(trial(3, 0.99, 5, status="failed"))
    assert [one.number for one in best(trials, 5)] == [0, 2]
    assert best_feasible(trials, 1.0) is None
    assert best_feasible(trials, 5.0).number == 0


def test_the_expected_best_of_random_search_is_the_mean_over_all_draws():
    values = [0.1, 0.4, 0.2]
    expected = [np.mean([max(draw) for draw in itertools.product(values, repeat=n)]) for n in (1, 2, 3)]
    np.testing.assert_allclose(expected_best(values, 3), expected)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("", "trial 7"),
        ("mnasnet_small@0.5", "mnasnet_small@0.5"),
        ("/a/b@c/own.yaml", "own"),
        ("/a/b@c/own.yaml@0.625", "own@0.625"),
    ],
)
def test_reports_name_a_reference_without_its_folder(name, label):
    assert trial(7, name=name).label == label


def test_agreement_is_of_ranks():
    found = agreement([1, 2, 3, 4], [10, 20, 40, 30])
    assert (found.spearman, found.kendall) == (pytest.approx(0.8), pytest.approx(4 / 6))
    with pytest.raises(UserError, match="3 pairs"):
        agreement([1, 2], [1, 2])


def test_the_bootstrap_of_ranks_is_scipys():
    rng = np.random.default_rng(1)
    a = rng.normal(size=24)
    b = a + rng.normal(size=24)
    low, high = interval_of_ranks(a, b)
    theirs = stats.bootstrap(
        (a, b), lambda x, y: stats.spearmanr(x, y).statistic, paired=True, vectorized=False, method="percentile",
        n_resamples=1000, random_state=2,
    ).confidence_interval  # fmt: skip
    assert (low, high) == (pytest.approx(theirs.low, abs=0.05), pytest.approx(theirs.high, abs=0.05))
    assert low < agreement(a, b).spearman < high
    assert interval_of_ranks([1, 2, 3, 4], [2, 3, 4, 9]) == (pytest.approx(1), pytest.approx(1))
    assert np.isnan(interval_of_ranks([1, 1, 1], [1, 2, 3])).all()


def test_a_trial_is_one_line_of_plain_json():
    stored = json.loads(trial(7).to_json())
    assert stored["schema"] == 2
    assert "\n" not in trial(7).to_json()
