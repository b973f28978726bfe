"""Every model name of every source: which family, at which width, under whose conventions."""

from __future__ import annotations

from typing import Any, NamedTuple

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


def _names() -> dict[str, Name]:
    names = {family: Name(family, "own", 1.0) for family in ("a1", "b1", "small")}
    names |= {family: Name(family, "own", None) for family in ("d1", "d1_320")}
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
    for tagged in ("mnasnet_100.rmsp_in1k", "semnasnet_075.rmsp_in1k", "semnasnet_100.rmsp_in1k"):
        names[tagged] = names[tagged.partition(".")[0]]._replace(source="timm")
    names["mnasnet_small.lamb_in1k"] = names["mnasnet_small"]
    return names


#: Names that timm and MindCV share mean MindCV's model; timm's own is named with its tag.
NAMES = _names()
