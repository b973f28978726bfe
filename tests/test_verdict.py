"""A measurement is held against a published result only if it was measured the same way."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.inference.verdict import EvalSettings, compare
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.networks.reported import load_reported

TIMM = EvalSettings(224, 0.875, None, "pilcubic", "center_round", "symmetric", 1e-5, "imagenet", 50_000, "timm")
MINDCV = replace(TIMM, interpolation="bilinear", eval_crop="center", bn_eps=1e-3, source=None)
STATED = [entry for entry in load_reported() if entry.top1 is not None and entry.eval_crop is not None]

UNSTATED = [entry for entry in load_reported() if entry.eval_crop is None and entry.network() is not None]


def settings_of(entry, source):
    return EvalSettings(
        entry.image_size,
        0.875,
        entry.val_resize,
        entry.interpolation,
        entry.eval_crop,
        entry.padding,
        entry.bn_eps,
        "ImageNet",
        50_000,
        source,
    )


@pytest.mark.parametrize("claims", [False, True])
@pytest.mark.parametrize("entry", STATED, ids=lambda entry: entry.label)
def test_every_stated_result_is_found_by_its_own_settings(entry, claims):
    verdict = compare(entry.network(), settings_of(entry, entry.source if claims else None), entry.top1, entry.top5)
    assert (verdict.reported, verdict.inside, verdict.difference_top1) == (entry, True, 0)


@pytest.mark.parametrize("entry", UNSTATED, ids=lambda e: e.label)
def test_what_was_not_stated_is_never_compared(entry):
    for settings in (MINDCV, TIMM, replace(MINDCV, eval_crop="tf_square", padding="same", source=entry.source)):
        verdict = compare(entry.network(), settings, 74.0, 92.0)
        assert verdict.reported is None or verdict.reported.source not in ("tflite", "paper")


@given(st.floats(60, 80), st.floats(85, 95), st.floats(0, 2))
def test_inside_means_both_within_the_tolerance(top1, top5, tolerance):
    verdict = compare(resolve("semnasnet_100"), TIMM, top1, top5, tolerance)
    expected = max(round(abs(top1 - 75.452), 6), round(abs(top5 - 92.608), 6)) <= tolerance
    assert verdict.inside == expected
    assert json.loads(json.dumps(verdict.to_dict()))["inside"] == expected
    assert ("OUTSIDE" in str(verdict)) != expected


def test_a_difference_of_exactly_the_tolerance_is_inside():
    assert compare(resolve("semnasnet_100"), TIMM, 75.552, 92.708).inside
    assert not compare(resolve("semnasnet_100"), TIMM, 75.553, 92.608).inside


def test_top5_counts_only_where_both_have_it():
    small = settings_of(next(e for e in STATED if e.model == "mnasnet-small"), "tf")
    assert compare(resolve("mnasnet-small"), small, 66.05, 10.0).inside
    assert compare(resolve("semnasnet_100"), TIMM, 75.4, None).inside


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"interpolation": "bicubic"}, "its interpolation is pilcubic, not bicubic"),
        ({"val_resize": 232}, "its val_resize is 256, not 232"),
        ({"crop_pct": 0.9}, "its val_resize is 256, not 248"),
        ({"bn_eps": 1e-3}, "its bn_eps is 1e-05, not 0.001"),
        ({"padding": "same"}, "its padding is symmetric, not same"),
        ({"image_size": 192, "val_resize": 256}, "its image_size is 224, not 192"),
        ({"eval_crop": "tf_square"}, "its eval_crop is center_round, not tf_square"),
        ({"eval_crop": "center"}, "its eval_crop is center_round, not center"),
        ({"images": 1000}, "50,000 validation images, these are 1,000"),
        ({"dataset_name": "cifar10"}, "of cifar10"),
        ({"source": "ours"}, "no result is reported for weights from ours"),
        ({"source": "timm/mnasnet_100.other"}, "no result is reported for weights from timm/mnasnet_100.other"),
    ],
)
def test_the_one_setting_that_differs_is_named(change, reason):
    verdict = compare(resolve("semnasnet_100"), replace(TIMM, **change), 75.452, 92.608)
    assert (verdict.comparable, verdict.inside, verdict.difference_top1) == (False, None, None)
    assert reason in verdict.reason
    assert "; " not in verdict.reason


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (resolve("semnasnet_100", width_mult=1.1), "its width_mult is 1.0, not 1.1"),
        (resolve("semnasnet_100", num_classes=10), "its num_classes is 1000, not 10"),
        (resolve("semnasnet_100", blocks="r1_k3_s11_e1_o16"), "its blocks are others"),
        (resolve("mnasnet_small", residual_rule="declared"), "its residual_rule is actual, not declared"),
    ],
)
def test_another_network_is_never_compared(network, reason):
    assert reason in compare(network, TIMM, 75.452, 92.608).reason


def test_a_multiplier_that_changes_no_width_is_no_difference():
    assert compare(resolve("semnasnet_100", width_mult=None), TIMM, 75.452, 92.608).inside


def test_weights_are_held_against_what_they_claim_to_be():
    """MindCV published two checkpoints of one network; unnamed, the closer one is meant."""
    network = resolve("mnasnet_075")
    named = replace(MINDCV, source="mindcv/mnasnet_075-083b2bc4-910v2.ckpt")
    assert compare(network, named, 71.81, 90.53).reported.top1 == 71.77
    assert compare(network, MINDCV, 71.81, 90.53).reported.top1 == 71.81
    assert "timm" in compare(network, replace(MINDCV, source="timm"), 71.81, 90.53).reason


@pytest.mark.parametrize("tolerance", [-0.1, float("nan")])
def test_an_impossible_tolerance_is_refused(tolerance):
    with pytest.raises(UserError, match="tolerance"):
        compare(resolve("semnasnet_100"), TIMM, 75.0, 92.0, tolerance)
