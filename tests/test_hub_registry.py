"""The list of published weights: every address, digest and name."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.reported import load_reported
from mindcv_mnasnet.weights import hub

REGISTRY = hub.load_registry()


def test_every_reported_checkpoint_is_listed_once_and_nothing_else_is():
    sources = {"tf", "timm", "torchvision", "mindcv"}
    classifiers = [one for one in load_reported() if one.source in sources and one.mean_ap is None]
    assert Counter(entry.reported() for entry in REGISTRY) == Counter(classifiers)
    assert sum(entry.source == "tf" for entry in REGISTRY) == 26
    assert len({entry.file for entry in REGISTRY}) == len(REGISTRY)


def test_addresses_are_encrypted_and_digests_are_those_in_the_names():
    for entry in REGISTRY:
        assert entry.url is None or (entry.url.startswith("https://") and "{" not in entry.url)
        if entry.source in ("mindcv", "torchvision"):
            assert re.search(r"-([0-9a-f]{8,10})(-910v2)?\.", entry.file)[1] == entry.sha256
        else:
            assert entry.sha256 is None


def test_mindcvs_addresses_are_those_in_its_code():
    mindcv = pytest.importorskip("mindcv.models.mnasnet")
    theirs = {name: values["url"] for name, values in mindcv.default_cfgs.items()}
    assert {name: hub.find(name).url for name in theirs} == theirs


def test_torchvisions_addresses_and_sizes_are_those_in_its_code():
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        pytest.skip("torchvision is not here")
    code = (Path(spec.origin).parent / "models" / "mnasnet.py").read_text()  # its binary may not fit torch's
    urls, sizes = re.findall(r'url="(.+?)"', code), re.findall(r'"_file_size": ([\d.]+)', code)
    entries = [hub.find(name) for name in ("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3")]
    assert [entry.url for entry in entries] == urls
    for entry, megabytes in zip(entries, map(float, sizes), strict=True):
        assert entry.bytes[0] <= megabytes * 2**20 <= entry.bytes[1]


@pytest.mark.parametrize(
    ("name", "source", "checkpoint"),
    [
        ("mnasnet_100", "mindcv", "mnasnet_100-1bcf43f8.ckpt"),
        ("mnasnet_075", "mindcv", "mnasnet_075-465d366d.ckpt"),
        ("mnasnet_075-083b2bc4-910v2.ckpt", "mindcv", "mnasnet_075-083b2bc4-910v2.ckpt"),
        ("mnasnet_100.rmsp_in1k", "timm", "mnasnet_100.rmsp_in1k"),
        ("semnasnet_100", "timm", "semnasnet_100.rmsp_in1k"),
        ("semnasnet_100.rmsp_in1k", "timm", "semnasnet_100.rmsp_in1k"),
        ("mnasnet_small", "timm", "mnasnet_small.lamb_in1k"),
        ("mnasnet1_0", "torchvision", "mnasnet1.0_top1_73.512-f206786ef8.pth"),
    ],
)
def test_a_name_means_the_weights_of_its_own_source(name, source, checkpoint):
    found = hub.find(name).reported()
    assert (found.source, found.checkpoint) == (source, checkpoint)


@pytest.mark.parametrize(
    ("width_mult", "image_size", "top1"),
    [(None, None, 75.2), (0.35, 96, 49.3), (1.4, 192, 76.1), (0.5, 64, 54.7), (0.5, 320, 68.9), (1, 176, 74.0)],
)
def test_the_authors_weights_are_chosen_by_width_and_nearest_size(width_mult, image_size, top1):
    for name in ("mnasnet-a1", "mnasnet_a1"):
        assert hub.find(name, width_mult, image_size).reported().top1 == top1


@pytest.mark.parametrize(
    ("name", "width_mult", "said"),
    [
        ("mnasnet-a1", 0.6, "widths 0.35, 0.5, 0.75, 1, 1.4"),
        ("semnasnet_050", None, "widths 0.75, 1"),
        ("mnasnet-d1", None, "there are some for mnasnet_050"),
        ("resnet50", None, "there are some for mnasnet_050"),
    ],
)
def test_what_is_not_published_is_said_with_what_is(name, width_mult, said):
    with pytest.raises(UserError, match=rf"no published weights for '?{name}.*{said}"):
        hub.find(name, width_mult)
