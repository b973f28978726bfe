"""The keys of a search's file that are mappings themselves: ``proxy``, ``rungs`` and ``target``."""

from __future__ import annotations

from typing import Any

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.values import is_unset, typed
from mindcv_mnasnet.search.keys import KEEP

#: Recipe keys that every trial sets itself: its network's, its seed, its images and its folder.
_OF_TRIALS = frozenset(
    {"model", "blocks", "stem", "width_mult", "divisor", "residual_rule", "seed", "val_split", "val_fraction"}
    | {"val_labels", "split_by", "run_name", "ckpt_save_dir", "resume", "compile_cache"}
)


def read_proxy(content: Any, path: str, stored: bool) -> dict[str, Any]:
    """The recipe keys that trials change.

    Args:
        stored: the file is a search's own, perhaps of an earlier version, which took keys that mean nothing.
    Raises:
        UserError: no mapping, an unknown key, an impossible value, or a key that every trial sets itself.
    """
    return {} if content is None else _recipe_keys(content, f"proxy of {path}", stored)


def read_rungs(content: Any, path: str, stored: bool) -> tuple[dict[str, Any], ...]:
    """The longer trainings, each with ``keep`` and the recipe keys that it changes; ``stored`` as in ``read_proxy``.

    Raises:
        UserError: as ``read_proxy``, or a number of networks that is none, or more than the one before.
    """
    if content is None:
        return ()
    if not isinstance(content, list):
        raise UserError(f"rungs of {path} is not a list of mappings")
    found: list[dict[str, Any]] = []
    for number, rung in enumerate(content, start=1):
        where = f"rung {number} of {path}"
        keep = rung.get(KEEP) if isinstance(rung, dict) else None
        if type(keep) is not int or keep < 1 or (found and keep > found[-1][KEEP]):
            raise UserError(
                f"{where} needs keep, the number of networks: 1 or more and no more than the one before has"
            )
        keys = _recipe_keys({name: raw for name, raw in rung.items() if name != KEEP}, where, stored)
        found.append({KEEP: keep, **keys})
    return tuple(found)


def read_target(content: dict[str, Any], path: str) -> dict[str, Any]:
    """What the file says of its target, ``{network: NAME or RECIPE, factor: F}``, as the keys that it stands for.

    Raises:
        UserError: it says something else, or those keys stand beside it.
    """
    target = content.get("target")
    if target is None:
        return {}
    if not isinstance(target, dict) or set(target) - {"network", "factor"} or is_unset(target.get("network")):
        raise UserError(f"target of {path} is a mapping of network and, where it is not 1, factor")
    for name in ("target_network", "target_factor"):
        if name in content:
            raise UserError(f"{name}: target of {path} says it too; leave one of the two out")
    return {"target_network": target["network"], "target_factor": target.get("factor", 1.0)}


def _recipe_keys(content: Any, where: str, stored: bool) -> dict[str, Any]:
    """Keys of recipes with their values as YAML holds them; None stays what takes a key back to its default."""
    if not isinstance(content, dict):
        raise UserError(f"{where} is not a mapping of recipe keys")
    values = {}
    for name, raw in content.items():
        value = typed(str(name), raw, where)
        if name in _OF_TRIALS and not stored:
            raise UserError(f"{name}: every trial sets it itself; leave it out of {where}")
        value = list(value) if isinstance(value, tuple) else value
        values[str(name)] = None if is_unset(raw) else value
    return values
