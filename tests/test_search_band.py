"""Latency in turns, the band of latencies, rungs and finalists, and what the report says of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import yaml
from processes import PLAIN, write_recipe

from mindcv_mnasnet.latency import turns
from mindcv_mnasnet.latency.record import Latency
from mindcv_mnasnet.latency.table import parts_of
from mindcv_mnasnet.latency.turns import LEAST_TURNS, TurnsMeter, in_turns
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.search import anchor, band, runner
from mindcv_mnasnet.search.candidates import network_key, reference_network
from mindcv_mnasnet.search.folder import SearchFolder
from mindcv_mnasnet.search.pools import Result
from mindcv_mnasnet.search.report import write_report
from mindcv_mnasnet.search.results import ranked, read_again, standing
from mindcv_mnasnet.search.runner import Search
from mindcv_mnasnet.search.settings import changed, load_settings
from mindcv_mnasnet.search.trials import TrialLog

SPACE = {
    "stem": 8,
    "strides": [1, 2, 1],
    "filters": [16, 32, 32],
    "layers": [1, 2, 2],
    "decisions": {"operator": ["conv", "sepconv", "mbconv3"], "kernel": [3, 5], "filters": [0.5, 1], "layers": [-1, 0]},
}
ANCHOR = ["r1_k3_s11_e1_o16", "r2_k3_s22_e3_o32", "r1_k5_s11_e3_o32"]


class Machine:
    """A device whose clock drifts by up to 40 % in steps, and whose calls differ by 2 %."""

    def __init__(self, seed=0, noise=0.02, creep=0.0):
        self.rng, self.calls, self.noise, self.creep = np.random.default_rng(seed), 0, noise, creep

    def time(self, ms):
        self.calls += 1
        speed = 1.4 if (self.calls // 37) % 2 else 1.0
        return ms * speed * (1 + self.creep) * (1 + self.noise * abs(self.rng.standard_normal()))

    def measure(self, network):
        return replace(self.describe(network), median_ms=self.time(self.cost(network)))

    def describe(self, network):
        return Latency.given(1.0, network, "fake", "fake")

    @staticmethod
    def cost(network):
        return 0.05 * len(network.layers()) + network_cost(network).madds / 1e6

    @contextmanager
    def opened(self, network, calls=10):
        yield lambda: self.time(self.cost(network))

    @staticmethod
    def part_cost(part):
        """More than within a network by 0.05 ms, and by a fifth."""
        convs = [conv for block in part.blocks for conv in (block.expand, block.spatial, block.project) if conv]
        return 0.05 + 1.2 * (0.03 + sum(conv.weight.size for conv in convs) * part.network.image_size**2 / 1e6)

    @contextmanager
    def opened_part(self, part):
        yield lambda: self.time(self.part_cost(part))


def worth(network):
    """An accuracy that adds up from the blocks."""
    return 0.5 + sum(0.02 * (block.kernel == 5) + 0.01 * block.repeats + 1e-3 * block.out for block in network.blocks)


class Ladder:
    """Accuracies that are more exact on every rung; notes what was trained there."""

    immediate = False
    trained: dict[int, list[int]]

    def __init__(self):
        self.trained = {}

    def run(self, candidates):
        for one in filter(None, candidates):
            self.trained.setdefault(one.rung, []).append(one.number)
            rng = np.random.default_rng([one.rung, abs(one.number)])
            accuracy = worth(one.network) + 0.01 * rng.standard_normal() / (1 + one.rung)
            yield one.number, Result("ok", "", accuracy, 1.0, 2 - accuracy, 2000)

    def stop(self):
        pass

    def close(self):
        pass


@pytest.fixture
def banded(tmp_path, digits, monkeypatch):
    """A search in the band of an anchor's latency, with two rungs and finalists; its machine and its ladder."""
    recipe = write_recipe(tmp_path, PLAIN, data_dir=str(digits), num_classes=10, blocks=ANCHOR, image_resize=32)
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(SPACE))
    machine, ladder = Machine(), Ladder()
    monkeypatch.setattr(anchor, "meter_for", lambda _: machine)
    monkeypatch.setattr(turns, "_PAUSE_S", 0.0)
    monkeypatch.setattr(runner, "open_evaluator", lambda *_: ladder)
    keys = {"space": str(space), "recipe": str(recipe), "latency": "mindspore", "strategy": "predictor", "band": 0.8}
    keys |= {"trials": 30, "generation": 6, "population": 12, "reward": "hard", "finalists": 2, "top": 2}
    keys |= {"references": [str(recipe)], "search_dir": str(tmp_path), "run_name": "run"}
    keys |= {"target": {"network": str(recipe), "factor": 1.0}, "rungs": [{"keep": 8}, {"keep": 4, "epoch_size": 2}]}
    path = tmp_path / "band.yaml"
    path.write_text(yaml.safe_dump(keys))
    settings = load_settings(path)
    return Search(settings, SearchFolder.create(settings)), machine, ladder


def test_a_ratio_holds_while_the_machine_changes_its_speed():
    """Milliseconds are 40 % apart; the same network measured 20 times lies within 2 %."""
    machine = Machine()
    alone = [machine.time(3.0) for _ in range(100)]
    assert max(alone) / min(alone) > 1.3
    ratios = [in_turns(lambda: machine.time(3.0), lambda: machine.time(2.0), 24, 0.01).value for _ in range(20)]
    np.testing.assert_allclose(ratios, 1.5, rtol=0.02)


class Shared(Machine):
    """A device beside whose clock other work comes for seconds, which slows some networks more than others."""

    def __init__(self, calls, busy):
        super().__init__()
        self.length, self.busy = calls, busy

    def time(self, ms):
        self.calls += 1
        rates = {3.0: 1.4, 2.0: 1.28}
        slow = rates[ms] if self.busy(self.calls // self.length) else 1.0
        return ms * slow * (1 + 0.004 * abs(self.rng.standard_normal()))

    @staticmethod
    def cost(network):
        return 3.0 if network.family else 2.0


BUSY = {"half": lambda state: state % 2 == 0, "rarely": lambda state: state % 4 == 3}


@pytest.mark.parametrize("busy", BUSY.values(), ids=BUSY)
def test_a_ratio_holds_where_other_work_slows_networks_unequally(monkeypatch, busy):
    """Whole measurements lie within the other work, which makes the ratio 9 % larger; also the first one."""
    monkeypatch.setattr(turns, "_PAUSE_S", 0.0)
    network, reference = resolve("mnasnet_small"), replace(resolve("mnasnet_small"), family=None)
    machine = Shared(14, busy)
    disturbed = [in_turns(lambda: machine.time(3.0), lambda: machine.time(2.0), 24, 0.01).value for _ in range(20)]
    assert max(disturbed) > 1.08 * 1.5
    machine = Shared(14, busy)
    meter = TurnsMeter(machine, reference, 2.0, 24, 0.01)
    measured = [meter.measure(network) for _ in range(30)]
    np.testing.assert_allclose([one.ratio for one in measured], 1.5, rtol=0.02)
    assert max(one.turns for one in measured) < 24


def test_disturbed_turns_do_not_use_up_a_measurement():
    """All of the turns that were asked for lie beside other work; some of the next ones do not."""
    machine = Shared(60, lambda state: state == 0)
    found = in_turns(lambda: machine.time(3.0), lambda: machine.time(2.0), 24, 0.01, lowest=2.0)
    assert found.value == pytest.approx(1.5, rel=0.01)
    assert found.turns == LEAST_TURNS


def test_a_ratio_beside_other_work_throughout_has_the_error_that_it_may_have():
    """Its turns agree among themselves on a ratio that is 9 % too large."""
    machine = Shared(1, lambda state: True)
    found = in_turns(lambda: machine.time(3.0), lambda: machine.time(2.0), 24, 0.01, lowest=2.0)
    assert abs(found.value / 1.5 - 1) > 0.08
    assert found.error == pytest.approx(abs(found.value / 1.5 - 1), abs=0.02)


def test_parts_are_measured_in_turns_with_the_anchor():
    """Milliseconds are 40 % apart; a part is a share of the anchor."""
    machine = Machine()
    reference = resolve("mnasnet_small")
    anchor_ms = machine.cost(reference)
    meter = TurnsMeter(machine, reference, anchor_ms, 24, 0.01)
    for part in parts_of(reference):
        found = [meter.measure_part(part).median_ms for _ in range(5)]
        np.testing.assert_allclose(found, machine.part_cost(part), rtol=0.05)


def test_turns_end_when_the_spread_is_small_enough_or_say_that_it_is_not():
    quiet, loud = Machine(noise=0.001), Machine(noise=0.5)
    found = in_turns(lambda: quiet.time(3.0), lambda: quiet.time(2.0), 24, 0.01)
    assert (found.turns, found.error < 0.01) == (LEAST_TURNS, True)
    found = in_turns(lambda: loud.time(3.0), lambda: loud.time(2.0), 24, 0.01)
    assert found.turns == 24
    assert found.error > 0.01


def test_a_record_of_turns_is_read_as_it_was_written_and_older_ones_too():
    network = resolve("mnasnet_small")
    one = replace(Latency.given(1.0, network, "a", "b"), ratio=0.9, ratio_error=0.01, turns=7)
    assert Latency.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    old = {name: value for name, value in one.to_dict().items() if name not in ("ratio", "ratio_error", "turns")}
    assert Latency.from_dict(old).ratio is None


def test_a_search_keeps_to_the_band_and_begins_with_the_anchor(banded):
    search, machine, ladder = banded
    trials = search.run()
    like = search.space.network(trials[0].tokens)
    wanted = machine.cost(reference_network(search.settings.target_network, like))
    ratios = [machine.cost(search.space.network(trial.tokens)) / wanted for trial in trials]
    assert min(ratios) > 0.8 * 0.97
    assert max(ratios) < 1.0 * 1.03
    assert list(trials[0].blocks) == ANCHOR
    assert trials[0].repeats == -1  # the reference, which was trained already
    assert 0 not in {number for numbers in ladder.trained.values() for number in numbers}
    assert len({trial.tokens for trial in trials}) == 30
    for trial in trials:
        assert trial.latency["ratio"] == pytest.approx(trial.latency_ms / search.settings.target_ms)


def test_a_search_for_faster_networks_begins_with_the_anchor_made_narrower(banded):
    settings = changed(banded[0].settings, target_factor=0.85, run_name="faster")
    search = Search(settings, SearchFolder.create(settings))
    first, *others = search.run()
    assert [re.sub(r"_o\d+", "", block) for block in first.blocks] == [re.sub(r"_o\d+", "", one) for one in ANCHOR]
    assert 0.8 * 0.97 < first.latency_ms / search.settings.target_ms < 1.03
    assert first.tokens not in {trial.tokens for trial in others}


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_a_search_predicts_whole_networks_by_their_parts(banded, monkeypatch, factor):
    """Parts pay for their ends, so a network of fewer or of smaller parts is another share of its sum than the anchor.

    Beside the anchor only what is trained is measured whole, and eight others.
    """
    measured: list[tuple[str, ...]] = []

    class Whole(Machine):
        @contextmanager
        def opened(self, network, calls=10):
            measured.append(network_key(network))
            with super().opened(network) as clock:
                yield clock

        @classmethod
        def cost(cls, network):
            return sum((cls.part_cost(part) - 0.05) / 1.2 for part in parts_of(network))

    machine = Whole()
    monkeypatch.setattr(anchor, "meter_for", lambda _: machine)
    monkeypatch.setattr(band, "has_parts", lambda kind: True)
    settings = changed(banded[0].settings, target_factor=factor, run_name="parts")
    search = Search(settings, SearchFolder.create(settings))
    trials = search.run()
    wanted = factor * machine.cost(reference_network(settings.target_network, search.space.network(trials[0].tokens)))
    ratios = [machine.cost(search.space.network(trial.tokens)) / wanted for trial in trials]
    assert min(ratios) > 0.8 * 0.97
    assert max(ratios) < 1.0 * 1.04
    assert {network_key(search.space.network(trial.tokens)) for trial in trials} <= set(measured)
    assert len(set(measured)) <= len(trials) + 1 + band.FITTED_ON


def test_the_best_of_a_rung_are_trained_on_the_next_with_the_references(banded):
    search, _, ladder = banded
    search.run()
    everything = TrialLog(search.folder.trials).read()
    by_rung = {rung: [t for t in everything if t.rung == rung] for rung in range(4)}
    assert [sum(t.number >= 0 for t in by_rung[rung]) for rung in range(4)] == [30, 8, 4, 2]
    for rung in (1, 2):
        best = ranked(t for t in by_rung[rung - 1] if t.number >= 0)[: 12 - 4 * rung]
        assert {t.number for t in by_rung[rung] if t.number >= 0} == {t.number for t in best}
    assert all(numbers.count(-1) == 1 for numbers in ladder.trained.values())
    one, other = (t.tokens for t in by_rung[3] if t.number >= 0)
    assert sum(a != b for a, b in zip(one, other, strict=True)) >= 2
    first = max((t for t in by_rung[3] if t.number >= 0), key=lambda t: t.accuracy)
    assert standing(everything, search.settings, read_again(search.folder.again))[0] == first


def test_rungs_go_on_where_they_stopped(banded):
    search, _, ladder = banded
    search.run()
    whole = TrialLog(search.folder.trials).read()
    lines = search.folder.trials.read_bytes().splitlines(keepends=True)
    search.folder.trials.write_bytes(b"".join(lines[:36]))
    ladder.trained.clear()
    Search(search.folder.stored_settings(), search.folder).run()
    again = TrialLog(search.folder.trials).read()
    assert [(t.rung, t.number, t.accuracy) for t in again] == [(t.rung, t.number, t.accuracy) for t in whole]
    assert 0 not in ladder.trained


def test_no_winner_is_outside_the_band_when_it_is_measured_again(banded, monkeypatch):
    """What was best is slower at the end than at the start: it is no winner."""
    search, _, _ = banded
    best = []
    original = runner.Measurements.again

    def slower(measurements, network):
        found = original(measurements, network)
        best.append(network.block_strings)
        return replace(found, median_ms=1.5 * found.median_ms) if len(best) == 1 else found

    monkeypatch.setattr(runner.Measurements, "again", slower)
    search.run()
    everything = TrialLog(search.folder.trials).read()
    winners = standing(everything, search.settings, read_again(search.folder.again))
    assert winners
    assert best[0] not in {trial.blocks for trial in winners}
    assert best[0] not in {trial.blocks for trial in everything if trial.rung == 3}
    write_report(search.folder.path)
    for place, path in enumerate(sorted(search.folder.winners.iterdir())):
        assert load_recipe(path).network(10).block_strings == winners[place].blocks


def test_a_report_shows_rungs_the_predictor_and_the_verdict(banded):
    search, _, _ = banded
    search.run()
    page = write_report(search.folder.path)
    text = page.with_suffix(".md").read_text()
    for title in ("## Finalists", "## Rungs", "## Predicted against measured", "## Accuracy against latency"):
        assert title in text
    for pair in ("Rung 0 against rung 1", "Rung 0 against rung 2", "Rung 1 against rung 2"):
        assert re.search(rf"{pair}: Spearman -?[01]\.\d\d \(95 % interval .* over \d networks, which were chosen", text)
    assert "the one left out with Spearman" in text
    content = page.read_text()
    data = content.partition("id='networks'>")[2].partition("</script>")[0]
    networks = json.loads(data)
    trials = [trial for trial in TrialLog(search.folder.trials).read() if trial.rung == 0]
    assert {one["blocks"] for one in networks} == {" ".join(trial.blocks) for trial in trials}
    assert content.count("class='network'") == len(networks)
    assert "http" not in content.replace("http://www.w3.org", "")  # nothing is loaded from elsewhere


@pytest.mark.skipif(
    not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), reason="no browser is installed"
)
def test_a_report_runs_in_a_browser(banded):
    search, _, _ = banded
    search.run()
    page = write_report(search.folder.path)
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    words = [browser, "--headless", "--no-sandbox", "--window-size=380,800", "--dump-dom", page.as_uri()]
    shown = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "data-ready=" in shown
