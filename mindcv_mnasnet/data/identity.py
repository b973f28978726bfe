"""Which images a data set holds, in a few numbers that a run keeps to know them again."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mindcv_mnasnet.data.images import BadImage, decode
from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.errors import JobError

_NAMES, _CONTENTS = 64, 8  # how many images stand for all
_PNG = b"\x89PNG"


class Relation(Enum):
    """What images are to those of a run."""

    SAME = "same"
    CHANGED = "changed"  # some came or went
    OTHER = "other"
    UNCLEAR = "unclear"  # names in common, but other images under them
    RELABELED = "relabeled"  # the same images with other labels


@dataclass(frozen=True)
class Identity:
    """Number, names and some contents of a set's images.

    Attributes:
        digest: SHA-256 (hex) of the sorted paths, relative to the set's folder.
        names: hashes of the paths that come first when all are sorted by their hash, a draw that few images change.
        contents: hashes of the images behind the first of these.
        form: what contents are comparable with: files, or a pack.
        labels: ``ImageIndex.label_digest``; None for runs of before it was kept.
    """

    images: int
    classes: int
    digest: str
    names: tuple[str, ...]
    contents: Mapping[str, str]
    form: str
    labels: str | None = None

    @classmethod
    def of(cls, image_index: ImageIndex) -> Identity:
        """The identity of a data set or of a part of one."""
        places = _places(image_index)
        names = sorted(places)[:_NAMES]
        contents = dict(_contents(image_index, places, names[:_CONTENTS]))
        size, classes = len(image_index), len(image_index.class_names)
        labels = image_index.label_digest()
        return cls(size, classes, _digest(image_index), tuple(names), contents, _form(image_index), labels)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self) | {"names": list(self.names)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Identity:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**values, "names": tuple(values["names"])})

    def relation(self, image_index: ImageIndex) -> Relation:
        """What the images of another set, or of this one at another time, are to these."""
        places = _places(image_index)
        known = [name for name in self.names if name in places]
        if not known:
            return Relation.OTHER
        common = [name for name in self.contents if name in places] if _form(image_index) == self.form else []
        found = dict(_contents(image_index, places, common))
        differing = sum(self.contents[name] != content for name, content in found.items())
        if 2 * differing > len(found) or 2 * len(known) < len(self.names):
            return Relation.UNCLEAR
        if self.digest != _digest(image_index):
            return Relation.CHANGED
        return Relation.SAME if self.labels in (None, image_index.label_digest()) else Relation.RELABELED

    def is_in(self, image_index: ImageIndex) -> bool:
        """Whether images of these are among others under other names, all of which are read for it."""
        places = _places(image_index)
        found = {content for _, content in _contents(image_index, places, list(places))}
        return _form(image_index) == self.form and not found.isdisjoint(self.contents.values())


def _form(image_index: ImageIndex) -> str:
    return image_index.kind if image_index.scaling is None else f"{image_index.kind} {image_index.scaling}"


def _plain(path: str) -> bytes:
    return unicodedata.normalize("NFC", path).encode(errors="surrogateescape")


def _digest(image_index: ImageIndex) -> str:
    return hashlib.sha256(b"\n".join(sorted(map(_plain, image_index.paths)))).hexdigest()


def _places(image_index: ImageIndex) -> dict[str, int]:
    """Place of each image by the hash of its path."""
    hashes = (hashlib.blake2b(_plain(path), digest_size=6).hexdigest() for path in image_index.paths)
    return {name: place for place, name in enumerate(hashes)}


def _contents(image_index: ImageIndex, places: Mapping[str, int], names: list[str]) -> Iterator[tuple[str, str]]:
    """Names with hashes of images: of a PNG file's pixels, which programs write in many ways, or else of its bytes."""
    for name in names:
        path = image_index.name(places[name])
        with suppress(OSError, BadImage, JobError):
            data = Path(path).read_bytes() if image_index.kind == "folder" else image_index.read(places[name])
            if data.startswith(_PNG):
                data = decode(data, path).tobytes()
            yield name, hashlib.sha256(data).hexdigest()[:16]
