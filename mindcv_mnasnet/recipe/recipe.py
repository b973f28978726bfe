"""A recipe: everything that a job was asked to do, complete, checked and frozen.

Override first, derive after: a YAML file, then the command line, then the checks; what follows from the numbers
(steps, peak rate, ...) is :mod:`mindcv_mnasnet.recipe.plan`'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.detector import Detector
from mindcv_mnasnet.networks.network import Network, resolve
from mindcv_mnasnet.recipe.command_line import parse_command_line
from mindcv_mnasnet.recipe.fitting import fitted
from mindcv_mnasnet.recipe.keys import AllKeys
from mindcv_mnasnet.recipe.rule import Use
from mindcv_mnasnet.recipe.rules import check_together
from mindcv_mnasnet.recipe.values import is_unset, key_table, keys_for, typed
from mindcv_mnasnet.recipe.yaml_files import read_layers, to_yaml

RECIPE_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Recipe(AllKeys):
    """One attribute per key of :mod:`mindcv_mnasnet.recipe.keys`; made by :func:`load_recipe`."""

    def to_dict(self) -> dict[str, Any]:
        """Every key with its value; lists instead of tuples, so that it survives JSON and YAML."""
        values = {name: getattr(self, name) for name in key_table()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], origin: str = "a stored recipe") -> Recipe:
        """The inverse of :meth:`to_dict`; missing keys have their defaults.

        Raises:
            UserError: an unknown key or an impossible value.
        """
        if values.get("quantize") and "quant_weight_bits" not in values:
            values = {**values, "quant_weight_bits": 8}  # what there was before the key
        return _checked({name: (value, origin) for name, value in values.items()}, given=None)

    def dump(self) -> str:
        """YAML of the keys that differ from their defaults or were given; loading it gives an equal recipe."""
        values = self.to_dict()
        kept = {name: values[name] for name in key_table() if name in self.given or self._differs(name)}
        return to_yaml(kept)

    def _differs(self, name: str) -> bool:
        return bool(getattr(self, name) != key_table()[name].default)

    def identity(self) -> dict[str, Any]:
        """What is computed: the keys that differ from their defaults, without those that say where and how it is named.

        Defaults are left out, so that a recipe stays the same one when a key is added.
        """
        values, places = self.to_dict().items(), keys_for(Use.PLACE)
        return {name: value for name, value in values if self._differs(name) and name not in places}

    def fingerprint(self) -> str:
        """SHA-256 (hex) of :meth:`identity`: equal on every machine and for every way of writing the recipe."""
        canonical = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def network(self, num_classes: int | None = None) -> Network:
        """The network description that the recipe asks for.

        Args:
            num_classes: number of classes where the recipe leaves it to the data.
        Raises:
            UserError: unknown model name, impossible block string, or no number of classes from either side.
        """
        classes = self.num_classes if self.num_classes is not None else num_classes
        if classes is None:
            raise UserError("num_classes is needed where there is no data to count the classes of")
        overrides = {key.rule.sets or name: getattr(self, name) for name, key in key_table().items()}
        overrides = {field.name: overrides.get(field.name) for field in fields(Network)} | {"num_classes": classes}
        return resolve(self.model, **{name: value for name, value in overrides.items() if value is not None})

    def detector(self, network: Network) -> Detector:
        """The detector that the recipe asks for on this backbone, with ``task: detect``.

        Raises:
            UserError: the network cannot be the backbone of one.
        """
        scales, reduced = (self.min_scale, self.max_scale), self.reduce_boxes_in_lowest_layer
        return Detector(network, self.extras_out_channels, self.aspect_ratios, *scales, reduced)

    def pixel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation per input channel, pixels 0..255; gray input takes the average of an RGB triple."""
        if self.in_channels == len(self.mean):
            return self.mean, self.std
        return (sum(self.mean) / len(self.mean),), (sum(self.std) / len(self.std),)

    def at_size(self, size: int) -> Recipe:
        """This recipe for images of ``size`` pixels; a short side that only repeats size / crop_pct follows it.

        Raises:
            UserError: the short side was given by hand and is less than ``size``.
        """
        kept = self.val_resize
        if kept is not None and size != self.image_resize and kept == int(self.image_resize / self.crop_pct):
            kept = None
        if kept is not None and size != self.image_resize and kept < size:
            raise UserError(
                f"image_resize: {size} is more than val_resize, {kept}, and the rest would be black; "
                "say --val_resize as well"
            )
        return replace(self, image_resize=size, val_resize=kept)

    def start_weights(self) -> str | None:
        """Checkpoint that training starts from: ``init_from``, or MindCV's way of saying it, ``ckpt_path``."""
        return self.init_from or self.ckpt_path or None


def load_recipe(
    path: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    argv: Sequence[str] | None = None,
) -> Recipe:
    """A recipe from a YAML file, ``overrides`` by key, and a command line, each overriding what precedes.

    Args:
        path: YAML file; a ``--config`` in ``argv`` replaces it. None starts from the defaults.
        overrides: values by key, typed or as text.
        argv: command line without the program's name.
    Raises:
        UserError: a file that cannot be read, an unknown key, an impossible value or pair of values.
    """
    command_line = parse_command_line(argv or ())
    path = path if command_line.config is None else command_line.config
    merged = {} if path is None else read_layers(path)
    merged |= {name: (value, "override") for name, value in (overrides or {}).items()}
    merged |= {name: (value, "command line") for name, value in command_line.overrides.items()}
    return fitted(_checked(merged, given=frozenset(merged)))


def split_width(name: str) -> tuple[str, str]:
    """What names a network, and the width behind ``@``, or nothing; a recipe's path may have a ``@`` of its own."""
    if name.endswith(RECIPE_SUFFIXES):
        return name, ""
    model, _, width = name.rpartition("@")
    return (model, width) if model else (name, "")


def network_named(name: str, num_classes: int = 1000) -> Network:
    """The network of a model's name or a recipe file, ``NAME`` or ``FILE.yaml``, or of one with another ``@WIDTH``.

    Raises:
        UserError: no such model or recipe, or an impossible width.
    """
    model, width = split_width(name)
    try:
        overrides: dict[str, Any] = {"width_mult": float(width)} if width else {}
    except ValueError:
        raise UserError(f"{name!r} is not a model's name or a recipe, or one with @ and a width") from None
    if model.endswith(RECIPE_SUFFIXES):
        return replace(load_recipe(model).network(num_classes), **overrides)
    return resolve(model, **overrides)


def load_stored_recipe(path: str | Path) -> Recipe:
    """The recipe in a run folder: what it does not say has its default, as when the run was begun.

    Raises:
        UserError: a file that cannot be read, an unknown key, or an impossible value.
    """
    merged = read_layers(path)
    return _checked(merged, given=frozenset(merged))


def with_evaluation(recipe: Recipe, keys: Mapping[str, Any], origin: str = "command line") -> Recipe:
    """``recipe`` with other ``keys`` on top; a new image size takes along what follows from it (``Recipe.at_size``).

    Raises:
        UserError: an unknown key, or an impossible value or pair of values.
    """
    if "image_resize" in keys and "val_resize" not in keys:
        recipe = recipe.at_size(typed("image_resize", keys["image_resize"], origin))
    return Recipe.from_dict({**recipe.to_dict(), **keys}, origin)


def with_keys(recipe: Recipe, keys: Mapping[str, Any]) -> Recipe:
    """``recipe`` with other ``keys`` on top, as if it had been written with them: what was fitted is fitted anew.

    What was changed since it was loaded, by ``dataclasses.replace``, stays.

    Raises:
        UserError: an unknown key, or an impossible value or pair of values.
    """
    values = recipe.to_dict()
    given = {name: values[name] for name in recipe.given}
    loaded = load_recipe(overrides=given).to_dict()
    changed = {name: value for name, value in values.items() if value != loaded[name]}
    return load_recipe(overrides={**given, **changed, **keys})


def diff(a: Recipe, b: Recipe) -> list[str]:
    """Keys whose values differ, of those that say what is computed; empty exactly when the fingerprints are equal."""
    mine, theirs = a.identity(), b.identity()
    return [name for name in key_table() if (name in mine or name in theirs) and getattr(a, name) != getattr(b, name)]


def _checked(merged: Mapping[str, tuple[Any, str]], given: frozenset[str] | None) -> Recipe:
    values = {name: typed(name, raw, origin) for name, (raw, origin) in merged.items()}
    if (values.get("eval_crop"), values.get("val_interpolation")) == ("tf_square", "bilinear"):
        values["val_interpolation"] = "tf_bilinear"  # what these two have always meant together
    table = key_table()
    changed = frozenset(name for name, value in values.items() if value != table[name].default)
    unset = frozenset(name for name, (raw, _) in merged.items() if is_unset(raw))
    recipe = Recipe(**values, given=changed if given is None else (given - unset) | changed)
    check_together(recipe, {name: origin for name, (_, origin) in merged.items()})
    return recipe
