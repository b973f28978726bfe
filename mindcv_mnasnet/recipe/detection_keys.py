"""The keys of detection, and which of a classifier's keys mean nothing there."""

from __future__ import annotations

from dataclasses import dataclass

from mindcv_mnasnet.recipe.rule import Use, key

TASKS = ("classify", "detect")

#: Keys that detection has no use for, and what to do instead, if anything.
CLASSIFIERS_KEYS = {
    **dict.fromkeys(("mixup", "cutmix", "cutmix_prob"), "boxes cannot be mixed"),
    **dict.fromkeys(
        ("re_prob", "re_scale", "re_ratio", "re_value", "re_max_attempts"), "objects would be erased with their boxes"
    ),
    "auto_augment": "it moves pixels without their boxes",
    **dict.fromkeys(("scale", "ratio"), "crop_overlaps says how images are cropped"),
    **dict.fromkeys(("crop_pct", "val_resize", "eval_crop"), "whole images are resized to image_resize"),
    **dict.fromkeys(("loss", "label_smoothing"), "class_loss is the loss of classes"),
    "val_labels": "boxes stand in annotations/instances_<val_split>.json",
    "drop_rate": "there is no classifier",
    **dict.fromkeys(("quantize", "quant_delay_epochs", "bn_freeze_epochs"), "detectors are not trained for 8 bits"),
    "layer_decay": "the new layers have no place in the order of stages",
}


@dataclass(frozen=True)
class DetectionKeys:
    """detection (task: detect)"""

    task: str = key("classify", "classify images, or detect objects", choices=TASKS, use=Use.STATE)
    extras_out_channels: tuple[int, ...] = key(
        (512, 256, 256, 128), "widths of the layers added after the head", within="[2, inf)", use=Use.STATE
    )
    min_scale: float = key(0.2, "scale of the finest map's anchors, as a share of the image", within="(0, 1]")
    max_scale: float = key(0.95, "scale of the coarsest map's anchors", within="(0, 1]")
    reduce_boxes_in_lowest_layer: bool = key(
        True,
        "three anchors a cell on the finest map, the square one of half its scale; False: as on the others",
        use=Use.STATE,
    )
    aspect_ratios: tuple[float, ...] = key(
        (2.0, 3.0), "aspect ratios of anchors, with their inverses", within="(1, inf)", use=Use.STATE
    )
    prior_scaling: tuple[float, ...] = key(
        (0.1, 0.2), "scales of the codes of centers and of sides", within="(0, inf)", length=2
    )
    match_threshold: float = key(0.5, "least overlap of an anchor with the box it answers for", within="(0, 1]")
    class_loss: str = key("softmax", "softmax with mined negatives, or focal", choices=("softmax", "focal"))
    neg_ratio: int = key(3, "negatives mined per positive, with softmax", within="[1, inf)")
    alpha: float = key(0.75, "weight of a right class in focal loss", within="(0, 1)")
    gamma: float = key(2.0, "power of focal loss", within="[0, inf)")
    box_loss_weight: float = key(1.0, "weight of the boxes' loss", within="(0, inf)")
    crop_overlaps: tuple[float, ...] = key(
        (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        "least overlaps of random crops with a box, one drawn per image; 1 is the whole image",
        within="[0, 1]",
    )
    min_score: float = key(0.01, "least score of a detection", within="[0, 1)", use=Use.VALIDATION)
    nms_threshold: float = key(
        0.6, "overlap with a better detection of its class that drops one", within="(0, 1]", use=Use.VALIDATION
    )
    max_boxes: int = key(100, "detections per image", within="[1, inf)", use=Use.VALIDATION)
