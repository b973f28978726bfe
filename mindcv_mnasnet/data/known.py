"""Data of a run opened again: what its recipe says about data holds for its own images, and for no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from mindcv_mnasnet.data.identity import Identity, Relation
from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.sets import data_root, open_unsplit, open_val, unlabeled, validation_folder
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.recipe import Recipe

Known = Mapping[str, Any]  # what `described` returned when the run began
AnyIndex = TypeVar("AnyIndex", bound=ImageIndex)
_TRAINED = (Relation.SAME, Relation.CHANGED, Relation.RELABELED)


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
    relation = _relation(known, "train", train)
    if relation not in (None, Relation.SAME):
        images = "other annotations" if relation is Relation.RELABELED else "other images"
        sentence = f"data_dir: {train.root} has {images} than the run was trained on"
        if not allowed:
            raise UserError(
                f"{sentence}, though as many images; name the folder that holds them with --data_dir, "
                "or say --allow_changes data_dir"
            )
        notes.append(sentence)
    relation = None if val is None else _relation(known, "val", val)
    if val is not None and relation not in (None, Relation.SAME):
        images = "other annotations" if relation is Relation.RELABELED else "other images"
        notes.append(f"{val.root}: {images} for validation than before; accuracies do not compare with earlier ones")
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
    if inherits_split(recipe) and not (data_root(recipe) / recipe.val_split).is_dir():
        return split_again(recipe, known, open_unsplit(recipe, class_names), lambda: open_val(recipe, class_names))
    labeled, notes = _without_labels(recipe, known)
    index = open_val(labeled, class_names)
    return noting(replace(index, notes=(*index.notes, *notes)), recipe, known)


def inherits_split(recipe: Recipe) -> bool:
    """Whether ``val_fraction`` is the run's, not said for this validation."""
    return recipe.val_fraction is not None and "val_fraction" not in recipe.given


def noting(index: AnyIndex, recipe: Recipe, known: Known) -> AnyIndex:
    """Validation images, with notes on what they are to those of the run."""
    notes = list(index.notes)
    if inherits_split(recipe):
        notes.append(f"{index.root}: val_fraction of the run is not applied, the folder is there for validation")
    elif recipe.val_fraction is None and _relation(known, "train", index) in _TRAINED:
        notes.append(f"{index.root}: these images were trained on")
    if _relation(known, "val", index) is Relation.RELABELED:
        notes.append(f"{index.root}: the annotations are others than those that the run was validated with")
    return replace(index, notes=tuple(notes))


def split_again(recipe: Recipe, known: Known, whole: AnyIndex, open_part: Callable[[], AnyIndex]) -> AnyIndex:
    """What validates a run of ``val_fraction``: the part that it set apart, or all of a folder of other images.

    Args:
        whole: all images that are there.
        open_part: opens the share of them.
    Raises:
        UserError: these may be others than those that it was trained on.
    """
    share = f"val_fraction: {recipe.val_fraction} of the run"
    relation = _relation(known, "val", whole)
    if relation is Relation.OTHER and _relation(known, "train", whole) is Relation.OTHER:
        if len(whole) == sum(known[part]["images"] for part in ("train", "val")):
            _refuse_renamed(known, whole, share)
        note = f"{share} is not applied, {whole.root} holds other images; all {len(whole)} count"
        return replace(whole, notes=(*whole.notes, note))
    if relation is Relation.CHANGED:
        part = open_part()
        if _relation(known, "val", part) in (Relation.SAME, Relation.RELABELED):
            return noting(part, replace(recipe, given=recipe.given | {"val_fraction"}), known)
        if recipe.split_by == "name" and recipe.task == "classify":
            before = known["val"]["images"]
            note = f"{part.root}: {len(part)} images are set apart by name, {before} were in training"
            return replace(part, notes=(*part.notes, note))
    raise UserError(
        f"{share} may not fit the {len(whole)} images in {whole.root}, which are not those that it was trained on; "
        "say --val_fraction as well: a share, or None for all of them"
    )


def _refuse_renamed(known: Known, whole: ImageIndex, share: str) -> None:
    if any(Identity.from_dict(known[part]).is_in(whole) for part in ("train", "val")):
        raise UserError(
            f"{share} cannot be drawn again from {whole.root}, where the images of the run have other names; "
            "say --val_fraction as well: a share, or None for all of them, trained on or not"
        )


def _without_labels(recipe: Recipe, known: Known) -> tuple[Recipe, list[str]]:
    """The recipe without the run's label file, where that belongs to other images than there are now."""
    if recipe.val_labels is None or "val_labels" in recipe.given:
        return recipe, []
    folder = validation_folder(recipe)
    if _relation(known, "val", unlabeled(folder)) is Relation.SAME:
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
