"""Rewards, trials, strategies and figures of a search, each alone."""

from __future__ import annotations

import itertools
import json

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.latency.agreement import agreement
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.search.predictor import leave_one_out
from mindcv_mnasnet.search.results import best, best_feasible, expected_best, front, hypervolume
from mindcv_mnasnet.search.reward import EXPONENTS, Reward
from mindcv_mnasnet.search.space_files import read_space
from mindcv_mnasnet.search.strategies import make_strategy
from mindcv_mnasnet.search.strategy import Outcome
from mindcv_mnasnet.search.surrogate import surrogate_accuracy, surrogate_latency_ms
from mindcv_mnasnet.search.trials import Trial, TrialLog

SPACE = read_space(
    "tiny",
    {
        "stem": 8,
        "strides": [1, 2],
        "filters": [8, 16],
        "layers": [2, 2],
        "decisions": {"operator": ["sepconv", "mbconv3", "mbconv6"], "kernel": [3, 5], "layers": [-1, 0, 1]},
    },
)
STRATEGIES = ("random", "evolution", "nsga2", "controller", "predictor")
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
        assert log.read() == [trial(0)]
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


def _play(strategy, space, generations, begin=0):
    """Generations against a reward that counts tokens of 0; returns the mean reward of each."""
    means = []
    for generation in range(begin, begin + generations):
        asked = strategy.ask(generation, 8)
        rewards = [sum(token == 0 for token in tokens) / space.length for tokens in asked]
        told = zip(asked, rewards, strict=True)
        strategy.tell(generation, [Outcome(tokens, reward, reward, 10 - reward) for tokens, reward in told])
        means.append(float(np.mean(rewards)))
    return means


def _strategy(name, space, seed=3):
    if name == "nsga2":
        pytest.importorskip("optuna")
    return make_strategy(name, space, seed)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_goes_on_from_its_state_as_if_never_stopped(name):
    space = SPACE
    straight = _strategy(name, space)
    whole = _play(straight, space, 8)
    first = _strategy(name, space)
    _play(first, space, 5)
    second = _strategy(name, space)
    second.load({key: np.array(value) for key, value in first.state().items()})
    assert _play(second, space, 3, begin=5) == whole[5:]
    assert second.ask(8, 8) == straight.ask(8, 8)


@pytest.mark.parametrize("name", STRATEGIES)
def test_equal_seeds_ask_alike_and_others_do_not(name):
    space = SPACE
    asked = [_strategy(name, space, seed).ask(0, 6) for seed in (1, 1, 2)]
    assert asked[0] == asked[1] != asked[2]
    for tokens in asked[0]:
        assert len(space.blocks(tokens)) == 2


@pytest.mark.parametrize("name", STRATEGIES)
def test_only_acceptable_networks_are_asked_for(name):
    space = SPACE
    asked = _strategy(name, space).ask(0, 10, lambda tokens: tokens[0] == 1)
    assert len(asked) == 10
    assert {tokens[0] for tokens in asked} == {1}


@pytest.mark.parametrize("name", ["random", "evolution"])
def test_limits_that_nothing_keeps_end_with_a_sentence(name):
    with pytest.raises(UserError, match="none of 2000 networks"):
        _strategy(name, SPACE).ask(0, 1, lambda tokens: False)


@pytest.mark.parametrize("name", ["evolution", "controller"])
def test_a_strategy_learns_what_is_rewarded(name):
    space = SPACE
    means = _play(_strategy(name, space), space, 60)
    assert np.mean(means[-5:]) > np.mean(means[:5]) + 0.1


LOST = [Outcome((0,) * SPACE.length, 0.0, informative=informative) for informative in (True, False) for _ in range(4)]


def test_a_controller_survives_a_lost_generation():
    """Eight trainings that all failed: as good in the end as if it had not happened."""
    undisturbed, disturbed = _strategy("controller", SPACE), _strategy("controller", SPACE)
    whole = _play(undisturbed, SPACE, 150)
    first = _play(disturbed, SPACE, 30)
    disturbed.tell(30, LOST)
    rest = _play(disturbed, SPACE, 119, begin=31)
    assert first == whole[:30]
    assert np.mean(rest[-10:]) > 0.9
    assert np.mean(rest[-10:]) == pytest.approx(np.mean(whole[-10:]), abs=0.01)


def test_failures_of_a_device_are_no_low_rewards():
    """A strategy is the same whether or not it was told of trials that a device lost."""
    for name in ("evolution", "controller", "predictor"):
        told, spared = _strategy(name, SPACE), _strategy(name, SPACE)
        outcomes = [Outcome(tokens, 0.1 * place, 0.1 * place) for place, tokens in enumerate(told.ask(0, 8))]
        told.tell(0, [*outcomes, *LOST[4:]])
        spared.tell(0, outcomes)
        assert told.state().keys() == spared.state().keys()
        for key, value in spared.state().items():
            np.testing.assert_array_equal(told.state()[key], value)


def test_old_log_probabilities_are_of_the_policy_before_the_first_update(monkeypatch):
    """Of all minibatches of a generation: the second one's too."""
    controller = _strategy("controller", SPACE)
    asked = controller.ask(0, 40)
    chosen = np.eye(controller._policy.most, dtype=np.float32)[np.array(asked)]
    expected = [controller._likelihood(ms.Tensor(chosen[start : start + 20])).asnumpy() for start in (0, 20)]
    update, seen = controller._update, []

    class Watched:
        def __getattr__(self, name):
            return getattr(update, name)

        def __call__(self, rows, old, *rest):
            seen.append(old.asnumpy())
            return update(rows, old, *rest)

    monkeypatch.setattr(controller, "_update", Watched())
    controller.tell(0, [Outcome(tokens, float(place), 0.5) for place, tokens in enumerate(asked)])
    assert len(seen) == 4  # two passes over two minibatches
    for place, old in enumerate(seen):
        np.testing.assert_allclose(old, expected[place % 2], atol=1e-6)
    assert not np.allclose(controller._likelihood(ms.Tensor(chosen[:20])).asnumpy(), expected[0], atol=1e-6)


def test_nsga2_takes_the_target_for_a_constraint():
    """Where accuracy rises with latency, most of what it breeds is within the target."""
    pytest.importorskip("optuna")
    shares = {}
    for target in (None, 4.0):
        strategy = make_strategy("nsga2", SPACE, 3, 8, target)
        for generation in range(30):
            asked = strategy.ask(generation, 8)
            latencies = [1.0 + sum(tokens) for tokens in asked]
            told = zip(asked, latencies, strict=True)
            strategy.tell(generation, [Outcome(tokens, 0.0, ms / 20, ms) for tokens, ms in told])
        shares[target] = np.mean([ms <= 4.0 for ms in latencies])
    assert shares[4.0] > shares[None] + 0.3


def test_a_predictor_finds_more_than_evolution_does_with_few_trials():
    best = {}
    for name in ("predictor", "evolution"):
        means = []
        for seed in range(5):
            strategy = make_strategy(name, SPACE, seed, 12)
            means.append(_play(strategy, SPACE, 5)[-1])
        best[name] = np.mean(means)
    assert best["predictor"] > best["evolution"] + 0.05


def test_a_predictor_asks_for_no_network_twice():
    strategy = make_strategy("predictor", SPACE, 0, 8)
    asked = []
    for generation in range(8):
        new = strategy.ask(generation, 6)
        asked += new
        strategy.tell(generation, [Outcome(tokens, -sum(tokens), 0.5) for tokens in new])
    assert len(set(asked)) == len(asked) == 48


def test_leaving_one_out_says_how_well_a_predictor_ranks():
    rng = np.random.default_rng(0)
    known = {tokens: float(sum(tokens)) for tokens in (SPACE.random(rng) for _ in range(60))}
    predicted = leave_one_out(SPACE, known)
    assert agreement(predicted, list(known.values())).spearman > 0.95


def test_an_unknown_strategy_lists_those_there_are():
    with pytest.raises(UserError, match="can be controller, random, evolution, nsga2, predictor"):
        make_strategy("annealing", SPACE, 0)


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


def test_agreement_is_of_ranks():
    found = agreement([1, 2, 3, 4], [10, 20, 40, 30])
    assert (found.spearman, found.kendall) == (pytest.approx(0.8), pytest.approx(4 / 6))
    with pytest.raises(UserError, match="3 pairs"):
        agreement([1, 2], [1, 2])


def test_a_trial_is_one_line_of_plain_json():
    stored = json.loads(trial(7).to_json())
    assert stored["schema"] == 2
    assert "\n" not in trial(7).to_json()
