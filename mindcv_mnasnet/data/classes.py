"""Classes by name: their order, and which class a folder or a label stands for."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise

from mindcv_mnasnet.errors import UserError

BY_NAME, BY_VALUE, BY_POSITION = "name", "value", "position"


def class_order(folders: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order of their labels: sorted, except that folders 0, 1, ... n-1 are the labels themselves.

    (ImageNet-V2 comes in such folders; sorted as text, 10 would precede 2.)

    Raises:
        UserError: two names differ only in how Unicode writes them.
    """
    names = sorted(_plain(folder) for folder in folders)
    for one, other in pairwise(names):
        if one == other:
            raise UserError(f"two class folders are both called {one!r}, written in two ways; merge them")
    return tuple(sorted(names, key=int)) if set(names) == {str(n) for n in range(len(names))} else tuple(names)


def match_classes(names: Iterable[str], class_names: Sequence[str]) -> tuple[dict[str, int], str] | None:
    """Label of each name, and how all of them were read; None where no way fits every one.

    In this order: as names of classes, as the numbers that the classes are named by (1 is 01), as labels from 0.
    """
    names = list(names)
    known = {_plain(name): label for label, name in enumerate(class_names)}
    if all(_plain(name) in known for name in names):
        return {name: known[_plain(name)] for name in names}, BY_NAME
    if not all(name.isdecimal() for name in names):
        return None
    values = {int(name): label for name, label in known.items() if name.isdecimal()}
    one_to_one = len(values) == len(known) and len({int(name) for name in names}) == len(names)
    if one_to_one and all(int(name) in values for name in names):
        return {name: values[int(name)] for name in names}, BY_VALUE
    if all(int(name) < len(known) for name in names):
        return {name: int(name) for name in names}, BY_POSITION
    return None


def matching_note(how: str, where: str) -> tuple[str, ...]:
    """A sentence on how names were read, for the log; none where they are the names of the classes."""
    if how == BY_NAME:
        return ()
    meaning = "the numbers that name the classes" if how == BY_VALUE else "labels counted from 0"
    return (f"{where}: names are numbers and were read as {meaning}",)


def label_of_folder(folders: Iterable[str], class_names: Sequence[str], root: str) -> tuple[dict[str, int], str]:
    """Label of each class folder, and how the folders' names were read (``match_classes``).

    Raises:
        UserError: a folder is none of the classes.
    """
    folders = list(folders)
    found = match_classes(folders, class_names)
    if found is not None:
        return found
    known = {_plain(name) for name in class_names}
    unknown = [folder for folder in folders if _plain(folder) not in known]
    raise UserError(
        f"{root} holds {len(unknown)} folders that are none of the {len(class_names)} classes, such as {unknown[0]!r}"
    )


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)
