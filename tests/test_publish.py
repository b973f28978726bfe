"""Published results: their evidence, and README's table made from them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from scipy import stats

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.latency.agreement import agreement, interval_of_ranks
from mindcv_mnasnet.networks.cost import detector_cost, network_cost
from mindcv_mnasnet.recipe.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
RESULTS = sorted((ROOT / "results").glob("*.json"))


@pytest.fixture
def publish(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "tools" / "bench"), *sys.path])
    import publish

    return publish


def test_pauses_of_an_interrupted_run_do_not_count_as_work(publish):
    records = [
        {"time": 0.0},
        {"time": 60.0},
        {"time": 5000.0, "text": "resuming from runs/x/checkpoints/step_1.safetensors"},
        {"time": 5030.0},
    ]
    assert publish.seconds_at_work(records) == 90.0


def test_readme_shows_the_results_and_nothing_else(publish):
    text = (ROOT / "README.md").read_text()
    assert publish.readme_with(text, ROOT / "results") == text


def test_the_results_page_shows_the_benchmark_and_nothing_else(publish):
    text = (ROOT / "docs" / "results.md").read_text()
    assert publish.page_with(text, ROOT / "results") == text


def test_every_ratio_stands_in_the_column_of_its_machine(publish):
    def report(instructions, model, **ratios):
        machine = {"cpu": "X", "instruction_set": instructions, "cores": 2}
        found = {name.replace("__", " / "): {"median": value} for name, value in ratios.items()}
        return {"machine": machine, "settings": {"model": model}, "ratios": found}

    lines = publish.speed_table(
        [
            report("AVX2", "b1", train_step__mindcv=2.0, infer__timm_infer=3.0),
            report("AVX2", "a1", train_step__timm_channels_last=4.0),
            report("AVX-512", "b1", train_step__mindcv=16.0),
        ]
    ).splitlines()
    assert lines[0].split("|")[2:4] == [" X, AVX2, 2 cores ", " X, AVX-512, 2 cores "]
    assert [line.split("|")[2:4] for line in lines[2:]] == [
        [" 4.00 ", " not run "],
        [" 2.00 ", " 16.00 "],
        [" 3.00 ", " not run "],
    ]


def test_detectors_have_a_table_of_their_own(publish):
    common = {"params_with_bn": 1.5e6, "cards": 1, "device": "CPU", "batch_size": 16, "resolution": "320x320"}
    common |= {"jit_level": None, "graph_compile_seconds": 40.0, "ms_per_step": 500.0, "images_per_second": 32.0}
    classifier = common | {"recipe": "configs/a.yaml", "top1": 70.0, "top5": 90.0, "minutes": 2.0}
    detector = common | {"recipe": "configs/b.yaml", "ap": 40.0, "ap50": 76.25, "minutes": 20.0}
    detector["ap50_of"] = {"cat": 81.0, "absent": None}
    first, second = publish.table([classifier, detector]).split("\n\n")
    assert "configs/b.yaml" not in first
    assert second.splitlines()[-1].endswith("| 40.0 | 76.2 | cat 81.0 | 20.0 |")
    assert publish.table([classifier]) == first


def test_a_run_without_validation_is_not_published(publish, tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(UserError, match=r"validation\.json"):
        publish.collect(tmp_path, "configs/x.yaml", "")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_names_a_recipe_as_it_stands_and_the_size_of_its_network(path):
    result = json.loads(path.read_text())
    scores = [result[low] <= result[high] for low, high in (("top1", "top5"), ("ap", "ap50")) if low in result]
    if not scores:
        pytest.skip("not a training result")
    recipe = load_recipe(ROOT / result["recipe"])
    assert result["recipe_fingerprint"] == recipe.fingerprint()
    network = recipe.network(result["num_classes"])
    detects = recipe.task == "detect"
    assert result["params"] == (detector_cost(recipe.detector(network)) if detects else network_cost(network)).params
    assert scores == [True]


def test_the_docs_tell_what_the_trainings_of_the_band_say():
    results = json.loads((ROOT / "results" / "cifar10_band.json").read_text())
    text = " ".join((ROOT / "docs" / "search.md").read_text().split())
    for trainings in (results["full_recipe"], results["second_target"]["full_recipe"]):
        found = trainings["searched"]["top1"]
        for name, row in trainings.items():
            assert ", ".join(f"{top1:.2f}" for top1 in row["top1"]) in text
            if name != "searched":
                difference = sum(found) / len(found) - sum(row["top1"]) / len(row["top1"])
                low, high = stats.ttest_ind(found, row["top1"]).confidence_interval()
                assert f"difference is {difference:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}" in text
    for name, recipe in (("searched", "mnasnet_cifar10_searched"), ("hand-made", "mnasnet_cifar10")):
        blocks = load_recipe(ROOT / "configs" / "cifar10" / f"{recipe}.yaml").blocks
        assert " ".join(blocks) == results["full_recipe"][name]["blocks"]


def test_the_second_target_led_to_another_network_within_it():
    results = json.loads((ROOT / "results" / "cifar10_band.json").read_text())
    second = results["second_target"]
    found = second["full_recipe"]["searched"]
    assert found["blocks"] != results["full_recipe"]["searched"]["blocks"]
    assert found["ratio"] <= second["search"]["target_factor"]


def test_the_docs_tell_how_the_rungs_rank_random_networks():
    rows = json.loads((ROOT / "results" / "cifar10_band.json").read_text())["random_trainings"]
    short, long = zip(*((row["top1"]["1"], row["top1"]["5"]) for row in rows if "5" in row["top1"]), strict=True)
    low, high = interval_of_ranks(short, long)
    text = " ".join((ROOT / "docs" / "search.md").read_text().split())
    assert f"Spearman {agreement(short, long).spearman:.2f} (one epoch" in text
    assert f"95 % interval {low:.2f} to {high:.2f}, bootstrap" in text
    assert f"{len(rows)} networks" in text
    assert f"trained {len(long)} of them" in text
    assert f"{min(row['top1']['1'] for row in rows):.1f} to {max(row['top1']['1'] for row in rows):.1f} %" in text
    assert f"after five {min(long):.1f} to {max(long):.1f} %" in text
