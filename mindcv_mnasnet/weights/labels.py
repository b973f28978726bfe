"""ImageNet's class names: WordNet ids in the order of the logits, and what they mean."""

from __future__ import annotations

from functools import cache
from pathlib import Path


def imagenet_class_names() -> tuple[str, ...]:
    """The 1000 WordNet ids (``n01440764``, ...), which name ImageNet's folders, in the order of the logits."""
    return tuple(_titles())


def class_title(name: str) -> str:
    """What a WordNet id of ImageNet means (``tench``); any other class name is its own title."""
    return _titles().get(name, name)


@cache
def _titles() -> dict[str, str]:
    lines = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    return {wnid: title for wnid, _, title in (line.partition(" ") for line in lines)}
