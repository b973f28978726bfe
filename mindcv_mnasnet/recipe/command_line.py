"""``-c/--config FILE`` and ``--key value`` for every key of a recipe."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, NoReturn

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.keys import SECTIONS
from mindcv_mnasnet.recipe.values import key_table, nearest, typed


class CommandLine(NamedTuple):
    """What a command line says."""

    config: str | None  # recipe file
    overrides: dict[str, Any]  # text, or a list of texts, by recipe key
    options: argparse.Namespace  # options of the program itself


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are :class:`UserError` and that accepts no abbreviations."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        raise UserError(f"command line: {message}")


def add_arguments(
    parser: argparse.ArgumentParser, sections: tuple[type, ...] = SECTIONS, only: Collection[str] | None = None
) -> None:
    """Add ``--config`` and one option per key of ``sections`` (a recipe's), grouped by section, to ``parser``."""
    parser.usage = parser.usage or "%(prog)s [-c FILE] [--KEY VALUE ...]"
    parser.add_argument("-c", "--config", metavar="FILE", help="recipe (YAML)")
    add_keys(parser, sections, only)


def add_keys(
    parser: argparse.ArgumentParser, sections: tuple[type, ...] = SECTIONS, only: Collection[str] | None = None
) -> None:
    """Add one option per key of ``sections``, or of those that ``only`` names, grouped by section."""
    groups: dict[str, Any] = {}
    for key in key_table(sections).values():
        if only is not None and key.name not in only:
            continue
        if key.section not in groups:
            groups[key.section] = parser.add_argument_group(key.section)
        text = f"{key.rule.help} ({key.allowed()}; default {key.default})".replace("%", "%%")
        count: dict[str, Any] = {"nargs": "+"} if key.many else {}
        if key.kinds == (bool,):
            count = {"nargs": "?", "const": "True"}
        option = f"--{key.name}"
        groups[key.section].add_argument(option, help=text, metavar="V", default=argparse.SUPPRESS, **count)


def parse_command_line(
    argv: Sequence[str],
    parser: argparse.ArgumentParser | None = None,
    sections: tuple[type, ...] = SECTIONS,
    only: Collection[str] | None = None,
) -> CommandLine:
    """Split a command line (without the program's name) into recipe file, overrides and the program's options.

    Args:
        parser: a :class:`Parser` with the program's own options, to which the recipe's are added.
        only: the keys that the program has a use for; None is all.
    Raises:
        UserError: an unknown option (naming the nearest key), a missing value, or a stray word.
    """
    parser = parser if parser is not None else Parser()
    add_arguments(parser, sections, only)
    known, stray = parser.parse_known_args(_join_negative_numbers(argv))
    if stray:
        name = stray[0].split("=")[0].lstrip("-")
        if only is not None and name in key_table(sections):
            raise UserError(f"{name}: this command has no use for it (command line); --help lists what it takes")
        if stray[0].startswith("-"):
            raise UserError(f"unknown key {name!r} (command line){nearest(name, key_table(sections))}")
        more = ", a checkpoint as --ckpt_path FILE" if "ckpt_path" in key_table(sections) else ""
        raise UserError(f"stray {stray[0]!r} on the command line; a recipe is given as --config FILE{more}")
    options = vars(known)
    overrides = {name: options.pop(name) for name in key_table(sections) if name in options}
    return CommandLine(options.pop("config"), overrides, argparse.Namespace(**options))


def typed_keys(options: argparse.Namespace, names: Collection[str]) -> dict[str, Any]:
    """The values of recipe keys that ``add_keys`` added and the command line gave.

    Raises:
        UserError: an impossible one.
    """
    return {name: typed(name, getattr(options, name), "command line") for name in names if hasattr(options, name)}


def _join_negative_numbers(argv: Sequence[str]) -> list[str]:
    """``--lr -1e-3`` as ``--lr=-1e-3``: argparse takes the number for an option."""
    joined: list[str] = []
    for word in argv:
        if re.fullmatch(r"-\.?\d.*", word) and joined and re.fullmatch(r"--\w+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined
