"""From what a file or a command line says to the typed, checked value of one key."""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.keys import SECTIONS
from mindcv_mnasnet.recipe.rule import Rule, Use

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_UNSET = {"None", "none", "null"}
_TYPE_NAMES = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Key:
    """One key of the table with its resolved type."""

    name: str
    default: Any
    kinds: tuple[type, ...]  # bool, int, float, str: of the value or, if many, of its items
    many: bool
    nullable: bool
    section: str
    rule: Rule

    def allowed(self) -> str:
        """What the key takes, in words, for error sentences and the help text."""
        rule = self.rule
        if rule.fixed is not None:
            return str(self.default)
        words: list[str] = []
        for kind in self.kinds:
            if kind is str and rule.choices:
                words += rule.choices
            elif kind in (int, float) and rule.within:
                words.append(f"{_TYPE_NAMES[kind]} in {rule.within}")
            elif kind is str and rule.pattern:
                words.append(rule.form)
            else:
                words.append(_TYPE_NAMES[kind])
        text = " or ".join(words) if len(words) < 3 else ", ".join(words)
        if self.many:
            text = (f"{rule.length} times " if rule.length else "a list of ") + text + ", rising" * rule.rising
        return text + (", or None" if self.nullable else "")


@lru_cache
def key_table(sections: tuple[type, ...] = SECTIONS) -> dict[str, Key]:
    """Every key by name, in the order of the table: of a recipe, or of other dataclasses of keys."""
    table = {}
    for section in sections:
        hints = get_type_hints(section)
        for item in fields(section):
            members = set(get_args(hints[item.name])) or {hints[item.name]}
            if get_origin(hints[item.name]) is tuple:
                members = {hints[item.name]}
            inner = next((m for m in members if get_origin(m) is tuple), None)
            kinds = (get_args(inner)[0],) if inner else tuple(k for k in (bool, int, float, str) if k in members)
            table[item.name] = Key(
                item.name,
                item.default,
                kinds,
                inner is not None,
                NoneType in members,
                (section.__doc__ or "").strip(),
                item.metadata["rule"],
            )
    return table


def keys_for(use: Use, sections: tuple[type, ...] = SECTIONS) -> tuple[str, ...]:
    """Names of the keys that are for any of these uses, in the order of the table."""
    return tuple(name for name, key in key_table(sections).items() if key.rule.use & use)


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause naming the key nearest to ``name``; empty if none is near."""
    found = difflib.get_close_matches(name.replace("-", "_"), list(known), n=1, cutoff=0.5)
    return f"; the nearest known key is {found[0]}" if found else ""


def typed(name: str, raw: Any, origin: str, sections: tuple[type, ...] = SECTIONS) -> Any:
    """Turn ``raw`` into the value of key ``name`` of these ``sections``.

    Numbers and booleans may be text, lists may be text with commas or blanks; None, "None" and "null" unset the key.

    Raises:
        UserError: unknown key, wrong type or impossible value; says where it stood (``origin``) and what is allowed.
    """
    table = key_table(sections)
    if name not in table:
        raise UserError(f"unknown key {name!r} ({origin}){nearest(name, table)}")
    key = table[name]
    if is_unset(raw):
        return key.rule.none if key.rule.none is not None else key.default
    try:
        value = _many(key, raw) if key.many else _single(key, raw)
        _check(key, value)
    except _RefusedError as refused:
        raise UserError(f"{name}: {raw!r} ({origin}) {refused}; allowed: {key.allowed()}") from None
    return value


def is_unset(raw: Any) -> bool:
    """Whether a raw value takes its key back to the default: None, or the word for it."""
    if isinstance(raw, list) and len(raw) == 1:
        raw = raw[0]
    return raw is None or (isinstance(raw, str) and raw in _UNSET)


class _RefusedError(ValueError):
    """Why a value is no good, as the middle of a sentence."""


def _single(key: Key, raw: Any) -> Any:
    if isinstance(raw, (list, tuple)) and len(raw) == 1:
        raw = raw[0]
    if isinstance(raw, str) and raw in key.rule.unbuilt:
        raise _RefusedError("is a choice of MindCV's that does not exist here")
    for kind in key.kinds:
        value = _as(kind, raw)
        if value is not None:
            return value
    raise _RefusedError("has the wrong type")


def _many(key: Key, raw: Any) -> tuple[Any, ...]:
    raw = [raw] if isinstance(raw, str) else raw
    if not isinstance(raw, (list, tuple)):
        raise _RefusedError("is not a list")
    items: list[Any] = []
    for item in raw:
        items += [part for part in re.split(r"[\s,\[\]()'\"]+", item) if part] if isinstance(item, str) else [item]
    values = [_as(key.kinds[0], item) for item in items]
    if None in values:
        raise _RefusedError(f"has an item of the wrong type, {items[values.index(None)]!r}")
    return tuple(values)


def _as(kind: type, raw: Any) -> Any:
    """``raw`` as bool, int, float or str; None if it has none of these types."""
    if kind is str:
        return raw if isinstance(raw, str) else None
    if kind is bool:
        return raw if isinstance(raw, bool) else _TRUTH.get(str(raw).lower())
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        return None
    if kind is int and isinstance(raw, int):
        return raw
    try:
        number = float(raw)
    except (ValueError, OverflowError):
        return None
    if kind is float:
        return number
    return int(number) if number.is_integer() else None


def _check(key: Key, value: Any) -> None:
    rule = key.rule
    if rule.fixed is not None and value != key.default:
        raise _RefusedError(f"is not possible: {rule.fixed}")
    items: Sequence[Any] = value if key.many else [value]
    for item in items:
        if isinstance(item, str):
            _check_text(rule, item)
        elif isinstance(item, (int, float)) and not isinstance(item, bool):
            _check_number(rule, item)
    if rule.length is not None and len(items) != rule.length:
        raise _RefusedError(f"has {len(items)} items")
    if rule.rising and list(items) != sorted(items):
        raise _RefusedError("does not rise")


def _check_text(rule: Rule, text: str) -> None:
    if "\0" in text:
        raise _RefusedError("has a character that no name can have")
    if rule.choices and text not in rule.choices:
        found = difflib.get_close_matches(text, rule.choices, n=1)
        raise _RefusedError("is not a choice" + (f" (did you mean {found[0]}?)" if found else ""))
    if rule.pattern and not re.fullmatch(rule.pattern, text):
        raise _RefusedError("is not of the right form")


def _check_number(rule: Rule, number: float) -> None:
    if abs(number) > sys.float_info.max or math.isnan(number):
        raise _RefusedError("is not a finite number")
    if rule.within and not in_interval(number, rule.within):
        raise _RefusedError("is impossible")


def in_interval(number: float, interval: str) -> bool:
    """Whether ``number`` lies in an interval such as "(0, 1]"."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = number >= low if interval[0] == "[" else number > low
    below = number <= high if interval[-1] == "]" else number < high
    return above and below
