"""What an exported file says of itself: enough to feed it images and to name what it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.data.sets import without_places
from mindcv_mnasnet.detection.anchors import anchors_of
from mindcv_mnasnet.detection.postprocess import PostProcess
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.export.folded import Folded, FoldedDetector, fold, fold_detector
from mindcv_mnasnet.networks.detector import Detector
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.run.checkpoint import Checkpoint
from mindcv_mnasnet.weights.labels import class_title

KEY = "mindcv_mnasnet"


@dataclass(frozen=True)
class ModelMetadata:
    """A description that travels inside the exported file.

    ``input`` "float" takes normalized pixels, (N, C, H, W) or for TFLite (N, H, W, C); "uint8" takes raw ones,
    (N, H, W, C), and normalizes them itself. ``mean`` and ``std`` are on the 0 to 255 scale. ``weights`` is "ema" or
    "raw", ``checkpoint`` the name of the exported file, ``batch`` how many images go in at once (None: any number).
    ``class_titles`` say what ``class_names`` mean, where these are WordNet ids. ``detector`` is None for classifiers;
    else its "description", the "category_ids" of the classes, "nms" (whether the file suppresses overlaps itself) and
    the "anchors", (center x, center y, width, height) as shares of the image.
    """

    recipe: Mapping[str, Any]
    network: Mapping[str, Any]
    class_names: tuple[str, ...]
    source: str | None
    weights: str
    checkpoint: str
    input: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    quantization: str | None = None
    batch: int | None = 1
    class_titles: tuple[str, ...] = ()
    detector: Mapping[str, Any] | None = None
    data: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        recipe: Recipe | None = None,
        input: str = "float",
        ema: bool | None = None,
        quantization: str | None = None,
        batch: int | None = 1,
        nms: bool = False,
    ) -> ModelMetadata:
        """The metadata of a checkpoint's export for images prepared as ``recipe`` says (None: the checkpoint's own)."""
        recipe = recipe or checkpoint.recipe
        size = recipe.image_resize
        mean, std = recipe.pixel_statistics()
        network, detector = replace(checkpoint.network, image_size=size), None
        if (on := checkpoint.detector) is not None:
            anchors = anchors_of(replace(on, network=network)).astype(float).round(8).tolist()
            detector = {
                "description": on.to_dict(),
                "category_ids": list(checkpoint.meta["category_ids"]),
                "nms": nms,
                "anchors": anchors,
            }
        return cls(
            recipe=without_places(recipe).to_dict(),
            network=network.to_dict(),
            class_names=checkpoint.class_names,
            source=checkpoint.meta.get("source"),
            weights=checkpoint.chosen(ema),
            checkpoint=checkpoint.path.name,
            input=input,
            mean=tuple(float(value) for value in mean),
            std=tuple(float(value) for value in std),
            quantization=quantization,
            batch=batch,
            class_titles=tuple(map(class_title, checkpoint.class_names)),
            detector=detector,
            data=checkpoint.meta.get("data"),
        )

    @classmethod
    def blank(cls, network: Network, batch: int | None = 1) -> ModelMetadata:
        """The metadata of a network without a checkpoint, whose file is only timed."""
        recipe = Recipe(image_resize=network.image_size)
        mean, std = ((value,) * network.in_channels for value in (0.0, 1.0))
        names = tuple(str(number) for number in range(network.num_classes))
        return cls(recipe.to_dict(), network.to_dict(), names, None, "raw", "", "float", mean, std, None, batch)

    def network_description(self) -> Network:
        """The network that was exported."""
        return Network.from_dict(self.network)

    def detector_description(self) -> Detector | None:
        """The detector that was exported, if it is one."""
        stored = self.detector
        return None if stored is None else Detector.from_dict(self.network_description(), stored["description"])

    @property
    def suppresses(self) -> bool:
        """Whether the file gives detections, not the raw answer of a detector."""
        return self.detector is not None and bool(self.detector["nms"])

    def post_process(self, recipe: Recipe | None = None) -> PostProcess:
        """What turns a detector's raw answer into detections, as ``recipe`` says (None: its own)."""
        assert self.detector is not None
        return PostProcess(np.asarray(self.detector["anchors"], np.float32), recipe or self.own_recipe())

    def own_recipe(self) -> Recipe:
        """The recipe, which says how images are prepared."""
        return Recipe.from_dict(self.recipe, "the recipe in the exported file")

    def to_json(self) -> str:
        """As text; ``from_json`` is the inverse."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes, origin: Path) -> ModelMetadata:
        """Read what ``to_json`` wrote.

        Raises:
            UserError: it is something else.
        """
        try:
            values = json.loads(text)
            known = {field.name for field in fields(cls)}
            if not isinstance(values, dict) or values.keys() | {"class_titles", "detector", "data"} != known:
                raise ValueError("its description has other keys")
            lists = {name: tuple(values.get(name, ())) for name in ("class_names", "class_titles", "mean", "std")}
        except (ValueError, TypeError) as error:
            raise UserError(f"{origin} was exported by another version or is damaged ({error})") from None
        return cls(**{**values, **lists})


def folded_as(metadata: ModelMetadata, tensors: Mapping[str, np.ndarray]) -> Folded | FoldedDetector:
    """The tensors of a checkpoint folded for what the metadata describes."""
    detector = metadata.detector_description()
    return fold(metadata.network_description(), tensors) if detector is None else fold_detector(detector, tensors)
