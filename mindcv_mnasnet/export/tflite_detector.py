"""Detectors in TensorFlow's operators: the raw answer, and after it, if wanted, TFLite_Detection_PostProcess."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mindcv_mnasnet.export.folded import Conv, FoldedDetector
from mindcv_mnasnet.export.metadata import ModelMetadata
from mindcv_mnasnet.export.tflite_graph import Graph

POST_PROCESS = "TFLite_Detection_PostProcess"


def detector_function(graph: Graph, folded: FoldedDetector, metadata: ModelMetadata) -> Callable[[Any], Any]:
    """The detector as a function of pixels (N, H, W, C).

    It gives logits (N, anchors, slots) and codes (N, anchors, 4); with ``nms`` in the metadata, for one image, boxes
    (1, K, 4) as top, left, bottom, right in shares of the image, classes (1, K) from 0, scores (1, K), and how many of
    the K = ``max_boxes`` count.
    """
    tf = graph.tf

    def rows(x: Any, pair: tuple[Conv, Conv], values: int) -> Any:
        x = graph.conv(graph.conv(x, pair[0]), pair[1])
        _, height, width, channels = x.shape
        return tf.reshape(x, (-1, height * width * channels // values, values))

    def answer(x: Any) -> Any:
        x = graph.features(graph.entered(x, metadata), folded.backbone)
        maps = [graph.points[folded.tapped], x]
        for extra in folded.extras:
            for conv in extra:
                x = graph.conv(x, conv)
            maps.append(x)
        pairs = list(zip(maps, folded.predictors, strict=True))
        logits = tf.concat([rows(x, of_map[0], folded.detector.slots) for x, of_map in pairs], 1)
        codes = tf.concat([rows(x, of_map[1], 4) for x, of_map in pairs], 1)
        return _suppressed(tf, logits, codes, metadata) if metadata.suppresses else (logits, codes)

    return answer


def _suppressed(tf: Any, logits: Any, codes: Any, metadata: ModelMetadata) -> Any:
    recipe = metadata.own_recipe()
    assert metadata.detector is not None
    anchors = np.asarray(metadata.detector["anchors"], np.float32)[:, [1, 0, 3, 2]]  # the operator has y before x
    scores = tf.nn.softmax(logits) if recipe.class_loss == "softmax" else tf.nn.sigmoid(logits)
    whole = {
        "max_detections": recipe.max_boxes,
        "detections_per_class": recipe.max_boxes,
        "max_classes_per_detection": 1,
        "num_classes": len(metadata.class_names),
    }
    real = {
        "nms_score_threshold": recipe.min_score,
        "nms_iou_threshold": recipe.nms_threshold,
        **dict.fromkeys(("y_scale", "x_scale"), 1 / recipe.prior_scaling[0]),
        **dict.fromkeys(("h_scale", "w_scale"), 1 / recipe.prior_scaling[1]),
    }
    said = [
        f'name: "{POST_PROCESS}"',
        'attr { key: "use_regular_nms" value { b: true } }',
        *(f'attr {{ key: "{name}" value {{ i: {value} }} }}' for name, value in whole.items()),
        *(f'attr {{ key: "{name}" value {{ f: {value!r} }} }}' for name, value in real.items()),
    ]

    def stands_for(codes: Any, scores: Any, anchors: Any) -> Any:
        """What the converter replaces by the operator: the number of outputs and their type are all that count."""
        return tuple(tf.constant(0.0, tf.float32, name=name) for name in ("boxes", "classes", "scores", "count"))

    post = tf.function(stands_for, experimental_implements=" ".join(said), autograph=False)
    return post(tf.gather(codes, [1, 0, 3, 2], axis=2), scores, tf.constant(anchors))
