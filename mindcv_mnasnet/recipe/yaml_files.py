"""Recipe files: YAML read strictly, with the file that each builds on, and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.values import key_table

BASE = "base"  # in a file: another recipe file that it builds on


def read_layers(path: str | Path) -> dict[str, tuple[Any, str]]:
    """Keys of a recipe file and of the file that it builds on (``base``), each with its raw value and where it stood.

    ``base`` is relative to the file that names it; what the file itself says wins.

    Raises:
        UserError: a file that cannot be read, or one that builds on itself.
    """
    layers: list[dict[str, tuple[Any, str]]] = []
    seen: list[Path] = []
    following: str | Path | None = path
    while following is not None:
        if Path(following).resolve() in seen:
            raise UserError(f"base: recipe {following} builds on itself, by way of {Path(path)}")
        seen.append(Path(following).resolve())
        content = read_recipe_file(following)
        base = content.pop(BASE, None)
        if base is not None and (not isinstance(base, str) or not base):
            raise UserError(f"base: {base!r} (recipe {following}) is impossible; it names one recipe file")
        layers.append({name: (value, str(following)) for name, value in content.items()})
        following = None if base is None else Path(following).parent / base
    merged: dict[str, tuple[Any, str]] = {}
    for layer in reversed(layers):
        merged |= layer
    return merged


def read_recipe_file(path: str | Path) -> dict[str, Any]:
    """Keys and raw values of a recipe file.

    Raises:
        UserError: no such file, not YAML, not a mapping, empty, no name, or a duplicate key.
    """
    if not str(path):
        raise UserError("the name of the recipe file (--config) is empty")
    try:
        content = _StrictLoader(Path(path).read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise UserError(f"recipe {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"recipe {path} is not a text file") from None
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"recipe {path} is not valid YAML{line}: {error.problem}") from None
    except RecursionError:
        raise UserError(f"recipe {path} is not valid YAML: it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # such as a date in a thirteenth month
        raise UserError(f"recipe {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        raise UserError(f"recipe {path} is empty")
    if not isinstance(content, dict):
        raise UserError(f"recipe {path} is not a mapping of keys to values")
    return {str(name): value for name, value in content.items()}


def to_yaml(values: Mapping[str, Any]) -> str:
    """Keys and values as YAML that ``read_recipe_file`` reads."""
    if not values:
        return "{}\n"
    return str(yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True))


class _StrictLoader(yaml.SafeLoader):
    """Safe loading that refuses a key given twice, and reads numbers as people mean them.

    A key of free text takes what is written (``run_name: 012``). 010 and 1:30, which YAML 1.1 takes for 8 and 90, stay
    text, so that a key of numbers takes the first for 10 and refuses the second.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: list[Any] = []
        for child, value in node.value:
            if child.value in seen:
                problem = f"key {child.value} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, child.start_mark)
            seen.append(child.value)
            key = key_table().get(str(child.value))
            if (
                key is not None
                and key.kinds == (str,)
                and key.rule.pattern
                and key.name != "model"
                and _is_number(value)
            ):
                value.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def _is_number(node: yaml.Node) -> bool:
    return node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")


def _as_meant(loader: _StrictLoader, node: yaml.ScalarNode) -> Any:
    if ":" in node.value or re.fullmatch(r"[-+]?0[0-9_]+", node.value):
        return node.value
    return _NUMBERS[node.tag](loader, node)


_NUMBERS = {
    "tag:yaml.org,2002:int": yaml.SafeLoader.construct_yaml_int,
    "tag:yaml.org,2002:float": yaml.SafeLoader.construct_yaml_float,
}
for _tag in _NUMBERS:
    _StrictLoader.add_constructor(_tag, _as_meant)


class _Dumper(yaml.SafeDumper):
    """Safe dumping with lists on one line."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style=True)
