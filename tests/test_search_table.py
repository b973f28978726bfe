"""The search on a table of trainings that is made up here in the form of NAS-Bench-Macro, whose file is not ours."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.search.nas_bench_macro import compare, read_band, search_once


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Accuracies that add up from the layers' choices, and noise; multiply-adds as in the real table."""
    rng = np.random.default_rng(0)
    worth, cost = rng.normal(size=(8, 3)), np.array([0, 4e6, 8e6])
    rows = {}
    for choice in itertools.product(range(3), repeat=8):
        mean = 88 + sum(worth[layer, one] for layer, one in enumerate(choice))
        accuracies = (mean + rng.normal(0, 0.2, 3)).tolist()
        name = "".join(map(str, choice))
        rows[name] = {"test_acc": accuracies, "flops": int(10e6 + sum(cost[one] for one in choice))}
    path = tmp_path_factory.mktemp("table") / "macro.json"
    path.write_text(json.dumps(rows))
    return path


def test_a_band_holds_the_networks_near_its_upper_end(file):
    band, rows = read_band(file, 40e6), json.loads(file.read_text())
    inside = [name for name, row in rows.items() if 34e6 <= row["flops"] <= 40e6]
    assert ["".join(map(str, tokens)) for tokens in band.tokens] == sorted(inside)
    assert band.accuracies.shape == (len(inside), 3)
    np.testing.assert_allclose(band.means[0], np.mean(rows[sorted(inside)[0]]["test_acc"]))


def test_a_search_is_a_function_of_its_seed(file):
    band = read_band(file, 40e6)
    assert search_once(band, "predictor", 3) == search_once(band, "predictor", 3) != search_once(band, "predictor", 4)


def test_verified_finalists_of_the_predictor_beat_other_uses_of_the_budget(file):
    """Where accuracies add up, as the predictor takes for granted."""
    found = compare(read_band(file, 40e6), range(12))
    for name, row in found["rivals"].items():
        assert row["difference"] > 0, name
        assert row["above"] > row["below"], name
    assert found["rivals"]["best of as many random proxies"]["p"] < 0.01
    assert found["predictor with verified finalists"] <= found["best in the band"]


def test_another_file_is_refused(tmp_path, file):
    (tmp_path / "odd.json").write_text("[1]")
    for path in (tmp_path / "odd.json", tmp_path / "none.json"):
        with pytest.raises(UserError, match="is not the file of NAS-Bench-Macro"):
            read_band(path, 35e6)
    with pytest.raises(UserError, match="no network of 1e"):
        read_band(file, 1e9)
