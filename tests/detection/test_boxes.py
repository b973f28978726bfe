"""Anchors, matching, codes and post-processing against torchvision's and TensorFlow's."""

from __future__ import annotations

import numpy as np
import pytest
from golden_numbers import golden
from hypothesis import given
from hypothesis import strategies as st

from mindcv_mnasnet.detection.anchors import anchors_of, place
from mindcv_mnasnet.detection.boxes import decode, encode, overlaps, to_centers, to_corners
from mindcv_mnasnet.detection.matching import Matcher, match
from mindcv_mnasnet.detection.postprocess import PostProcess, suppress
from mindcv_mnasnet.networks.detector import Detector
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.recipe.detection_keys import DetectionKeys

SIDE = 320
IMAGES = (0, 1)


def golden_anchors() -> np.ndarray:
    return to_centers(golden()["anchors"] / SIDE)


def test_anchors_are_tensorflows():
    ours = anchors_of(Detector(resolve("mnasnet-a1", image_size=SIDE)))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, golden()["anchors_tensorflow"][:, [1, 0, 3, 2]], atol=1e-6)


def test_anchors_are_torchvisions_after_clipping_and_in_its_order():
    ours = place((20, 10, 5, 3, 2, 1), reduced_first_map=False)
    order = [0, 5, 1, 2, 3, 4]  # torchvision has the square between two scales second
    ours = ours.reshape(-1, 6, 4)[:, order].reshape(-1, 4)
    ours[:, 2:] = np.minimum(ours[:, 2:], 1)
    assert len(ours) == 3234
    np.testing.assert_allclose(ours, golden_anchors(), atol=1e-6)


@pytest.mark.parametrize(("reduced", "count"), [(True, 7308), (False, 11640)])
def test_counts_are_those_of_tensorflows_unit_test(reduced, count):
    assert len(place((38, 19, 10, 5, 3, 1), reduced_first_map=reduced)) == count


@pytest.mark.parametrize("image", IMAGES)
def test_matches_are_torchvisions(image):
    matched = match(golden()[f"boxes{image}"], golden()["anchors"], 0.5)  # in pixels: one box overlaps 20 anchors alike
    np.testing.assert_array_equal(matched, golden()["matched"][image])
    assert (matched >= 0).sum() == (30, 18)[image]


@pytest.mark.parametrize("image", IMAGES)
def test_targets_hold_torchvisions_codes_and_the_classes(image):
    labels = golden()[f"labels{image}"]
    targets = Matcher(to_centers(golden()["anchors"])).targets(golden()[f"boxes{image}"], labels)
    matched = golden()["matched"][image]
    found = matched >= 0
    np.testing.assert_allclose(targets[found, :4], golden()["encoded"][image][found], atol=1e-4)
    np.testing.assert_array_equal(targets[:, 4], np.where(found, labels[matched], 0))
    assert targets.dtype == np.float32
    assert not targets[~found].any()


def test_an_image_without_boxes_is_all_background():
    targets = Matcher(golden_anchors()).targets(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert not targets.any()


def test_every_box_has_an_anchor_however_small():
    tiny = np.array([[0.501, 0.501, 0.502, 0.502]], np.float32)
    assert Matcher(golden_anchors()).targets(tiny, np.array([3]))[:, 4].tolist().count(3) == 1


def test_decoded_boxes_are_torchvisions():
    ours = decode(golden()["bbox_regression"][0], golden_anchors()) * SIDE
    np.testing.assert_allclose(ours, golden()["decoded0"], atol=1e-3)


corner = st.floats(0, 0.875, width=32)
side = st.floats(0.0625, 1, width=32)


@given(st.lists(st.tuples(corner, corner, side, side), min_size=1, max_size=8))
def test_codes_are_undone_by_decoding(rows):
    boxes = np.array(rows, np.float32)
    boxes[:, 2:] += boxes[:, :2]
    anchors = place((4, 2))[: len(boxes)]
    np.testing.assert_allclose(decode(encode(boxes, anchors), anchors), boxes, atol=1e-5)
    np.testing.assert_allclose(to_corners(to_centers(boxes)), boxes, atol=1e-6)
    np.testing.assert_allclose(np.diag(overlaps(boxes, boxes)), 1, atol=1e-6)


@pytest.mark.parametrize("image", IMAGES)
def test_detections_are_torchvisions(image):
    post = PostProcess(golden_anchors(), DetectionKeys(nms_threshold=0.6, min_score=0.01))
    found = post(golden()["cls_logits"][image], golden()["bbox_regression"][image])
    np.testing.assert_allclose(found.scores, golden()[f"det{image}_scores"], atol=1e-5)
    np.testing.assert_array_equal(found.classes + 1, golden()[f"det{image}_labels"])
    np.testing.assert_allclose(found.corners * SIDE, golden()[f"det{image}_boxes"], atol=1e-2)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 40))
def test_one_pass_over_all_classes_is_one_per_class_then_the_best(seed, classes, most):
    rng = np.random.default_rng(seed)
    count = 60
    boxes = rng.random((count, 4)).astype(np.float32)
    boxes[:, 2:] = boxes[:, :2] + 0.3 * boxes[:, 2:] + 0.05
    scores, kinds = rng.permutation(count).astype(np.float32) / count, rng.integers(0, classes, count)
    each = []
    for kind in range(classes):
        own = np.flatnonzero(kinds == kind)
        each += own[suppress(boxes[own], scores[own], kinds[own], 0.4, count)].tolist()
    expected = sorted(each, key=lambda index: -scores[index])[:most]
    assert suppress(boxes, scores, kinds, 0.4, most).tolist() == expected


def test_focal_scores_are_sigmoids_without_the_background():
    logits = np.array([[9.0, 0.0, -2.0]], np.float32)
    scores = PostProcess(golden_anchors(), DetectionKeys(class_loss="focal")).scores(logits)
    np.testing.assert_allclose(scores, [[0.5, 1 / (1 + np.exp(2))]], rtol=1e-6)


def test_nothing_above_the_least_score_is_no_detection():
    post = PostProcess(golden_anchors(), DetectionKeys(min_score=1.0))
    assert len(post(golden()["cls_logits"][0], golden()["bbox_regression"][0])) == 0
