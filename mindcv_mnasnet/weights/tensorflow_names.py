"""Variables of the authors' TensorFlow graphs and our parameters: names by role, layouts by kind. No framework.

Two spellings exist. With Keras layers (``use_keras=True``) kernels stand below ``mnas_net_model/`` and are numbered
through the whole model in the order of construction, all blocks before stem and head, while batch norms are
``tf.layers`` ones, which count anew in every scope. Without Keras there is no such level and everything counts anew.
Both are read alike: drop the level, group by scope, order by number. Source of the order: tensorflow/tpu,
models/official/mnasnet/mnasnet_model.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.weights.name_maps import require_mbconv

NAME_MAPS = ("keras", "tf_layers")
_NORM = {"gamma": "gamma", "beta": "beta", "moving_mean": "moving_mean", "moving_variance": "moving_variance"}
_LEAVES = {
    "conv2d": {"kernel": "weight"},
    "depthwise_conv2d": {"depthwise_kernel": "weight"},
    "dense": {"kernel": "weight", "bias": "bias"},
    "batch_normalization": _NORM,
}
_GATE = {"kernel": "weight", "bias": "bias"}
_VARIABLE = re.compile(
    r"(?P<model>[^/]+)/(?:mnas_net_model/)?mnas_(?P<scope>stem|head|blocks_(?:0|[1-9]\d{0,2}))/(?P<se>se/)?"
    r"(?:tpu_)?(?P<kind>conv2d|depthwise_conv2d|dense|batch_normalization)(?:_(?P<number>[1-9]\d{0,3}))?/(?P<leaf>\w+)"
)

Layers = dict[str, dict[int, dict[str, str]]]  # kind -> number -> leaf -> variable


def our_names(variables: Iterable[str]) -> dict[str, str]:
    """Which variable each of our parameters is, whichever way the names are spelled: ``{ours: variable}``.

    Raises:
        UserError: listing variables that are no part of a MnasNet, or a scope whose layers are not those of its role.
    """
    scopes: dict[str, Layers] = {}
    models, strange = set(), []
    for name in variables:
        found = _VARIABLE.fullmatch(name)
        if found is None:
            strange.append(name)
            continue
        models.add(found["model"])
        kind = f"se {found['kind']}" if found["se"] else found["kind"]
        layers = scopes.setdefault(found["scope"], {}).setdefault(kind, {})
        leaves = layers.setdefault(int(found["number"] or 0), {})
        if found["leaf"] in leaves:
            strange.append(name)
        leaves[found["leaf"]] = name
    if strange:
        raise UserError(f"{len(strange)} variables are no part of a MnasNet: {_some(strange)}")
    if len(models) > 1:
        raise UserError(f"the variables belong to several models: {_some(sorted(models))}")
    taken = dict(pair for scope, layers in scopes.items() for pair in _scope_names(scope, layers))
    if missing := {"stem.conv.weight", "head.conv.weight"} - taken.keys():
        raise UserError(f"the variables have no {' and no '.join(sorted(name.split('.')[0] for name in missing))}")
    return taken


def _scope_names(scope: str, layers: Layers) -> Iterator[tuple[str, str]]:
    """Our names of a scope's variables, by what its layers are and in which order they come."""
    ours = scope.replace("_", ".")
    if scope.startswith("blocks_"):
        expands = len(layers.get("conv2d", {})) == 2
        roles = {
            "conv2d": [f"{ours}.expand.conv", f"{ours}.project.conv"][0 if expands else 1 :],
            "depthwise_conv2d": [f"{ours}.depthwise.conv"],
            "batch_normalization": [f"{ours}.{u}.bn" for u in ("expand", "depthwise", "project")][not expands :],
        }
        if "se conv2d" in layers:
            roles["se conv2d"] = [f"{ours}.se.reduce", f"{ours}.se.expand"]
    else:
        roles = {"conv2d": [f"{ours}.conv"], "batch_normalization": [f"{ours}.bn"]}
        if scope == "head":
            roles["dense"] = ["classifier"]
    for kind in sorted(roles.keys() | layers.keys()):
        leaves = _GATE if kind == "se conv2d" else _LEAVES.get(kind, {})
        numbered = sorted(layers.get(kind, {}).items())
        if len(numbered) != len(roles.get(kind, [])) or any(layer.keys() != leaves.keys() for _, layer in numbered):
            there = [name for _, layer in numbered for name in layer.values()]
            expected = f"{len(roles[kind])} with {', '.join(leaves)}" if kind in roles else "none"
            raise UserError(f"mnas_{scope} has {_some(there) or 'nothing'} for {kind}, but should have {expected}")
        for role, (_, layer) in zip(roles[kind], numbered, strict=True):
            for leaf, name in layer.items():
                yield f"{role}.{leaves[leaf]}", name


def variable_names(network: Network, name_map: str = "keras") -> dict[str, str]:
    """The authors' names of a network's parameters, in the order of the graph: ``{ours: variable}``.

    Raises:
        UserError: a name_map other than ``NAME_MAPS``.
    """
    if name_map not in NAME_MAPS:
        raise UserError(f"name_map is {name_map!r}, but must be {' or '.join(NAME_MAPS)}")
    require_mbconv(network, "the authors' code")
    counted: dict[str, int] = {}

    def layer(scope: str, kind: str, ours: str, leaves: dict[str, str]) -> Iterator[tuple[str, str]]:
        through = name_map == "keras" and kind != "batch_normalization"
        counter = kind if through else f"{scope} {kind}"
        number = counted[counter] = counted.get(counter, -1) + 1
        place = f"{model}/{'mnas_net_model/' if through else ''}mnas_{scope}/{kind}{f'_{number}' if number else ''}"
        for leaf, our_leaf in leaves.items():
            yield f"{ours}.{our_leaf}", f"{place}/{leaf}"

    def unit(scope: str, ours: str, kind: str = "conv2d") -> Iterator[tuple[str, str]]:
        yield from layer(scope, kind, f"{ours}.conv", _LEAVES[kind])
        yield from layer(scope, "batch_normalization", f"{ours}.bn", _NORM)

    def block(index: int, expands: bool, gates: bool) -> Iterator[tuple[str, str]]:
        scope, ours = f"blocks_{index}", f"blocks.{index}"
        if expands:
            yield from unit(scope, f"{ours}.expand")
        yield from unit(scope, f"{ours}.depthwise", "depthwise_conv2d")
        for gate in ("reduce", "expand") if gates else ():
            yield from layer(f"{scope}/se", "conv2d", f"{ours}.se.{gate}", _GATE)
        yield from unit(scope, f"{ours}.project")

    model = f"mnasnet-{network.family.replace('_', '-')}" if network.family else "mnasnet"
    names = [
        pair for index, each in enumerate(network.layers()) for pair in block(index, each.expand > 1, each.se_width > 0)
    ]
    names += [*unit("stem", "stem"), *unit("head", "head"), *layer("head", "dense", "classifier", _LEAVES["dense"])]
    return dict(names)


def _axes(name: str, dimensions: int) -> tuple[int, ...]:
    if dimensions == 4:
        return (2, 3, 0, 1) if ".depthwise." in name else (3, 2, 0, 1)
    return tuple(reversed(range(dimensions)))


def our_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a variable has as our parameter ``name``."""
    return tuple(shape[axis] for axis in _axes(name, len(shape)))


def our_layout(name: str, value: np.ndarray) -> np.ndarray:
    """A variable as our parameter ``name``: HWIO to OIHW, depthwise (k, k, C, 1) to (C, 1, k, k), dense transposed."""
    return np.ascontiguousarray(value.transpose(_axes(name, value.ndim)))


def authors_layout(name: str, value: np.ndarray) -> np.ndarray:
    """The inverse of ``our_layout``."""
    return np.ascontiguousarray(value.transpose(np.argsort(_axes(name, value.ndim))))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
