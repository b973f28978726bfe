"""How weights of each source are evaluated, and the published result that they belong to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mindcv_mnasnet.networks.families import NAMES
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.networks.reported import Reported, load_reported
from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe
from mindcv_mnasnet.weights.name_maps import shapes

#: Where nothing is published for a width: what the source does with all others.
_USUAL: dict[str, dict[str, Any]] = {
    "timm": {"eval_crop": "center_round", "val_interpolation": "pilcubic"},
    "torchvision": {"eval_crop": "center_round", "val_interpolation": "pilbilinear"},
    "mindcv": {"val_interpolation": "bilinear"},
    "tf": {"eval_crop": "tf_square", "val_interpolation": "tf_bilinear"},
    "own": {},
}


def published_as(source: str, network: Network, checkpoint: str | None) -> Reported | None:
    """The published result for weights of this source: by the file's published name, else by the network.

    The same network may have been published twice; without a name the first one is meant.
    """
    entries = [entry for entry in load_reported() if entry.source == source and entry.top1 is not None]
    if checkpoint is not None:
        entries = [entry for entry in entries if entry.checkpoint == checkpoint]
    else:
        entries = [entry for entry in entries if entry.image_size == network.image_size]
    mine = shapes(network)
    for entry in entries:
        theirs = entry.network()
        if theirs is not None and shapes(theirs) == mine and theirs.layers() == network.layers():
            return entry
    return None


def recipe_for(source: str, network: Network, entry: Reported | None, own: Recipe | None = None) -> Recipe:
    """A recipe that builds this network and evaluates it as its source does; ``own`` is one to start from."""
    evaluation = dict(_USUAL[source])
    if entry is not None and entry.eval_crop is not None:
        evaluation = {"eval_crop": entry.eval_crop, "val_interpolation": entry.interpolation}
        if entry.val_resize is not None:
            evaluation["crop_pct"] = _share(entry.image_size, entry.val_resize)
    named = next((name for name in _names(source, network)), None)
    values: dict[str, Any] = {
        "model": named or network.family or "b1",
        "width_mult": network.width_mult,
        "num_classes": network.num_classes,
        "in_channels": network.in_channels,
        "image_resize": network.image_size,
        "padding": network.padding,
        "bn_eps": network.bn_eps,
        "residual_rule": network.residual_rule,
        **evaluation,
    }
    if network.family is None:
        values |= {"blocks": list(network.block_strings), "stem": network.stem}
    if network.head != 1280:
        values["head"] = network.head
    base = own.to_dict() if own is not None else {"dataset": "imagenet"}
    return load_recipe(overrides={**base, **{key: value for key, value in values.items() if value is not None}})


def _share(size: int, short: int) -> float:
    """``crop_pct`` of four digits for which int(size / crop_pct) is ``short``; it holds at other sizes, too."""
    return math.floor(10_000 * size / short) / 10_000


def _names(source: str, network: Network) -> Sequence[str]:
    return [
        name
        for name, meant in NAMES.items()
        if (meant.source, meant.family, meant.width_mult) == (source, network.family, network.width_mult)
        and meant.image_size == network.image_size
    ]
