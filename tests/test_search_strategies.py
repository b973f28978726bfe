"""Strategies of a search: seeds, states, limits, what they learn."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.latency.agreement import agreement
from mindcv_mnasnet.search.predictor import leave_one_out
from mindcv_mnasnet.search.space_files import read_space
from mindcv_mnasnet.search.strategies import make_strategy
from mindcv_mnasnet.search.strategy import Outcome

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


def _play(player, generations, begin=0):
    """Generations against a reward that counts tokens of 0; returns the mean reward of each."""
    means = []
    for generation in range(begin, begin + generations):
        asked = player.ask(generation, 8)
        rewards = [sum(token == 0 for token in tokens) / SPACE.length for tokens in asked]
        told = zip(asked, rewards, strict=True)
        player.tell(generation, [Outcome(tokens, reward, reward, 10 - reward) for tokens, reward in told])
        means.append(float(np.mean(rewards)))
    return means


@pytest.fixture(scope="module")
def compiled():
    """Controllers whose graphs are compiled."""
    return []


@pytest.fixture
def strategy(compiled):
    """Makes strategies on SPACE; one that is a compiled controller begins with the state of a new one."""
    spare = list(compiled)

    def make(name, seed=3):
        if name == "nsga2":
            pytest.importorskip("optuna")
        new = make_strategy(name, SPACE, seed)
        if name != "controller":
            return new
        if not spare:
            compiled.append(new)
            return new
        one = spare.pop()
        one.load(new.state())
        one._seed = seed
        return one

    return make


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_goes_on_from_its_state_as_if_never_stopped(name, strategy):
    straight = strategy(name)
    _play(straight, 5)
    state = {key: np.array(value) for key, value in straight.state().items()}
    rest = _play(straight, 3, begin=5)
    second = strategy(name)
    second.load(state)
    assert _play(second, 3, begin=5) == rest
    assert second.ask(8, 8) == straight.ask(8, 8)


@pytest.mark.parametrize("name", STRATEGIES)
def test_equal_seeds_ask_alike_and_others_do_not(name, strategy):
    asked = [strategy(name, seed).ask(0, 6) for seed in (1, 1, 2)]
    assert asked[0] == asked[1] != asked[2]
    for tokens in asked[0]:
        assert len(SPACE.blocks(tokens)) == 2


@pytest.mark.parametrize("name", STRATEGIES)
def test_only_acceptable_networks_are_asked_for(name, strategy):
    asked = strategy(name).ask(0, 10, lambda tokens: tokens[0] == 1)
    assert len(asked) == 10
    assert {tokens[0] for tokens in asked} == {1}


@pytest.mark.parametrize("name", ["random", "evolution"])
def test_limits_that_nothing_keeps_end_with_a_sentence(name, strategy):
    with pytest.raises(UserError, match="none of 2000 networks"):
        strategy(name).ask(0, 1, lambda tokens: False)


@pytest.mark.parametrize("name", ["evolution", "controller"])
def test_a_strategy_learns_what_is_rewarded(name, strategy):
    means = _play(strategy(name), 60)
    assert np.mean(means[-5:]) > np.mean(means[:5]) + 0.1


LOST = [Outcome((0,) * SPACE.length, 0.0, informative=informative) for informative in (True, False) for _ in range(4)]


@pytest.mark.slow
def test_a_controller_survives_a_lost_generation(strategy):
    """Eight trainings that all failed: as good in the end as if it had not happened."""
    undisturbed, disturbed = strategy("controller"), strategy("controller")
    whole = _play(undisturbed, 150)
    first = _play(disturbed, 30)
    disturbed.tell(30, LOST)
    rest = _play(disturbed, 119, begin=31)
    assert first == whole[:30]
    assert np.mean(rest[-10:]) > 0.9
    assert np.mean(rest[-10:]) == pytest.approx(np.mean(whole[-10:]), abs=0.01)


def test_failures_of_a_device_are_no_low_rewards(strategy):
    """A strategy is the same whether or not it was told of trials that a device lost."""
    for name in ("evolution", "controller", "predictor"):
        told, spared = strategy(name), strategy(name)
        outcomes = [Outcome(tokens, 0.1 * place, 0.1 * place) for place, tokens in enumerate(told.ask(0, 8))]
        told.tell(0, [*outcomes, *LOST[4:]])
        spared.tell(0, outcomes)
        assert told.state().keys() == spared.state().keys()
        for key, value in spared.state().items():
            np.testing.assert_array_equal(told.state()[key], value)


def test_old_log_probabilities_are_of_the_policy_before_the_first_update(strategy, monkeypatch):
    """Of all minibatches of a generation: the second one's too."""
    controller = strategy("controller")
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
            one = make_strategy(name, SPACE, seed, 12)
            means.append(_play(one, 5)[-1])
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


def test_an_unknown_strategy_lists_those_there_are():
    with pytest.raises(UserError, match="can be controller, random, evolution, nsga2, predictor"):
        make_strategy("annealing", SPACE, 0)


def test_leaving_one_out_says_how_well_a_predictor_ranks():
    rng = np.random.default_rng(0)
    known = {tokens: float(sum(tokens)) for tokens in (SPACE.random(rng) for _ in range(60))}
    predicted = leave_one_out(SPACE, known)
    assert agreement(predicted, list(known.values())).spearman > 0.95
