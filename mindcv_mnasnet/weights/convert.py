"""Weights of any source as ours, and ours as any source's: every tensor once, by its role, or nothing at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.data.sets import without_places
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import require_writable
from mindcv_mnasnet.networks.families import CONVENTIONS
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.run.checkpoint import SUFFIX, Checkpoint, write_checkpoint
from mindcv_mnasnet.weights import tensorflow
from mindcv_mnasnet.weights.detect import is_first_layout, network_of
from mindcv_mnasnet.weights.files import Stored, write_stored
from mindcv_mnasnet.weights.name_maps import NAME_MAPS, shapes
from mindcv_mnasnet.weights.read import SOURCES, Converted, own_checkpoint, read_weights
from mindcv_mnasnet.weights.recognize import PYTORCH


@dataclass(frozen=True)
class Report:
    """What a conversion did; ``checksum`` is over names, shapes and bytes of the tensors in our layout."""

    source: str
    target: str
    network: Network
    tensors: int
    parameters: int
    checksum: str
    reported: Mapping[str, Any] | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        width = "" if self.network.width_mult in (None, 1.0) else f" x {self.network.width_mult:g}"
        lines = [
            f"{self.source} -> {self.target}: {self.network.family or 'network of its own'}{width}, "
            f"{self.network.num_classes} classes, {self.network.image_size} px",
            f"{self.tensors} tensors, {self.parameters:,} numbers, checksum {self.checksum}",
            f"padding {self.network.padding}, BN epsilon {self.network.bn_eps:g}, "
            f"residual rule {self.network.residual_rule}",
        ]
        if self.reported:
            lines.append(f"reported for these weights, if they are the published ones: {self.reported['top1']} % top-1")
        return "\n".join([*lines, *self.notes])


def convert(
    src: str | Path,
    dst: str | Path,
    source: str | None = None,
    target: str | None = None,
    model: str | None = None,
    raw: bool = False,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
    width_mult: float | None = None,
    overwrite: bool = False,
    evaluation: Mapping[str, Any] | None = None,
) -> Report:
    """Convert a weight file; all of it, or nothing is written.

    Args:
        target: one of ``SOURCES``; None means ours for .safetensors and MindCV's for .ckpt.
        overwrite: whether ``dst`` may be there already.
        evaluation: recipe keys on how images are prepared, in place of the source's.
    Raises:
        UserError: as for ``read_weights``; ``dst`` is there; or the target would compute something else with these
            weights, because its padding or its shortcuts are different ones.
        JobError: ``dst`` cannot be written.
    """
    dst = Path(dst)
    target = target or {".safetensors": "own", ".ckpt": "mindcv"}.get(dst.suffix.lower())
    if target not in SOURCES:
        raise UserError(f"to: {target!r} for {dst}; say which of {', '.join(SOURCES)} it is for")
    _require_suffix(dst, target)
    if not overwrite and (dst.exists() or dst.with_name(dst.name + ".index").exists()):
        raise UserError(f"{dst} is there already; name another file or say that it may be overwritten")
    require_writable("output", dst)
    if not dst.parent.is_dir():
        raise UserError(f"there is no folder {dst.parent}")
    weights = read_weights(src, source, model, raw, class_names, image_size, width_mult, evaluation)
    checksum = tensor_checksum(weights.tensors)
    tensors, note = (weights.tensors, None) if target == "own" else _for_target(weights, target)
    _write(dst, target, weights, tensors, checksum)
    return Report(
        source=weights.source or weights.origin,
        target=target,
        network=weights.network,
        tensors=len(tensors),
        parameters=sum(value.size for value in tensors.values()),
        checksum=checksum,
        reported=weights.reported,
        notes=(*weights.notes, *([note] if note else [])),
    )


def _require_suffix(dst: Path, target: str) -> None:
    suffix = dst.suffix.lower()
    if target == "own" and suffix != SUFFIX:
        raise UserError(f"{dst}: checkpoints of this kit end in {SUFFIX}; name it so, or say with --to whom it is for")
    if target != "tf" and (target == "mindcv") != (suffix == ".ckpt"):
        raise UserError(f"{dst}: MindCV's files end in .ckpt, and only they do")
    if target == "torchvision" and suffix not in PYTORCH:
        raise UserError(f"{dst}: torchvision loads a MnasNet from .pth alone, which says the version of its layout")


def _write(dst: Path, target: str, weights: Converted, tensors: Mapping[str, np.ndarray], checksum: str) -> None:
    if target == "own":
        write_checkpoint(dst, tensors, _meta(weights, checksum))
        return
    network = replace(weights.network, **CONVENTIONS[target])
    if target == "tf":
        tensorflow.write_tensorflow(dst, tensors, network)
        return
    name_map = NAME_MAPS[target]
    _require_buildable(network, target)
    stored = {theirs: tensors[ours] for ours, theirs in name_map.names(network).items()}
    counters = {name: weights.counters.get(name, 0) for name in name_map.counters(network)}
    version = (1 if is_first_layout(network) else 2) if target == "torchvision" else None
    write_stored(dst, Stored(stored, counters), version)


def _require_buildable(network: Network, target: str) -> None:
    """Refuse to write what the target's own models cannot load: torchvision and MindCV have fixed ones."""
    if target not in ("torchvision", "mindcv"):
        return
    known, names = shapes(network), NAME_MAPS[target].names(network)
    try:
        network_of({theirs: known[ours] for ours, theirs in names.items()}, target)
    except UserError as error:
        raise UserError(f"{target} has no model for these weights: {error}") from None


def open_weights(path: str | Path) -> Checkpoint:
    """A checkpoint of ours, or the weights of any other source, converted in memory, as if they were one.

    Raises:
        UserError: as for ``read_weights``.
    """
    path = Path(path)
    if (own := own_checkpoint(path)) is not None:
        return own
    weights = read_weights(path)
    return Checkpoint(path, dict(weights.tensors), _meta(weights, tensor_checksum(weights.tensors)))


def _meta(weights: Converted, checksum: str) -> dict[str, Any]:
    return {
        "recipe": without_places(weights.recipe).to_dict(),
        "network": weights.network.to_dict(),
        "class_names": list(weights.class_names),
        "source": weights.source,
        "reported": weights.reported,
        "conversion": {
            "from": weights.origin,
            "sha256": weights.sha256,
            "tensors": len(weights.tensors),
            "checksum": checksum,
            "counters": dict(weights.counters),
        },
        **({} if weights.data is None else {"data": weights.data}),
    }


def _for_target(weights: Converted, target: str) -> tuple[Mapping[str, np.ndarray], str | None]:
    """The tensors for a library whose conventions are fixed, and a sentence on what was changed for that.

    Another BN epsilon is made up for in the variances, and where these would fall below zero in the factors (gamma),
    which leaves the function as it is; another padding or shortcut cannot be made up for.
    """
    network, theirs = weights.network, replace(weights.network, **CONVENTIONS[target])
    if network.padding != theirs.padding:
        raise UserError(
            f"{target} pads {theirs.padding}, these weights were trained with padding {network.padding}: "
            "there they would compute something else"
        )
    if network.layers() != theirs.layers():
        raise UserError(f"{target} has another shortcut over the first block than these weights were trained with")
    shift = network.bn_eps - theirs.bn_eps
    if shift == 0:
        return weights.tensors, None
    changed = dict(weights.tensors)
    for name in (name for name in changed if name.endswith(".moving_variance")):
        before = changed[name].astype(np.float64)
        after = np.maximum(before + shift, 0)
        gamma = name.removesuffix("moving_variance") + "gamma"
        factor = np.sqrt((after + theirs.bn_eps) / (before + network.bn_eps))
        factor[before + shift >= 0] = 1
        changed[gamma] = (changed[gamma] * factor).astype(np.float32)
        changed[name] = after.astype(np.float32)
    sentence = f"moving variances {shift:+g}: {target} adds BN epsilon {theirs.bn_eps:g}, not {network.bn_eps:g}"
    return changed, sentence


def tensor_checksum(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes and bytes of tensors, in order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = np.asarray(tensors[name], order="C")
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
