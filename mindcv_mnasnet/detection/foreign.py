"""Boxes as other tools label them, on their way to an annotation file in COCO's format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mindcv_mnasnet.data.images import BadImage, upright_size
from mindcv_mnasnet.detection.coco import box_fault


@dataclass(frozen=True)
class ForeignBox:
    """A class name and (left, top, width, height) in pixels; a ``crowd`` may be found or not, it does not count."""

    name: str
    box: tuple[float, float, float, float]
    crowd: bool = False


@dataclass
class Labels:
    """What a folder of labels says: images with their size in pixels and boxes, and a sentence about each fault.

    ``class_names`` None: all names that occur, sorted.
    """

    images: list[tuple[str, int, int, list[ForeignBox]]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    class_names: Sequence[str] | None = None

    def add(
        self, label: str, folder: Path, image: str, boxes_of: Callable[[int, int], Iterable[ForeignBox | str]]
    ) -> None:
        """Take an image, unless it is broken, with its sound boxes.

        Args:
            label: what faults are reported of.
            folder: the images' folder, ``image`` being relative to it.
            boxes_of: boxes by the image's width and height; sentences stand for faults. BadImage: none can be told.
        """
        try:
            width, height = upright_size(str(folder / image))
            found = list(boxes_of(width, height))
        except BadImage as error:
            self.faults.append(f"{label}: image {error}")
            return
        sound = []
        for one in found:
            reason = one if isinstance(one, str) else self._fault(one, width, height)
            if reason is None and isinstance(one, ForeignBox):
                sound.append(one)
            else:
                self.faults.append(f"{label}: {reason}")
        self.images.append((image, width, height, sound))

    def _fault(self, one: ForeignBox, width: int, height: int) -> str | None:
        if self.class_names is not None and one.name not in self.class_names:
            return f"class {one.name!r} is none of {', '.join(self.class_names)}"
        reason = box_fault(list(one.box), (width, height))
        if reason is None and not (one.box[2] > 0 and one.box[3] > 0):
            reason = "has no area"
        return reason and f"{one.name} with left, top, width, height {', '.join(f'{v:g}' for v in one.box)} {reason}"

    def names(self) -> list[str]:
        """Classes in the order of their ids."""
        if self.class_names is not None:
            return list(self.class_names)
        return sorted({box.name for *_, boxes in self.images for box in boxes})

    def document(self) -> dict[str, Any]:
        """All of it as COCO has it: images by name, ids from 1."""
        numbers = {name: number for number, name in enumerate(self.names(), 1)}
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image, (name, width, height, boxes) in enumerate(sorted(self.images, key=lambda one: one[0]), 1):
            images.append({"id": image, "file_name": name, "width": width, "height": height})
            for one in boxes:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image,
                        "category_id": numbers[one.name],
                        "bbox": list(one.box),
                        "area": one.box[2] * one.box[3],
                        "iscrowd": int(one.crowd),
                    }
                )
        categories = [{"id": number, "name": name} for name, number in numbers.items()]
        return {"images": images, "annotations": annotations, "categories": categories}
