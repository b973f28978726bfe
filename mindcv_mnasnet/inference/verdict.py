"""When a measured accuracy may be compared with a published one, and the result of that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.networks.reported import Reported, load_reported

IMAGENET_VAL_IMAGES = 50_000
COCO_VAL = (5_000, 80)  # images and classes of val2017
_DESCRIPTION = (
    "blocks",
    "width_mult",
    "stem",
    "stem_stride",
    "head",
    "divisor",
    "min_width",
    "num_classes",
    "in_channels",
)


@dataclass(frozen=True)
class EvalSettings:
    """How an accuracy was measured.

    ``val_resize`` None means ``int(image_size / crop_pct)``, and neither matters to ``eval_crop`` "tf_square".
    ``source`` is where the weights claim to come from: None (own training or unknown), a source such as "timm", or
    source and checkpoint such as "timm/mnasnet_100.rmsp_in1k".
    """

    image_size: int
    crop_pct: float
    val_resize: int | None
    interpolation: str
    eval_crop: str
    padding: str
    bn_eps: float
    dataset_name: str
    images: int
    source: str | None = None


@dataclass(frozen=True)
class Verdict:
    """A measurement beside the published result that it may be compared with, or ``reason`` why there is none.

    Accuracies and differences (measured minus reported) are in per cent points; top-5 counts where it is published.
    """

    reported: Reported | None
    top1: float
    top5: float | None
    tolerance: float
    reason: str | None = None

    @property
    def comparable(self) -> bool:
        return self.reason is None

    @property
    def difference_top1(self) -> float | None:
        return self._difference(self.top1, "top1")

    @property
    def difference_top5(self) -> float | None:
        return self._difference(self.top5, "top5")

    @property
    def inside(self) -> bool | None:
        """Whether every published accuracy is met within the tolerance; None if not comparable."""
        if not self.comparable:
            return None
        differences = (self.difference_top1, self.difference_top5)
        return all(abs(difference) <= self.tolerance for difference in differences if difference is not None)

    def _difference(self, measured: float | None, key: str) -> float | None:
        reported = getattr(self.reported, key, None) if self.comparable else None
        return None if measured is None or reported is None else round(measured - reported, 6)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "comparable": self.comparable,
            "reason": self.reason,
            "reported": self.reported.label if self.reported else None,
            "reported_top1": self.reported.top1 if self.reported else None,
            "reported_top5": self.reported.top5 if self.reported else None,
            "difference_top1": self.difference_top1,
            "difference_top5": self.difference_top5,
            "tolerance": self.tolerance,
            "inside": self.inside,
        }

    def __str__(self) -> str:
        if self.reason or self.reported is None:
            return f"not compared with a reported result: {self.reason}"
        lines = [f"reported by {self.reported.label} ({self.reported.url})"]
        for name, measured, key in (("top-1", self.top1, "top1"), ("top-5", self.top5, "top5")):
            if (difference := self._difference(measured, key)) is not None:
                reported = getattr(self.reported, key)
                lines.append(
                    f"  {name}: reported {reported:.3f}, measured {measured:.3f}, difference {difference:+.3f}"
                )
        lines.append(f"  {'inside' if self.inside else 'OUTSIDE'} the tolerance of {self.tolerance:g} points")
        return "\n".join(lines)


def compare(
    network: Network, settings: EvalSettings, top1: float, top5: float | None, tolerance: float = 0.1
) -> Verdict:
    """Hold a measurement (per cent) against the published result that was measured the same way.

    Without one, the verdict's reason names every setting in which the nearest published result differs. Where two
    checkpoints were measured alike, the one closer in top-1 is taken. A negative tolerance is a ``UserError``.
    """
    if not tolerance >= 0:
        raise UserError(f"tolerance is {tolerance!r}, but must be 0 or more points")
    entry, reason = _counterpart(network, settings, top1)
    return Verdict(entry, top1, top5, tolerance, reason)


def compare_boxes(images: int, classes: int, ap: float, tolerance: float = 0.1) -> Verdict:
    """The verdict on a detector's AP (percent): what is reported of MnasNet's is of images without public boxes."""
    entries = [entry for entry in load_reported() if entry.mean_ap is not None]
    if (images, classes) == COCO_VAL:
        listed = ", ".join(f"{one.mean_ap} by {one.source}'s {one.model} ({one.dataset})" for one in entries)
        return Verdict(None, ap, None, tolerance, f"none is reported for MnasNet on val2017; there are {listed}")
    found = f"these are {images:,} images with {classes} classes"
    return Verdict(None, ap, None, tolerance, f"precisions are reported for COCO's 80 classes, {found}")


def _counterpart(network: Network, settings: EvalSettings, top1: float) -> tuple[Reported | None, str | None]:
    if (settings.dataset_name.lower(), settings.images) != ("imagenet", IMAGENET_VAL_IMAGES):
        named = "" if settings.dataset_name.lower() in ("", "imagenet") else f" of {settings.dataset_name}"
        found = f"these are {settings.images:,} images{named}"
        return None, f"results are reported for ImageNet's {IMAGENET_VAL_IMAGES:,} validation images, {found}"
    entries = [entry for entry in load_reported() if entry.top1 is not None and _claimed(entry, settings.source)]
    if not entries:
        return None, f"no result is reported for weights from {settings.source}"
    differing = {entry: _differences(entry, network, settings) for entry in entries}
    nearest = min(entries, key=lambda entry: (_distance(differing[entry]), abs((entry.top1 or 0) - top1)))
    if not differing[nearest]:
        return nearest, None
    return None, f"the nearest is {nearest.label}, but {'; '.join(differing[nearest].values())}"


def _claimed(entry: Reported, source: str | None) -> bool:
    name, _, checkpoint = (source or entry.source).partition("/")
    return entry.source == name and checkpoint in ("", entry.checkpoint)


def _distance(differences: dict[str, str]) -> int:
    weights = {"blocks": 1000, "width_mult": 100, "image_size": 10}
    return sum(weights.get(key, 1) for key in differences)


def _differences(entry: Reported, network: Network, settings: EvalSettings) -> dict[str, str]:
    """For every setting that differs, or that the source does not state, what to say about it."""
    ours = {key: getattr(settings, key) for key in ("image_size", "eval_crop", "interpolation", "padding", "bn_eps")}
    if settings.eval_crop != "tf_square":
        derived = int(settings.image_size / settings.crop_pct)
        ours["val_resize"] = derived if settings.val_resize is None else settings.val_resize
    theirs = {key: getattr(entry, key) for key in ours}
    reference = entry.network()
    if reference is None:
        return {"blocks": "its network is not published"}
    if _shape(reference) != _shape(network):
        ours |= {key: getattr(network, key) for key in _DESCRIPTION}
        theirs |= {key: getattr(reference, key) for key in _DESCRIPTION}
    elif reference.layers() != network.layers():
        ours["residual_rule"], theirs["residual_rule"] = network.residual_rule, reference.residual_rule
    return {key: _difference(key, ours[key], theirs[key]) for key in ours if not _equal(ours[key], theirs[key])}


def _difference(key: str, ours: Any, theirs: Any) -> str:
    if key == "blocks":
        return "its blocks are others"
    return f"it does not state its {key}" if theirs is None else f"its {key} is {theirs}, not {ours}"


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=1e-6)
    return ours == theirs


def _shape(network: Network) -> tuple[Any, ...]:
    """All that decides which weights fit."""
    layers = [
        (layer.kernel, layer.stride, layer.expand, layer.out_width, layer.se_width, layer.conv)
        for layer in network.layers()
    ]
    ends = (network.in_channels, network.stem_width, network.stem_stride, network.head_width, network.num_classes)
    return (*ends, *layers)
