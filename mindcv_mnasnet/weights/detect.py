"""Which source and which network a set of named tensors is, from names and shapes alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.families import CONVENTIONS
from mindcv_mnasnet.networks.network import FAMILIES, Network
from mindcv_mnasnet.weights.name_maps import NAME_MAPS, NameMap, shapes

Shapes = Mapping[str, tuple[int, ...]]

_MARKS = {
    "timm": "conv_stem.weight",
    "torchvision": "layers.0.weight",
    "mindcv": "features.0.weight",
    "own": "stem.conv.weight",
}
_SIZES = {  # field of a network -> the tensor that says it, along which of how many axes
    "num_classes": ("classifier.weight", 0, 2),
    "in_channels": ("stem.conv.weight", 1, 4),
    "head": ("head.conv.weight", 0, 4),
}
_PUBLISHED_WIDTHS = (1.0, 0.5, 0.75, 0.35, 1.3, 1.4)
_OTHER_WIDTHS = tuple(percent / 100 for percent in range(5, 401, 5))


def source_of(names: Iterable[str]) -> str:
    """The source that gives a stem such a name: timm, torchvision, mindcv or own.

    Raises:
        UserError: none does.
    """
    names = set(names)
    for source, mark in _MARKS.items():
        if mark in names:
            return source
    shown = ", ".join(sorted(names)[:3]) or "nothing"
    raise UserError(f"these are not the names of any source's MnasNet ({shown}, ...)")


def network_of(stored: Shapes, source: str = "own") -> Network:
    """The published network, of any width, that has exactly these tensors; the conventions are the source's.

    Raises:
        UserError: there is none; the sentence lists what is missing, left over or of another shape for the nearest.
    """
    name_map, nearest = NAME_MAPS[source], ""
    fewest = len(stored) + 10**6
    for network in _candidates(stored, name_map):
        wrong = mismatches(_expected(network, name_map), stored)
        if not any(wrong.values()):
            return network
        count = sum(len(names) for names in wrong.values())
        if count < fewest:
            fewest, nearest = count, f"{_called(network)}: {describe(wrong)}"
    raise UserError(f"these tensors are no published MnasNet; the nearest is {nearest or 'none at all'}")


def _called(network: Network) -> str:
    width = "" if network.width_mult in (None, 1.0) else f" x {network.width_mult:g}"
    return "an old torchvision layout" if network.family is None else f"{network.family}{width}"


def mismatches(expected: Shapes, stored: Shapes) -> dict[str, list[str]]:
    """Names that are missing, left over, or of another shape."""
    return {
        "missing": [name for name in expected if name not in stored],
        "left over": [name for name in stored if name not in expected],
        "of another shape": [n for n in expected if n in stored and tuple(stored[n]) != tuple(expected[n])],
    }


def describe(wrong: Mapping[str, list[str]]) -> str:
    """Mismatches in a few words."""
    return "; ".join(
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in wrong.items()
        if names
    )


def require_fit(path: Path, expected: Shapes, stored: Shapes) -> None:
    """Refuse tensors that are not exactly the expected ones.

    Raises:
        UserError: some are missing, left over, or of another shape.
    """
    wrong = mismatches(expected, stored)
    if any(wrong.values()):
        raise UserError(f"{path} does not fit the network: {describe(wrong)}")


def _expected(network: Network, name_map: NameMap) -> dict[str, tuple[int, ...]]:
    ours = shapes(network)
    return {theirs: ours[name] for name, theirs in name_map.names(network).items()}


def _candidates(stored: Shapes, name_map: NameMap) -> Iterator[Network]:
    """Networks worth comparing: first those with exactly these names, then those of each family for the report."""
    rest: list[Network] = []
    for family in FAMILIES.values():
        try:
            names = name_map.names(family)
        except UserError:
            continue
        base = replace(family, **stored_sizes(stored, names), **CONVENTIONS[name_map.source])
        stem = stored.get(names["stem.conv.weight"], ())[:1]
        widths = (base.width_mult, *_PUBLISHED_WIDTHS, *_OTHER_WIDTHS)
        scaled = [replace(base, width_mult=width) for width in dict.fromkeys(widths)]
        fitting = [network for network in scaled if (network.stem_width,) == stem] or [base]
        if name_map.source == "torchvision":
            fitting += map(_unscaled_start, scaled)
        if set(names.values()) == stored.keys():
            yield from fitting
        else:
            rest += fitting
    yield from rest


def stored_sizes(stored: Shapes, names: Mapping[str, str]) -> dict[str, Any]:
    """The classes, colors and head of tensors, as far as these have the right number of dimensions."""
    known = {key: (stored.get(names[ours], ()), axis, rank) for key, (ours, axis, rank) in _SIZES.items()}
    return {key: shape[axis] for key, (shape, axis, rank) in known.items() if len(shape) == rank and shape[axis] > 0}


def is_first_layout(network: Network) -> bool:
    """Whether a network is torchvision's of version 1, other than today's: its start is not scaled, all else is."""
    base = FAMILIES["b1"]
    widths = [width for width in dict.fromkeys((*_PUBLISHED_WIDTHS, *_OTHER_WIDTHS)) if width != 1.0]
    sizes: dict[str, Any] = {
        "num_classes": network.num_classes,
        "in_channels": network.in_channels,
        "head": network.head,
    }
    mine = shapes(network)
    first = (_unscaled_start(replace(base, width_mult=width, **sizes)) for width in widths)
    return network.family is None and any(shapes(one) == mine for one in first)


def _unscaled_start(network: Network) -> Network:
    """torchvision's layout of version 1, whose stem (32) and first block (16) are never scaled."""
    blocks = (network.blocks[0], *network.written_out().blocks[1:])
    return replace(network, family=None, blocks=blocks, width_mult=None)
