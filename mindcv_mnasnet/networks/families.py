"""The families' tables, and every model name of every source: which family, which width, whose conventions."""

from __future__ import annotations

from typing import Any, NamedTuple

#: Fields of ``Network`` per family, from the authors' TensorFlow code (tensorflow/tpu, models/official/mnasnet).
FAMILY_VALUES: dict[str, dict[str, Any]] = {
    "a1": {
        "blocks": "r1_k3_s11_e1_o16_noskip r2_k3_s22_e6_o24 r3_k5_s22_e3_o40_se0.25 r4_k3_s22_e6_o80 "
        "r2_k3_s11_e6_o112_se0.25 r3_k5_s22_e6_o160_se0.25 r1_k3_s11_e6_o320",
    },
    "b1": {
        "blocks": "r1_k3_s11_e1_o16_noskip r3_k3_s22_e3_o24 r3_k5_s22_e3_o40 r3_k5_s22_e6_o80 r2_k3_s11_e6_o96 "
        "r4_k5_s22_e6_o192 r1_k3_s11_e6_o320_noskip",
    },
    "small": {
        "blocks": "r1_k3_s11_e1_o8 r1_k3_s22_e3_o16 r2_k3_s22_e6_o16 r4_k5_s22_e6_o32_se0.25 "
        "r3_k3_s11_e6_o32_se0.25 r3_k5_s22_e6_o88_se0.25 r1_k3_s11_e6_o144",
        "stem": 8,
        "declared_stem": 16,
    },
    "d1": {
        "blocks": "r1_k3_s11_e9_o24 r3_k3_s22_e9_o36 r5_k3_s22_e9_o48 r4_k5_s22_e9_o96 r5_k7_s11_e3_o96 "
        "r3_k3_s22_e9_o80 r1_k7_s11_e6_o320_noskip",
        "width_mult": None,
    },
    "d1_320": {
        "blocks": "r3_k5_s11_e6_o24 r4_k7_s22_e9_o36 r5_k5_s22_e9_o48 r5_k7_s22_e6_o96 r5_k3_s11_e9_o144 "
        "r5_k5_s22_e6_o160 r1_k7_s11_e9_o320",
        "width_mult": None,
        "image_size": 320,
    },
}

AUTHORS = {"padding": "same", "bn_eps": 1e-3, "bn_momentum": 0.99, "residual_rule": "declared"}

#: Fields of ``Network`` that a source's code fixes for all of its models.
CONVENTIONS: dict[str, dict[str, Any]] = {
    "own": {},
    "tf": AUTHORS,
    "tflite": AUTHORS,
    "mindcv": {"padding": "symmetric", "bn_eps": 1e-3, "bn_momentum": 0.99},
    "timm": {"padding": "symmetric", "bn_eps": 1e-5, "bn_momentum": 0.9},
    "torchvision": {"padding": "symmetric", "bn_eps": 1e-5, "bn_momentum": 0.9997},
}


class Name(NamedTuple):
    """What a model name stands for; ``width_mult`` None scales and rounds nothing."""

    family: str
    source: str
    width_mult: float | None
    image_size: int = 224


def _names() -> dict[str, Name]:
    names = {
        family: Name(family, "own", values.get("width_mult", 1.0), values.get("image_size", 224))
        for family, values in FAMILY_VALUES.items()
    }
    for family, own in list(names.items()):
        authors = own._replace(source="tf")
        names[f"mnasnet-{family.replace('_', '-')}"] = names[f"mnasnet_{family}"] = authors
    names["mnasnet_small"] = Name("small", "timm", 1.0)
    for width in (0.5, 0.75, 1.0, 1.3, 1.4):
        names[f"mnasnet_{round(width * 100):03d}"] = Name("b1", "mindcv", width)
    for width in (0.5, 0.75, 1.0, 1.4):
        names[f"semnasnet_{round(width * 100):03d}"] = Name("a1", "timm", width)
    for width in (0.5, 0.75, 1.0, 1.3):
        names[f"mnasnet{str(width).replace('.', '_')}"] = Name("b1", "torchvision", width)
        names[f"mnasnet_{width}_224"] = Name("b1", "tflite", width)
    for size in (96, 128, 160, 192):
        names[f"mnasnet_1.0_{size}"] = Name("b1", "tflite", 1.0, size)
    for tagged in ("mnasnet_100.rmsp_in1k", "semnasnet_075.rmsp_in1k", "semnasnet_100.rmsp_in1k"):
        names[tagged] = names[tagged.partition(".")[0]]._replace(source="timm")
    names["mnasnet_small.lamb_in1k"] = names["mnasnet_small"]
    return names


#: Names that timm and MindCV share mean MindCV's model; timm's own is named with its tag.
NAMES = _names()
