"""COCO's numbers: the published ones of a fixed input, and pycocotools' on any."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from coco_files import annotation, document, write
from golden_numbers import REFERENCE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindcv_mnasnet.detection.coco import read_annotations
from mindcv_mnasnet.detection.evaluation import NAMES, evaluate, results
from mindcv_mnasnet.detection.postprocess import Detections

# By pycocotools 2.0.11 for the two files in tests/reference/detection.
PUBLISHED = (
    *(0.5045806987249628, 0.6969727247299577, 0.5729816669904824, 0.5856257209410443, 0.5193996948036719),
    *(0.5013978986347466, 0.38681277964578054, 0.5936795762842003, 0.595352982877607, 0.6398109626113442),
    *(0.5664205978994309, 0.5642905982905982),
)


def by_pycocotools(path, found: list[dict]) -> list[float]:
    coco, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO(str(path))
        if not found:
            other = coco.COCO()
            other.dataset = {**truth.dataset, "annotations": []}
            other.createIndex()
        else:
            other = truth.loadRes([dict(one) for one in found])
        judged = evaluation.COCOeval(truth, other, "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return judged.stats.tolist()


def test_the_twelve_numbers_are_the_published_ones():
    annotations = read_annotations(REFERENCE / "instances_val2014_100.json")
    scores = evaluate(annotations, json.loads((REFERENCE / "detections_val2014_100.json").read_text()))
    assert scores.numbers == pytest.approx(PUBLISHED, abs=1e-6)
    assert scores["ap"] == scores.numbers[0]
    assert scores["ar_large"] == scores.numbers[11]
    assert list(scores.to_dict())[:12] == list(NAMES)


def test_annotations_may_count_from_zero(tmp_path):
    content = document([(0, 64, 48)], [annotation(0, 0, [1, 2, 30, 20]), annotation(1, 0, [40, 9, 20, 30])], 1)
    annotations = read_annotations(write(tmp_path / "truth.json", content))
    detections = [
        {"image_id": 0, "category_id": 10, "bbox": one["bbox"], "score": 0.9} for one in content["annotations"]
    ]
    assert evaluate(annotations, detections)["ap"] == pytest.approx(1)


box = st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(1, 40), st.integers(1, 24)).map(list)
truths = st.lists(st.tuples(st.integers(1, 3), box, st.integers(1, 2), st.booleans()), max_size=8)
# Few different scores, so that many tie; images without boxes and without detections.
answers = st.lists(st.tuples(st.integers(1, 3), box, st.integers(1, 2), st.sampled_from([0.1, 0.5, 0.9])), max_size=12)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(truths, answers, st.booleans())
def test_any_input_scores_as_by_pycocotools(tmp_path, truths, answers, many):
    boxes = [annotation(n, i, b, c, iscrowd=int(k)) for n, (i, b, c, k) in enumerate(truths, 1)]
    path = write(tmp_path / "a.json", document([(1, 100, 64), (2, 100, 64), (3, 100, 64)], boxes))
    found = [
        {"image_id": i, "category_id": 10 * c, "bbox": [float(v) for v in b], "score": s} for i, b, c, s in answers
    ]
    found = found * 12 if many else found  # more than 100 in an image
    scores = evaluate(read_annotations(path), found)
    assert scores.numbers == pytest.approx(by_pycocotools(path, found), abs=1e-6)


def test_results_are_in_the_images_pixels_and_the_files_ids(tmp_path):
    path = write(tmp_path / "a.json", document([(4, 200, 100), (9, 50, 50)], []))
    found = Detections(np.array([[0.1, 0.2, 0.6, 0.9]]), np.array([0.75]), np.array([1]))
    (one,) = results(read_annotations(path), 0, found)
    assert (one["image_id"], one["category_id"], one["score"]) == (4, 20, 0.75)
    assert one["bbox"] == pytest.approx([20, 20, 100, 70])


def test_each_class_has_its_own_precision(tmp_path):
    boxes = [annotation(1, 1, [0, 0, 20, 20], 1), annotation(2, 1, [40, 30, 20, 20], 2)]
    path = write(tmp_path / "a.json", document([(1, 100, 64)], boxes, categories=3))
    found = [{"image_id": 1, "category_id": 10, "bbox": [0.0, 0.0, 20.0, 20.0], "score": 0.5}]
    scores = evaluate(read_annotations(path), found)
    assert scores.ap50_of["class 1"] == pytest.approx(1)
    assert scores.ap50_of["class 2"] == 0
    assert np.isnan(scores.ap50_of["class 3"])
