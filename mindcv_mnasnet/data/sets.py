"""The data sets that a recipe names: where they are, which part is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mindcv_mnasnet.data.digits import write_digits
from mindcv_mnasnet.data.index import ImageIndex, list_folder, split
from mindcv_mnasnet.data.labels import list_flat
from mindcv_mnasnet.data.packs import is_pack, open_pack
from mindcv_mnasnet.data.splits import split_by_name
from mindcv_mnasnet.data.walk import images_under
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import with_home
from mindcv_mnasnet.recipe.keys import DataKeys
from mindcv_mnasnet.recipe.recipe import Recipe


def open_train_val(recipe: Recipe, class_names: Sequence[str] | None = None) -> tuple[ImageIndex, ImageIndex | None]:
    """Training images, and validation images where there are any.

    They are ``data_dir/<train_split>`` and ``data_dir/<val_split>``, or parts of one folder by ``val_fraction``.

    Args:
        class_names: classes in the order of a run that goes on; None takes the folder's.
    Raises:
        UserError: what is missing or contradictory there.
    """
    root = _root(recipe)
    train_dir, val_dir = root / recipe.train_split, root / recipe.val_split
    val: ImageIndex | None
    if not train_dir.is_dir():
        if val_dir.is_dir():
            raise UserError(f"data_dir {root} has no folder {recipe.train_split!r} to train on; set --train_split")
        if recipe.val_fraction is None:
            raise UserError(
                f"data_dir {root} has no folder {recipe.train_split!r}; to train on a folder of classes, "
                "say with --val_fraction (0.1, for example) which share of it is for validation"
            )
        train, val = _split(recipe, _open(root, class_names))
    elif recipe.val_fraction is not None:
        if val_dir.is_dir():
            raise UserError(f"val_fraction: {val_dir} is there for validation already; remove one of the two")
        train, val = _split(recipe, _open(train_dir, class_names))
    else:
        train = _open(train_dir, class_names)
        if "val_split" in recipe.given and not val_dir.is_dir():
            raise UserError(f"val_split: data_dir {root} has no folder {recipe.val_split!r}")
        val = _open(val_dir, train.class_names, recipe.val_labels) if val_dir.is_dir() else None
    _require_room(recipe, train)
    return _limited(recipe, train), val and _noting_size(recipe, _noting_parts(train, val))


def open_val(recipe: Recipe, class_names: Sequence[str] | None = None) -> ImageIndex:
    """Validation images only: the folder, the part that ``val_fraction`` sets apart, or all of a plain folder.

    Args:
        class_names: classes of the checkpoint, in its order; None takes the folder's.
    """
    root = _root(recipe)
    train_dir, val_dir = root / recipe.train_split, root / recipe.val_split
    if val_dir.is_dir():
        if recipe.val_fraction is not None and "val_fraction" in recipe.given:
            raise UserError(f"val_fraction: {val_dir} is there for validation; leave it out, or name other images")
        image_index = _open(val_dir, class_names, recipe.val_labels)
    elif recipe.val_fraction is not None:
        whole = _open(train_dir if train_dir.is_dir() else root, class_names)
        image_index = _split(recipe, whole)[1]
    elif train_dir.is_dir():
        raise UserError(f"data_dir {root} has no folder {recipe.val_split!r} to validate on; set --val_split")
    else:
        image_index = _open(root, class_names, recipe.val_labels)
    _require_room(recipe, image_index)
    return _noting_size(recipe, image_index)


def open_unsplit(recipe: DataKeys, class_names: Sequence[str] | None = None) -> ImageIndex:
    """All images that ``val_fraction`` draws from."""
    return _open(training_folder(recipe), class_names)


def open_train(recipe: Recipe) -> ImageIndex:
    """Training images alone, whatever there is to validate on; a plain folder of classes is of such."""
    validates = (data_root(recipe) / recipe.val_split).is_dir()
    if (recipe.val_fraction is None or validates) and (training_folder(recipe) != data_root(recipe) or not validates):
        return _limited(recipe, open_unsplit(recipe))
    return open_train_val(recipe)[0]


def in_folder(recipe: Recipe, data_dir: str | None) -> Recipe:
    """The recipe for the images in another folder, where no digits are written; None leaves all as it is."""
    if data_dir is None:
        return replace(recipe, given=frozenset())
    read = {"data_dir": data_dir, "dataset": "" if recipe.dataset == "digits" else recipe.dataset}
    return replace(Recipe.from_dict({**recipe.to_dict(), **read}, "command line"), given=frozenset(read))


def training_folder(recipe: DataKeys) -> Path:
    """Where the training images are: ``data_dir/<train_split>``, or ``data_dir`` itself where that is not there."""
    root = _root(recipe)
    return root / recipe.train_split if (root / recipe.train_split).is_dir() else root


def validation_folder(recipe: DataKeys) -> Path:
    """Where a flat folder's validation images are: ``data_dir/<val_split>``, or else ``data_dir`` itself."""
    root = _root(recipe)
    return root / recipe.val_split if (root / recipe.val_split).is_dir() else root


def data_root(recipe: DataKeys) -> Path:
    """The folder that ``data_dir`` means."""
    default = recipe.dataset == "digits" and recipe.data_dir == "./"
    return Path("data/digits") if default else with_home(recipe.data_dir)


def with_absolute_places(recipe: Recipe) -> Recipe:
    """The recipe with places of data that mean the same from every folder."""
    labels = None if recipe.val_labels is None else str(with_home(recipe.val_labels).absolute())
    return replace(recipe, data_dir=str(data_root(recipe).absolute()), val_labels=labels)


def without_places(recipe: Recipe) -> Recipe:
    """The recipe as files for others have it: without the folders and files that it names on this machine."""
    default = Recipe()
    names = ("data_dir", "val_labels", "init_from", "ckpt_path", "ckpt_save_dir", "resume")
    return replace(recipe, **{name: getattr(default, name) for name in names})


def unlabeled(folder: Path) -> ImageIndex:
    """All images below a folder, of no class.

    Raises:
        UserError: there are none.
    """
    names = tuple(images_under(folder))
    if not names:
        raise UserError(f"data_dir: there are no images in {folder}")
    return ImageIndex(str(folder), names, np.zeros(len(names), np.int32), ())


def _root(recipe: DataKeys) -> Path:
    root = data_root(recipe)
    if recipe.dataset == "digits":
        write_digits(root)
    if not root.is_dir():
        raise UserError(f"data_dir: there is no folder {root}")
    return root


def _open(directory: Path, class_names: Sequence[str] | None, label_file: str | None = None) -> ImageIndex:
    if label_file is not None:
        return list_flat(directory, label_file, class_names)
    return open_pack(directory, class_names) if is_pack(directory) else list_folder(directory, class_names)


def _split(recipe: DataKeys, whole: ImageIndex) -> tuple[ImageIndex, ImageIndex]:
    assert recipe.val_fraction is not None
    draw = split_by_name if recipe.split_by == "name" else split
    return draw(whole, recipe.val_fraction, recipe.split_seed)


def _noting_size(recipe: DataKeys, image_index: ImageIndex) -> ImageIndex:
    """Validation images, with a note where they were scaled to less than validation needs."""
    wanted = recipe.short_side()
    if image_index.scaling is None or image_index.scaling.short_side >= wanted:
        return image_index
    note = f"validation enlarges them again, to a short side of {wanted}"
    return replace(image_index, notes=(*image_index.notes, f"{image_index.root}: {note}"))


def _noting_parts(train: ImageIndex, val: ImageIndex) -> ImageIndex:
    """Validation images, with notes where they are the training images, or lack classes."""
    notes = []
    if train.paths == val.paths and Path(train.root).samefile(val.root):
        notes.append(f"{val.root}: the images of training and of validation are the same")
    found, classes = len(set(val.labels.ravel().tolist()) - {-1}), len(val.class_names)
    if found < classes:
        notes.append(f"{val.root}: {found} of the {classes} classes have images for validation")
    return replace(val, notes=(*val.notes, *notes))


def _require_room(recipe: Recipe, image_index: ImageIndex) -> None:
    classes = len(image_index.class_names)
    if recipe.num_classes is not None and classes > recipe.num_classes:
        raise UserError(f"num_classes: {recipe.num_classes}, but {image_index.root} has {classes} classes")


def _limited(recipe: DataKeys, image_index: ImageIndex) -> ImageIndex:
    """At most ``num_samples`` images, drawn evenly and always the same."""
    if recipe.num_samples is None or recipe.num_samples >= len(image_index):
        return image_index
    generator = np.random.Generator(np.random.Philox(key=[recipe.split_seed, 1]))
    return image_index.subset(np.sort(generator.permutation(len(image_index))[: recipe.num_samples]))
