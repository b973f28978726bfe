"""Data of a run opened again: what its recipe says about data holds for its own images, and for no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.data.identity import Identity, Relation
from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.sets import data_root, open_unsplit, open_val
from mindcv_mnasnet.data.walk import images_under
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.recipe import Recipe

Known = Mapping[str, Any]  # what `described` returned when the run began


def described(train: ImageIndex, val: ImageIndex | None) -> dict[str, Any]:
    """The identities of a run's images, as it keeps them."""
    parts = {"train": train, "val": val}
    return {name: None if index is None else Identity.of(index).to_dict() for name, index in parts.items()}


def require_same(known: Known, train: ImageIndex, val: ImageIndex | None, allowed: bool) -> list[str]:
    """Notes on a resumed run's images.

    Args:
        allowed: other training images are meant.
    Raises:
        UserError: the training images are others than the run began with.
    """
    notes = []
    if _relation(known, "train", train) not in (None, Relation.SAME):
        sentence = f"data_dir: {train.root} holds other images than the run was trained on"
        if not allowed:
            raise UserError(
                f"{sentence}, though as many; name the folder that holds them with --data_dir, "
                "or say --allow_changes data_dir"
            )
        notes.append(sentence)
    if val is not None and _relation(known, "val", val) not in (None, Relation.SAME):
        notes.append(
            f"{val.root}: other images for validation than before; accuracies do not compare with earlier ones"
        )
    return notes


def open_known_val(recipe: Recipe, class_names: Sequence[str] | None, known: Known | None) -> ImageIndex:
    """The validation images that a checkpoint is measured on.

    Args:
        recipe: its recipe with what was said for this validation, which is named in ``given``.
        known: what the checkpoint knows of its images; None (checkpoints of before) carries all settings over.
    Raises:
        UserError: a setting of the run may or may not hold for the images that are there now.
    """
    if recipe.dataset == "digits" and "data_dir" in recipe.given and "dataset" not in recipe.given:
        recipe = replace(recipe, dataset="")  # whoever names a folder means what is in it
    if known is None or known["val"] is None:
        return open_val(recipe, class_names)
    root = data_root(recipe)
    inherited = recipe.val_fraction is not None and "val_fraction" not in recipe.given
    if inherited and not (root / recipe.val_split).is_dir():
        return _split_again(recipe, class_names, known)
    recipe, notes = _without_labels(recipe, known)
    index = open_val(recipe, class_names)
    if inherited:
        notes.append(f"{index.root}: val_fraction of the run is not applied, the folder is there for validation")
    elif recipe.val_fraction is None and _relation(known, "train", index) in (Relation.SAME, Relation.CHANGED):
        notes.append(f"{index.root}: these images were trained on")
    return replace(index, notes=(*index.notes, *notes))


def _split_again(recipe: Recipe, class_names: Sequence[str] | None, known: Known) -> ImageIndex:
    """What validates a run of ``val_fraction``: the part that it set apart, or all of a folder of other images."""
    share = f"val_fraction: {recipe.val_fraction} of the run"
    whole = open_unsplit(recipe, class_names)
    relation = _relation(known, "val", whole)
    if relation is Relation.OTHER and _relation(known, "train", whole) is Relation.OTHER:
        note = f"{share} is not applied, {whole.root} holds other images; all {len(whole)} count"
        return replace(whole, notes=(*whole.notes, note))
    if relation is Relation.CHANGED:
        part = open_val(recipe, class_names)
        if _relation(known, "val", part) is Relation.SAME:
            return part
        if recipe.split_by == "name":
            before = known["val"]["images"]
            note = f"{part.root}: {len(part)} images are set apart by name, {before} were in training"
            return replace(part, notes=(*part.notes, note))
    raise UserError(
        f"{share} may not fit the {len(whole)} images in {whole.root}, which are not those that it was trained on; "
        "say --val_fraction as well: a share, or None for all of them"
    )


def _without_labels(recipe: Recipe, known: Known) -> tuple[Recipe, list[str]]:
    """The recipe without the run's label file, where that belongs to other images than there are now."""
    if recipe.val_labels is None or "val_labels" in recipe.given:
        return recipe, []
    folder = data_root(recipe)
    folder = folder / recipe.val_split if (folder / recipe.val_split).is_dir() else folder
    names = tuple(images_under(folder))
    there = ImageIndex(str(folder), names, np.zeros(len(names), np.int32), ())
    if _relation(known, "val", there) is Relation.SAME:
        return recipe, []
    without = replace(recipe, val_labels=None)
    sentence = f"val_labels: {Path(recipe.val_labels).name} of the run is not applied, {folder} holds other images"
    try:
        open_val(without)
    except UserError as error:
        raise UserError(f"{sentence}; say --val_labels FILE, or use folders of classes ({error})") from None
    return without, [sentence]


def _relation(known: Known, part: str, index: ImageIndex) -> Relation | None:
    return None if known.get(part) is None else Identity.from_dict(known[part]).relation(index)
