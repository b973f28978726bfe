"""Detectors as ONNX graphs: the raw answer, and after it, if wanted, scores, boxes and NonMaxSuppression."""

from __future__ import annotations

import numpy as np

from mindcv_mnasnet.detection.boxes import MOST_GROWTH
from mindcv_mnasnet.export.folded import Conv, FoldedDetector
from mindcv_mnasnet.export.onnx_graph import Graph


def add_detector(graph: Graph, folded: FoldedDetector) -> None:
    """Add a detector with its outputs.

    They are ``logits`` (N, anchors, slots) and ``codes`` (N, anchors, 4); with ``nms`` in the metadata, and one image,
    ``boxes`` (1, K, 4) as top, left, bottom, right in shares of the image, ``classes`` (1, K) from 0 and ``scores``
    (1, K), best first, K being at most ``max_boxes``.
    """
    detector = folded.detector
    x = graph.features(graph.entered(detector.network), folded.backbone)
    maps = [folded.tapped, x]
    for extra in folded.extras:
        for conv in extra:
            x = graph.conv(x, conv)
        maps.append(x)
    pairs = list(zip(maps, folded.predictors, strict=True))
    rows = [_rows(graph, x, of_map[0], detector.slots) for x, of_map in pairs]
    logits = graph.add("Concat", rows, "logits", axis=1)
    codes = graph.add("Concat", [_rows(graph, x, of_map[1], 4) for x, of_map in pairs], "codes", axis=1)
    if graph.metadata.suppresses:
        _suppress(graph, logits, codes)
    else:
        graph.leave(logits, [detector.anchor_count(), detector.slots])
        graph.leave(codes, [detector.anchor_count(), 4])


def _rows(graph: Graph, x: str, convs: tuple[Conv, Conv], values: int) -> str:
    """One map's answers as (N, anchors of the map, values)."""
    x = graph.conv(graph.conv(x, convs[0]), convs[1])
    x = graph.add("Transpose", [x], f"{x}.nhwc", perm=[0, 2, 3, 1])
    shape = graph.constant(f"{x}.shape", np.array([0, -1, values]))
    return graph.add("Reshape", [x, shape], f"{x}.rows")


def _suppress(graph: Graph, logits: str, codes: str) -> None:
    recipe = graph.metadata.own_recipe()
    assert graph.metadata.detector is not None
    if recipe.class_loss == "softmax":
        scores = graph.add("Softmax", [logits], "slots.scores", axis=2)
    else:
        scores = graph.add("Sigmoid", [logits], "slots.scores")
    places = (("from", 1), ("to", 2**31), ("axis", 2))  # all slots but background
    bounds = [graph.constant(f"slots.{name}", np.array([value])) for name, value in places]
    scores = graph.add("Slice", [scores, *bounds], "anchors.scores")
    scores = graph.add("Transpose", [scores], "classes.scores", perm=[0, 2, 1])
    boxes = _decoded(graph, codes, np.asarray(graph.metadata.detector["anchors"], np.float32), recipe.prior_scaling)
    limits = [
        graph.constant("nms.most", np.array([recipe.max_boxes])),
        graph.constant("nms.overlap", np.array([recipe.nms_threshold], np.float32)),
        graph.constant("nms.score", np.array([recipe.min_score], np.float32)),
    ]
    chosen = graph.add("NonMaxSuppression", [boxes, scores, *limits], "nms")  # (found, 3): image, class, anchor
    values = graph.add("GatherND", [scores, chosen], "found.scores")
    count = graph.add("Min", [graph.add("Shape", [values], "found.count"), limits[0]], "kept.count")
    best, order = graph.add_all("TopK", [values, count], ["kept.scores", "kept.order"])
    rows = graph.add("Gather", [chosen, order], "kept.rows")
    first = graph.constant("first", np.array([0]))
    columns = {
        name: graph.add("Gather", [rows, graph.constant(f"{name}.column", np.array(column))], f"kept.{name}", axis=1)
        for name, column in (("classes", 1), ("anchors", 2))
    }
    kept = graph.add("Gather", [boxes, columns["anchors"]], "boxes", axis=1)
    classes = graph.add("Cast", [columns["classes"]], "kept.classes.float", to=1)
    graph.leave(kept, [None, 4])
    graph.leave(graph.add("Unsqueeze", [classes, first], "classes"), [None])
    graph.leave(graph.add("Unsqueeze", [best, first], "scores"), [None])


def _decoded(graph: Graph, codes: str, anchors: np.ndarray, scaling: tuple[float, ...]) -> str:
    """Boxes (N, anchors, 4) as top, left, bottom, right, cut at the image."""
    swapped = anchors[:, [1, 0, 3, 2]]  # y before x, as NonMaxSuppression has it
    order = graph.constant("codes.order", np.array([1, 0, 3, 2]))
    codes = graph.add("Gather", [codes, order], "codes.yx", axis=2)
    shifts, growth = graph.add_all("Split", [codes], ["shifts", "growth"], axis=2, num_outputs=2)
    moved = graph.add("Mul", [shifts, graph.constant("anchors.step", swapped[:, 2:] * np.float32(scaling[0]))], "moved")
    centers = graph.add("Add", [moved, graph.constant("anchors.centers", swapped[:, :2])], "centers")
    scale = graph.constant("growth.scale", np.array(scaling[1], np.float32))
    grown = graph.add("Mul", [growth, scale], "growth.scaled")
    grown = graph.add("Min", [grown, graph.constant("growth.most", np.array(MOST_GROWTH, np.float32))], "growth.cut")
    halves = graph.constant("anchors.halves", swapped[:, 2:] / 2)
    half = graph.add("Mul", [graph.add("Exp", [grown], "growth.factor"), halves], "halves")
    ends = [graph.add(operator, [centers, half], name) for operator, name in (("Sub", "starts"), ("Add", "ends"))]
    limits = [graph.constant(f"image.{name}", np.array(value, np.float32)) for name, value in (("from", 0), ("to", 1))]
    return graph.add("Clip", [graph.add("Concat", ends, "corners", axis=2), *limits], "anchors.boxes")
