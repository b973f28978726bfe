"""Labels as Pascal VOC has them: one XML file for each image, whose corners count from 1 and include the last pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from mindcv_mnasnet.data.images import BadImage
from mindcv_mnasnet.data.walk import images_under
from mindcv_mnasnet.detection.foreign import ForeignBox, Labels
from mindcv_mnasnet.errors import UserError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses document types, which alone can declare entities: they would expand without bound, or read files."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ElementTree.ParseError("it has a document type, which VOC's files have not")


def read_voc(
    source: Path, images: Path | None = None, class_names: Sequence[str] | None = None, listed: Path | None = None
) -> Labels:
    """Read ``source/Annotations/*.xml``, or the XML files below ``source``. "difficult" objects become crowds.

    Args:
        images: folder of the images (None: ``source/JPEGImages``, or where the XML files are).
        class_names: classes in the order of their ids; None takes all that occur, sorted.
        listed: text file with the names to take, without suffix, such as ``ImageSets/Main/train.txt``.
    Raises:
        UserError: no such folder or list, or no XML files.
    """
    folder = source / "Annotations" if (source / "Annotations").is_dir() else source
    images = images or (source / "JPEGImages" if (source / "JPEGImages").is_dir() else folder)
    for one in (folder, images):
        if not one.is_dir():
            raise UserError(f"there is no folder {one}")
    files = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*.xml"))
        if not path.name.startswith(".")
    }
    if not files:
        raise UserError(f"{folder} holds no XML files")
    found = Labels(class_names=class_names)
    wanted = list(files) if listed is None else _listed(listed)
    known: dict[str, list[str]] = {}
    for image in images_under(str(images)):
        known.setdefault(Path(image).with_suffix("").as_posix(), []).append(image)
    for name in wanted:
        if name not in files:
            found.faults.append(f"{name}.xml: {listed} lists it and {folder} lacks it")
        elif name not in known:
            found.faults.append(f"{name}.xml: {images} has no image of that name")
        else:
            _take(found, f"{name}.xml", files[name], images, known[name])
    return found


def _listed(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path}: {error}") from None


def _take(found: Labels, label: str, path: Path, images: Path, candidates: Sequence[str]) -> None:
    """Take the image that an XML file is of; where several have its name, its ``filename`` says which."""
    try:
        root = ElementTree.parse(path, ElementTree.XMLParser(target=_NoDoctype())).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter for unknown encodings
        found.faults.append(f"{label}: it is no sound XML ({error})")
        return
    except OSError as error:
        found.faults.append(f"{label}: {error.strerror or error}")
        return
    if root.tag != "annotation":
        found.faults.append(f"{label}: it is no VOC annotation, but <{root.tag}>")
        return
    said = root.findtext("filename", "").strip()
    named = [image for image in candidates if len(candidates) == 1 or Path(image).name == said]
    if len(named) != 1:
        found.faults.append(f"{label}: its image may be any of {', '.join(candidates)}; filename does not say which")
        return
    found.add(label, images, named[0], partial(_boxes, root, named[0]))


def _boxes(root: ElementTree.Element, image: str, width: int, height: int) -> Iterator[ForeignBox | str]:
    said = [_number(root.findtext(f"size/{side}")) for side in ("width", "height")]
    if all(side > 0 for side in said) and said != [width, height]:
        raise BadImage(image, f"it has {width} x {height} pixels, its labels say {said[0]:g} x {said[1]:g}")
    for number, thing in enumerate(root.iterfind("object"), 1):
        name = thing.findtext("name", "").strip()
        corners = [_number(thing.findtext(f"bndbox/{key}")) for key in _CORNERS]
        if not name:
            yield f"object {number} has no name"
        elif not all(map(math.isfinite, corners)):
            yield f"object {number} ({name}) has no four numbers as {', '.join(_CORNERS)}"
        else:
            left, top, right, bottom = corners
            crowd = thing.findtext("difficult", "0").strip() == "1"
            yield ForeignBox(name, (left - 1, top - 1, right - left + 1, bottom - top + 1), crowd)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
