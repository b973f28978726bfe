"""How a network is evaluated: the recipe keys that say so, and what an exported file has fixed already."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.export.artifact import Artifact
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.recipe.detection_keys import DetectionKeys
from mindcv_mnasnet.recipe.evaluation import CONVENTION_KEYS, NETWORK_KEYS, VALIDATION_KEYS
from mindcv_mnasnet.recipe.recipe import Recipe, with_evaluation
from mindcv_mnasnet.recipe.rule import Use
from mindcv_mnasnet.recipe.values import keys_for
from mindcv_mnasnet.run.checkpoint import Checkpoint


def merged_recipe(checkpoint: Checkpoint, recipe: Recipe | None, overrides: Mapping[str, Any]) -> Recipe:
    """The checkpoint's recipe with the evaluation keys of a given one, and ``overrides`` on top.

    Raises:
        UserError: keys that validation cannot honor, or that describe another network than the checkpoint's.
    """
    if unused := [name for name in overrides if name not in VALIDATION_KEYS and hasattr(checkpoint.recipe, name)]:
        raise UserError(f"{unused[0]}: validation has no use for it (command line); leave it out")
    merged, given = checkpoint.recipe, frozenset(overrides)
    if recipe is not None:
        _require_same_network(checkpoint, recipe, free=overrides)
        values, counting = recipe.to_dict(), keys_for(Use.INPUT | Use.VALIDATION)
        merged = with_evaluation(merged, {name: values[name] for name in counting if name in recipe.given})
        given |= recipe.given & {"dataset", "data_dir", "val_fraction", "val_labels"}
    merged = with_evaluation(merged, {**overrides, "resume": None, "ckpt_path": ""})
    if NETWORK_KEYS & overrides.keys():
        _require_same_network(checkpoint, merged, free=(*CONVENTION_KEYS, "declared_stem"))
    return replace(merged, given=given)


def _require_same_network(checkpoint: Checkpoint, recipe: Recipe, free: Iterable[str]) -> None:
    theirs = checkpoint.network
    asked = recipe.network(theirs.num_classes)
    ignored = {"family", "image_size", "dropout", "drop_connect", "bn_momentum", *free}
    for name in (field.name for field in fields(Network) if field.name not in ignored):
        if getattr(asked, name) != getattr(theirs, name):
            raise UserError(
                f"{name}: {getattr(asked, name)!r} is asked for, {checkpoint.path} has {getattr(theirs, name)!r}; "
                "a checkpoint knows its network, so leave out what describes another"
            )


def require_honored(
    artifact: Artifact, recipe: Recipe, given: Collection[str], ema: bool | None, backend: str | None
) -> None:
    """Refuse what a compiled file cannot do any more.

    Args:
        given: recipe keys that were said, of those in ``recipe``.
        ema: averaged or raw weights, if one of them was asked for.
        backend: runtime, if one was asked for.
    Raises:
        UserError: naming the key, its value and what the file has.
    """
    metadata, wanted = artifact.metadata, None if ema is None else "ema" if ema else "raw"
    if wanted not in (None, metadata.weights):
        raise UserError(
            f"weights: {wanted} ones are asked for, {artifact.path} was exported with {metadata.weights} ones"
        )
    if backend not in (None, artifact.runtime):
        raise UserError(f"backend: {backend} is asked for, {artifact.path} is run by {artifact.runtime} alone")
    for name in keys_for(Use.CONVENTION | Use.MINDSPORE):
        if name in given and getattr(recipe, name) != getattr(metadata.own_recipe(), name):
            raise UserError(f"{name}: {artifact.path} is compiled already and cannot be changed")
    for name in keys_for(Use.VALIDATION, (DetectionKeys,)):
        if metadata.suppresses and name in given and getattr(recipe, name) != getattr(metadata.own_recipe(), name):
            raise UserError(f"{name}: {artifact.path} suppresses overlaps itself; export the checkpoint again")
    for name, asked in zip(("mean", "std"), recipe.pixel_statistics(), strict=True):
        if tuple(asked) != tuple(getattr(metadata, name)):
            raise UserError(
                f"{name}: {list(asked)} is asked for, {artifact.path} was exported with "
                f"{list(getattr(metadata, name))}; export the checkpoint again with --{name}"
            )


def require_exportable(recipe: Recipe, backend: str | None) -> None:
    """Refuse keys that mean nothing to another runtime than MindSpore."""
    for name in keys_for(Use.MINDSPORE):
        if backend not in (None, "mindspore") and name in recipe.given:
            raise UserError(f"{name}: {backend} has no use for it; leave it out, or --backend")
