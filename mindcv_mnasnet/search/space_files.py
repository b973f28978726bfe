"""Search spaces from YAML: the presets, or a file of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.blocks import check, check_whole, is_number
from mindcv_mnasnet.recipe.values import nearest
from mindcv_mnasnet.recipe.yaml_files import read_recipe_file
from mindcv_mnasnet.search.space import OPERATORS, SKIPS, STRIDES, Space

PRESETS = Path(__file__).with_name("spaces.yaml")
_DECISIONS = ("operator", "expansion", "kernel", "se", "skip", "filters", "layers")
_KEYS = ("stem", "strides", "filters", "layers", "decisions")
_NETWORK_KEYS = ("stem_stride", "head", "padding", "bn_eps", "bn_momentum", "dropout", "image_size", "num_classes")


def load_space(name: str | Path, **fields: Any) -> Space:
    """A preset (``paper``, ``a1``, ``open``), or a YAML file of the presets' form that holds one space.

    Args:
        fields: fields of ``arch.Network`` that all networks of the space get.
    Raises:
        UserError: no such preset or file, or what is wrong in it.
    """
    presets = read_recipe_file(PRESETS)
    if str(name) in presets:
        return read_space(str(name), presets[str(name)], fields)
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"space {str(name)!r} is unknown; presets are {', '.join(presets)}, or name a YAML file")
    return read_space(path.stem, read_recipe_file(path), fields)


def read_space(name: str, content: Any, fields: Mapping[str, Any] | None = None) -> Space:
    """A space from the mapping that a YAML file holds; ``fields`` overrule its network keys."""
    if not isinstance(content, dict):
        raise UserError(f"space {name} is not a mapping")
    known = (*_KEYS, *_NETWORK_KEYS)
    for key in content:
        if key not in known:
            raise UserError(f"space {name}: unknown key {key!r}{nearest(str(key), known)}")
    for key in _KEYS[1:]:
        if key not in content:
            raise UserError(f"space {name} has no {key}")
    lists = {key: _whole_numbers(f"space {name}: {key}", content[key]) for key in ("filters", "layers")}
    strides = _strides(f"space {name}: strides", content["strides"])
    if len({len(values) for values in (strides, *lists.values())}) > 1:
        raise UserError(f"space {name}: strides, filters and layers have different lengths")
    stem = content.get("stem", 32)
    check_whole(f"space {name}: stem", stem)
    own = {key: content[key] for key in _NETWORK_KEYS if key in content}
    space = Space(
        name,
        stem,
        strides,
        **lists,
        choices=_choices(name, content["decisions"]) + ((("stride", STRIDES),) if max(map(len, strides)) > 1 else ()),
        network_fields=tuple(sorted({**own, **(fields or {})}.items())),
    )
    for position, allowed in enumerate(space.allowed):
        if not allowed:
            stage = position // len(space.choices)
            raise UserError(
                f"space {name}: layers: no choice leaves the {lists['layers'][stage]} of stage {stage + 1} one"
            )
    return space


def _choices(name: str, decisions: Any) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    if not isinstance(decisions, dict) or "operator" not in decisions:
        raise UserError(f"space {name}: decisions is a mapping that begins with operator")
    found = []
    for decision, values in decisions.items():
        where = f"space {name}: {decision}"
        if decision not in _DECISIONS:
            raise UserError(f"space {name}: unknown decision {decision!r}{nearest(str(decision), _DECISIONS)}")
        check(isinstance(values, list) and len(values) > 0, where, values, "a list of choices")
        check(len({str(value) for value in values}) == len(values), where, values, "a list of different choices")
        for value in values:
            if decision in ("operator", "skip"):
                names = tuple(OPERATORS) if decision == "operator" else SKIPS
                check(value in names, where, value, f"one of {', '.join(names)}")
            elif decision == "layers":
                check(isinstance(value, int) and not isinstance(value, bool), where, value, "a whole number")
            elif decision in ("se", "filters"):
                ok = is_number(value) and (0 <= value <= 1 if decision == "se" else 0 < value <= 100)
                check(ok, where, value, "a share of 1" if decision == "se" else "above 0")
            else:
                check_whole(where, value)
        found.append((decision, tuple(values)))
    apart = "expansion" in decisions
    for operator in decisions["operator"]:
        said = OPERATORS[operator][1] is not None
        if apart and said and operator != "conv":
            raise UserError(f"space {name}: operator {operator} says its expansion; leave the decision expansion out")
        if not apart and not said:
            raise UserError(f"space {name}: operator {operator} needs the decision expansion")
    return tuple(found)


def _strides(where: str, values: Any) -> tuple[tuple[int, ...], ...]:
    check(isinstance(values, list) and len(values) > 0, where, values, "a list of strides")
    found = tuple(tuple(one) if isinstance(one, list) else (one,) for one in values)
    for one, value in zip(found, values, strict=True):
        check(one in ((1,), (2,), STRIDES), where, value, f"1, 2 or {list(STRIDES)}")
    return found


def _whole_numbers(where: str, values: Any) -> tuple[int, ...]:
    check(isinstance(values, list) and len(values) > 0, where, values, "a list of whole numbers")
    for value in values:
        check_whole(where, value)
    return tuple(values)
