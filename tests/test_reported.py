"""Published results as data: complete, resolvable, equal to their sources."""

import json
from pathlib import Path

import pytest

from mindcv_mnasnet.networks.network import known_names
from mindcv_mnasnet.networks.reported import format_table, load_reported

REFERENCE = Path(__file__).with_name("reference")  # facts from outside, numbers and names alone


def _top1(source):
    rows = [entry for entry in load_reported() if entry.source == source and entry.mean_ap is None]
    return {(entry.model, entry.top1, entry.top5) for entry in rows}


def test_every_published_checkpoint_is_there():
    assert _top1("timm") == {
        ("semnasnet_100", 75.452, 92.608),
        ("mnasnet_100.rmsp_in1k", 74.672, 92.108),
        ("semnasnet_075", 73.0, 91.124),
        ("mnasnet_small", 66.204, 86.470),
    }
    assert _top1("torchvision") == {
        ("mnasnet0_5", 67.734, 87.490),
        ("mnasnet0_75", 71.180, 90.496),
        ("mnasnet1_0", 73.456, 91.510),
        ("mnasnet1_3", 76.506, 93.522),
    }
    assert _top1("mindcv") == {
        ("mnasnet_050", 68.07, 88.09),
        ("mnasnet_075", 71.81, 90.53),
        ("mnasnet_075", 71.77, 90.52),
        ("mnasnet_100", 74.28, 91.70),
        ("mnasnet_130", 75.65, 92.64),
        ("mnasnet_140", 76.01, 92.83),
    }
    assert {row[1:] for row in _top1("tflite")} >= {(68.03, 87.79), (71.72, 90.17), (74.08, 91.75), (75.24, 92.55)}
    assert {row[1:] for row in _top1("paper")} == {(74.5, None), (75.6, 92.7), (76.7, 93.3)}
    assert ("mnasnet-small", 66.0, None) in _top1("tf")
    assert len(_top1("tf")) == 26


@pytest.mark.parametrize("entry", load_reported(), ids=lambda entry: entry.label)
def test_an_entrys_settings_are_its_networks(entry):
    network = entry.network()
    if network is None:
        assert entry.source == "paper" or entry.mean_ap is not None
        assert entry.model not in known_names()
    elif entry.source != "paper":
        assert (network.width_mult, network.image_size) == (entry.width_mult, entry.image_size)
        assert entry.padding == network.padding
        assert entry.bn_eps in (None, network.bn_eps)
        assert entry.url.startswith("https://")


def test_average_precisions_of_mnasnets_detectors_are_those_of_two_papers():
    found = {(one.width_mult, one.mean_ap) for one in load_reported() if one.mean_ap and one.model == "mnasnet-a1"}
    assert found == {(1.0, 23.0), (0.5, 18.5), (0.35, 15.6)}


def test_misprints_are_marked_and_corrected():
    marked = {entry.label: (dict(entry.printed), entry) for entry in load_reported() if entry.misprint}
    printed, entry = marked["tf mnasnet-a1 x 0.35 at 160 px"]
    assert (printed, entry.top1) == ({"top1": 52.3}, 59.3)
    assert marked["tf mnasnet-a1 x 0.75 at 96 px"][0] == {"latency_ms": 17}
    assert "44 %" in marked["tf mnasnet-a1 x 1 at 224 px"][1].misprint


def test_the_25_rows_are_the_published_ones():
    rows = json.loads((REFERENCE / "authors_a1_sizes.json").read_text())
    assert len(rows) == 25
    ours = {(e.image_size, e.width_mult): e for e in load_reported() if (e.source, e.model) == ("tf", "mnasnet-a1")}
    for size, width, top1, *others, top1_again in rows:
        entry = ours[size, width]
        printed = {"top1": entry.top1, **dict(entry.printed)}
        assert (printed["top1"], entry.top1) == (top1, top1_again)
        assert [entry.top5, entry.params_m, entry.madds_m, entry.latency_ms] == others


def test_the_table_shows_every_entry():
    lines = format_table().splitlines()
    assert len(lines[2 : lines.index("")]) == len(load_reported())
    assert len(format_table(load_reported()[:3]).split("\n\n")[0].splitlines()) == 5
