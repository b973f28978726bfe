"""Weights of any source in our names and layouts, with all that they need to compute what they were trained for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.families import CONVENTIONS
from mindcv_mnasnet.networks.network import Network, resolve
from mindcv_mnasnet.recipe.recipe import Recipe, with_evaluation
from mindcv_mnasnet.run.checkpoint import BrokenCheckpointError, Checkpoint, read_checkpoint
from mindcv_mnasnet.weights import tensorflow
from mindcv_mnasnet.weights.archive import looks_like_tensorflow
from mindcv_mnasnet.weights.conventions import published_as, recipe_for
from mindcv_mnasnet.weights.detect import network_of, require_fit, source_of, stored_sizes
from mindcv_mnasnet.weights.files import read_stored
from mindcv_mnasnet.weights.hugging_face import read_config
from mindcv_mnasnet.weights.labels import imagenet_class_names
from mindcv_mnasnet.weights.name_maps import NAME_MAPS, shapes
from mindcv_mnasnet.weights.recognize import is_safetensors
from mindcv_mnasnet.weights.sound import require_sound

_TEXT_ORDER = (
    "classes are named 0, 1, 2, ... by their place; folders named by numbers were in the order of text (0, 1, 10, 2) "
    "when torchvision or timm read them: say the names in that order with --class_names"
)
SOURCES = ("timm", "torchvision", "mindcv", "tf", "own")


@dataclass(frozen=True)
class Converted:
    """Weights in our names and layouts, with all that they need; ``source`` is what ``EvalSettings.source`` takes."""

    tensors: Mapping[str, np.ndarray]
    network: Network
    recipe: Recipe
    class_names: tuple[str, ...]
    source: str | None
    origin: str
    sha256: str | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    reported: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    data: Mapping[str, Any] | None = None  # identities of the images of its run (``data.known``)


def read_weights(
    path: str | Path,
    source: str | None = None,
    model: str | None = None,
    raw: bool = False,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
    width_mult: float | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> Converted:
    """Read the weights of any source; a ``config.json`` of Hugging Face beside them says how they are evaluated.

    Args:
        source: one of ``SOURCES``; None recognizes it by the names of the tensors.
        model: a model name, to overrule what is recognized from shapes.
        raw: raw weights instead of averaged (EMA) ones where a file has both.
        class_names: in the order of the logits; None takes ImageNet's for 1000 classes, else numbers.
        image_size: pixels per side that the weights are meant for, where it is not the model's own.
        width_mult: of ``model``, where it is not the name's own.
        evaluation: recipe keys on how images are prepared, which win over all others.
    Raises:
        UserError: no such file; a damaged or hostile one; tensors that are not exactly those of the network; an extra
            that is not installed.
    """
    path, config = read_config(Path(path))
    if source not in (None, *SOURCES):
        raise UserError(f"from: {source!r} is no source; they are {', '.join(SOURCES)}")
    if source == "tf" or (source is None and looks_like_tensorflow(path)):
        foreign = _tensorflow(path, raw, model, width_mult)
    elif own := _own(path, source, raw):
        for key, value in (("model", model), ("width_mult", width_mult)):
            if value is not None:
                raise UserError(f"{key}: {path} is a checkpoint of this kit, which knows its network; leave it out")
        return _changed(path, own, class_names, image_size, evaluation)
    else:
        foreign = _foreign(path, source, raw, model, width_mult)
    if width_mult is not None and model is None:
        raise UserError("width_mult: it is that of a model; name it (--model), or leave the width out")
    given = {**config.evaluation, **(evaluation or {})}
    origin = str(path.with_name("config.json")) if config.evaluation else "command line"
    configured = given.pop("image_resize", None)
    network = replace(foreign.network, image_size=image_size or configured or foreign.image_size)
    if class_names is None and config.class_names:
        class_names = config.class_names
    notes = [*foreign.notes, *config.notes]
    require_sound(foreign.tensors, str(path))
    whole = _described(path, foreign.tensors, network, foreign.kind, foreign.counters, class_names, notes)
    return replace(whole, recipe=with_evaluation(whole.recipe, given, origin))


@dataclass(frozen=True)
class _Foreign:
    """Another library's weights in our names; ``image_size`` is what they are meant for unless it is said."""

    tensors: Mapping[str, np.ndarray]
    network: Network
    kind: str
    image_size: int
    counters: Mapping[str, int]
    notes: list[str]


def _tensorflow(path: Path, raw: bool, model: str | None, width_mult: float | None) -> _Foreign:
    tensors, stored, note = tensorflow.read_tensorflow(path, raw)
    network = stored if model is None else _named(model, width_mult, stored, "tf")
    return _Foreign(tensors, network, "tf", stored.image_size, {}, [note])


def _foreign(path: Path, source: str | None, raw: bool, model: str | None, width_mult: float | None) -> _Foreign:
    stored = read_stored(path, raw)
    kind = source or source_of(stored.tensors)
    stored_shapes = {name: tuple(value.shape) for name, value in stored.tensors.items()}
    network = _network(path, stored_shapes, kind, model, width_mult)
    names = NAME_MAPS[kind].names(network)
    require_fit(path, {theirs: shapes(network)[ours] for ours, theirs in names.items()}, stored_shapes)
    if left := sorted(set(stored.counters) - set(NAME_MAPS[kind].counters(network))):
        raise UserError(f"{path} counts batches of modules that {kind} does not have there: {', '.join(left[:3])}")
    tensors = {ours: stored.tensors[theirs] for ours, theirs in names.items()}
    return _Foreign(tensors, network, kind, network.image_size, stored.counters, [stored.note] if stored.note else [])


def _changed(
    path: Path,
    own: Converted,
    class_names: Sequence[str] | None,
    image_size: int | None,
    evaluation: Mapping[str, Any] | None,
) -> Converted:
    """A checkpoint of ours with what was said on the command line."""
    require_sound(own.tensors, str(path))
    size = {} if image_size is None else {"image_resize": image_size}
    recipe = with_evaluation(own.recipe, {**size, **(evaluation or {})})
    names = own.class_names if class_names is None else tuple(class_names)
    if len(names) != own.network.num_classes:
        raise UserError(f"class names: {len(names)} are given, there are {own.network.num_classes} classes")
    network = replace(own.network, image_size=recipe.image_resize)
    return replace(own, recipe=recipe, network=network, class_names=names)


def _described(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    network: Network,
    kind: str,
    counters: Mapping[str, int],
    class_names: Sequence[str] | None,
    notes: Sequence[str],
) -> Converted:
    entry = published_as(kind, network, path.name if kind in ("mindcv", "torchvision") else None)
    named = entry is not None and entry.checkpoint is not None and entry.checkpoint == path.name
    usual = entry or published_as(kind, network, None)
    if network.num_classes == 1000:
        default = imagenet_class_names()
    else:
        default = tuple(str(number) for number in range(network.num_classes))
    names = default if class_names is None else tuple(class_names)
    if class_names is None and kind in ("timm", "torchvision") and 10 < network.num_classes != 1000:
        notes = [*notes, _TEXT_ORDER]
    if len(names) != network.num_classes:
        raise UserError(f"class names: {len(names)} are given, {path} has {network.num_classes} classes")
    if twice := [name for at, name in enumerate(names) if name in names[:at]]:
        raise UserError(f"class names: {twice[0]!r} is there twice; every class needs a name of its own")
    reported = None if usual is None else {"label": usual.label, "top1": usual.top1, "top5": usual.top5}
    return Converted(
        tensors=tensors,
        network=network,
        recipe=recipe_for(kind, network, usual),
        class_names=names,
        source=None if kind == "own" else f"{kind}/{path.name}" if named else kind,
        origin=kind,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None,
        counters=counters,
        reported=reported,
        notes=tuple(notes),
    )


def own_checkpoint(path: Path, required: bool = False) -> Checkpoint | None:
    """A checkpoint of ours, whatever its suffix; None for anything else, unless it is ``required`` to be one.

    Raises:
        UserError: a damaged one, or a safetensors file of others that is required to be one.
    """
    if not is_safetensors(path):
        return None
    try:
        return read_checkpoint(path)
    except BrokenCheckpointError as error:
        if required or "is not a checkpoint of mindcv_mnasnet" not in str(error):
            raise
        return None


def _own(path: Path, source: str | None, raw: bool) -> Converted | None:
    checkpoint = own_checkpoint(path, source == "own") if source in (None, "own") else None
    if checkpoint is None:
        return None
    checkpoint.require_classifier("conversion")
    meta = checkpoint.meta
    return Converted(
        tensors=checkpoint.weights(False if raw else None),
        network=checkpoint.network,
        recipe=checkpoint.recipe,
        class_names=checkpoint.class_names,
        source=meta.get("source"),
        origin="own",
        counters=meta.get("conversion", {}).get("counters", {}),
        reported=meta.get("reported"),
        data=meta.get("data"),
        notes=(f"{'averaged (EMA)' if checkpoint.chosen(False if raw else None) == 'ema' else 'raw'} weights",),
    )


def _network(
    path: Path, stored: Mapping[str, tuple[int, ...]], kind: str, model: str | None, width_mult: float | None
) -> Network:
    try:
        if model is None:
            return network_of(stored, kind)
        network = _resolved(model, width_mult, kind)
        sizes = stored_sizes(stored, NAME_MAPS[kind].names(network))
        return replace(network, **{key: sizes[key] for key in ("num_classes", "in_channels") if key in sizes})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _named(model: str, width_mult: float | None, stored: Network, kind: str) -> Network:
    network = _resolved(model, width_mult, kind, num_classes=stored.num_classes, in_channels=stored.in_channels)
    require_fit(Path(model), shapes(network), shapes(stored))
    return network


def _resolved(model: str, width_mult: float | None, kind: str, **sizes: int) -> Network:
    return resolve(model, **sizes, **({} if width_mult is None else {"width_mult": width_mult}), **CONVENTIONS[kind])
