"""What a recipe key allows beyond its type, and what it is for."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Any


class Use(Flag):
    """What a key is for, besides training; ``values.keys_for`` lists the keys of a use."""

    NOTHING = 0
    PLACE = auto()  # where, by what means and under what name a job runs, not what it computes
    INPUT = auto()  # how an image becomes the network's input, in validation and in exported files
    NETWORK = auto()  # what the network is
    CONVENTION = auto()  # what a source's code fixes, and a checkpoint keeps unless other settings are given
    VALIDATION = auto()  # counts in validation where the given recipe file says it
    COMMAND = auto()  # counts in validation where the command line says it
    MINDSPORE = auto()  # means nothing to a compiled file or another runtime
    PUBLISHED = auto()  # says which published weights are meant, or whose are meant instead
    STATE = auto()  # what a training's state follows from, so that a resumed run cannot change it
    BATCH = auto()  # how a step's images are divided: resuming judges their product


@dataclass(frozen=True)
class Rule:
    """What a key allows beyond its type."""

    help: str
    within: str | None = None  # an interval such as "(0, 1]"; for a list, of every item
    choices: tuple[str, ...] = ()
    unbuilt: tuple[str, ...] = ()  # MindCV's choices that do not exist here
    pattern: str | None = None  # a regular expression that a text has to match in full
    form: str = "text that is not empty"  # the pattern in words
    length: int | None = None  # number of items of a list
    rising: bool = False  # items of a list have to increase
    fixed: str | None = None  # why only the default is possible
    none: Any = None  # what "None" stands for, where that is not the default
    use: Use = Use.NOTHING
    sets: str | None = None  # field of the network description that the key sets


def key(default: Any, help: str, **rule: Any) -> Any:
    """A recipe key: a dataclass field that carries its rule."""
    return field(default=default, metadata={"rule": Rule(help, **rule)})
