"""Files of class names, in the forms in which people have them."""

from __future__ import annotations

import ast
import codecs
import csv
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import with_home

_HEADERS = {"class", "classes", "class_name", "class name", "classname", "label", "labels", "name", "names"}
_WORDNET = re.compile(r"(n\d{8})\s+\S")


def text_of(path: Path) -> str:
    """A file as text, in UTF-8 or UTF-16 with or without a byte order mark; line ends as they are.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read.
    """
    data = path.read_bytes()
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if marked else "utf-8-sig")


def read_class_names(path: str | Path) -> list[str]:
    """Class names in the order of the logits.

    The file holds one name per line; lines of a number from 0 or 1 and a name, in any order, separated by a comma,
    semicolon, tab, colon or blank; WordNet ids, each before its title; or a JSON (or Python) list or mapping between
    numbers and names. Quotes, header lines and empty lines are understood.

    Raises:
        UserError: it cannot be read, or names a class twice.
    """
    path = with_home(path)
    try:
        text = text_of(path).strip()
        names = _listed(text) if text[:1] in ("[", "{") else _lines(text)
    except UnicodeDecodeError:
        raise UserError(f"class_names: {path} is no text in UTF-8 or UTF-16; save it as UTF-8") from None
    except (OSError, ValueError, SyntaxError, TypeError) as error:
        raise UserError(f"class_names: {path} cannot be read ({error})") from None
    if not names:
        raise UserError(f"class_names: {path} holds no names")
    counts = Counter(unicodedata.normalize("NFC", name) for name in names)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise UserError(f"class_names: {path} names {twice!r} twice; every class needs a name of its own")
    return names


def _listed(text: str) -> list[str]:
    try:
        content = json.loads(text)
    except ValueError:
        content = ast.literal_eval(text)  # a printed dictionary of Python
    if not isinstance(content, Mapping):
        return [_first(item) for item in content]
    pairs = list(content.items())
    if all(isinstance(value, int) for value in content.values()):
        pairs = [(number, name) for name, number in pairs]
    return _in_order([(str(number), _first(name)) for number, name in pairs])


def _first(item: Any) -> str:
    """A name, or the first of a list such as a WordNet id and its title."""
    return str(item[0] if isinstance(item, list | tuple) else item).strip()


def _lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for separator in ("\t", ";", ",", ":", " "):
        pairs = _pairs(lines, separator)
        if pairs is not None:
            return _in_order(pairs)
    names = [_unquoted(line) for line in lines]
    if len(names) > 2 and names[0].lower() in _HEADERS:
        del names[0]
    wordnet = [_WORDNET.match(name) for name in names]
    return [found[1] for found in wordnet if found] if all(wordnet) else names


def _unquoted(text: str) -> str:
    text = text.strip()
    return next(csv.reader([text]))[0].strip() if text.startswith('"') else text


def _pairs(lines: Sequence[str], separator: str) -> list[tuple[str, str]] | None:
    """Number and name of each line, whichever comes first, without a header; None where they are no such lines."""
    first = [line.partition(separator) for line in lines]
    last = [line.rpartition(separator) for line in lines]
    cut = [(_unquoted(number), _unquoted(name)) for number, _, name in first]
    turned = [(_unquoted(number), _unquoted(name)) for name, _, number in last]
    for pairs in (cut, turned):
        for kept in (pairs, pairs[1:]):
            if len(kept) > 1 and all(number.isdecimal() and name for number, name in kept) and _complete(kept):
                return kept
    return None


def _complete(pairs: Sequence[tuple[str, str]]) -> bool:
    numbers = sorted(int(number) for number, _ in pairs)
    return numbers in (list(range(len(pairs))), list(range(1, len(pairs) + 1)))


def _in_order(pairs: Sequence[tuple[str, str]]) -> list[str]:
    if not all(number.isdecimal() for number, _ in pairs) or not _complete(pairs):
        raise ValueError(f"its numbers are not 0 to {len(pairs) - 1}, each once")
    return [name for _, name in sorted(pairs, key=lambda pair: int(pair[0]))]
