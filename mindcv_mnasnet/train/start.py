"""What training starts from, if not from scratch, and how the network follows it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from mindcv_mnasnet.files import with_home
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.recipe.evaluation import CONVENTION_KEYS, NETWORK_KEYS
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.run.checkpoint import Checkpoint, read_checkpoint
from mindcv_mnasnet.run.folder import checkpoint_at
from mindcv_mnasnet.weights import hub
from mindcv_mnasnet.weights.convert import open_weights
from mindcv_mnasnet.weights.sound import require_sound


def start_checkpoint(recipe: Recipe) -> Checkpoint | None:
    """What training starts from, if not from scratch: a checkpoint that is named, or published weights."""
    if recipe.pretrained:
        return read_checkpoint(hub.pretrained_for(recipe))
    if recipe.start_weights() is None:
        return None
    path = with_home(str(recipe.start_weights()))
    start = open_weights(next(iter(checkpoint_at(path)), path))
    require_sound(start.weights(), str(start.path))
    return start


def kept_classifier(start: Checkpoint, class_names: Sequence[str], recipe: Recipe) -> list[str]:
    """A sentence where training begins with a classifier of as many other classes."""
    theirs, same_task = start.class_names, (start.detector is None) == (recipe.task == "classify")
    if recipe.new_head or not same_task or len(theirs) != len(class_names):
        return []
    for old, new in zip(theirs, class_names, strict=True):
        if old != new:
            return [
                f"{start.path} knows as many classes, but others or in another order ({old!r} where {new!r} is here); "
                "what tells them apart is kept: --new_head True begins anew"
            ]
    return []


def with_network_of(start: Checkpoint, recipe: Recipe) -> Recipe:
    """The recipe with the network of the checkpoint that training starts from, unless it describes one itself."""
    keys = NETWORK_KEYS - {"num_classes"}
    if keys & recipe.given:
        return recipe
    theirs = start.recipe.to_dict()
    whole = Recipe.from_dict({**recipe.to_dict(), **{name: theirs[name] for name in keys}}, str(start.path))
    return replace(whole, given=recipe.given)


def adopting(network: Network, theirs: Network, kept: Collection[str]) -> Network:
    """The network with the conventions that ``theirs`` was trained with, except those whose names are ``kept``.

    With other padding, say, the weights would compute another function.
    """
    adopted = {name: getattr(theirs, name) for name in CONVENTION_KEYS if name not in kept}
    if "residual_rule" in adopted:
        adopted["declared_stem"] = theirs.declared_stem
    return replace(network, **adopted)
