"""A network's parameters: first values, values of a checkpoint, and which of them are kept fixed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import mindspore as ms
import numpy as np
from mindspore import nn

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.model.mnasnet import MnasNet
from mindcv_mnasnet.model.quantization import PREFIXES
from mindcv_mnasnet.run.checkpoint import Checkpoint

#: Parts that a task puts on a backbone.
NEW_PARTS = ("classifier", "extras", "predictors")


def initialize(model: nn.Cell, seed: int = 0) -> None:
    """Set all weights as the authors' code does; equal seeds give equal weights on every rank.

    Convolutions: normal, std sqrt(2 / (k * k * out)); depthwise std sqrt(2 / (k * k)) (their fan-out is one filter);
    dense: uniform in +-1 / sqrt(out). Batch norms and biases keep MindSpore's ones and zeros.
    """
    for name, cell in model.cells_and_names():
        if not isinstance(cell, nn.Conv2d | nn.Dense):
            continue
        rng = np.random.default_rng([seed, *name.encode()])
        shape = cell.weight.shape
        if isinstance(cell, nn.Dense):
            bound = shape[0] ** -0.5
            values = rng.uniform(-bound, bound, shape)
        else:
            fan_out = shape[2] * shape[3] * shape[0] // cell.group
            values = rng.normal(0, (2 / fan_out) ** 0.5, shape)
        cell.weight.set_data(ms.Tensor(values.astype(np.float32)))


def freeze(model: MnasNet, what: int | str) -> None:
    """Keep parts fixed, batch-norm statistics included: ``"backbone"`` (all but the classifier, or a
    detector's extras and predictors), or the stem and the first N stages. Call after ``set_train``, which would
    unfreeze the statistics.

    Raises:
        UserError: the network has fewer stages.
    """
    layers, stages = model.network.layers(), len(model.network.blocks)
    if what == "backbone":
        cells = [cell for name, cell in model.name_cells().items() if name not in NEW_PARTS]
    elif 0 <= int(what) <= stages:
        cells = [model.stem, *(b for b, layer in zip(model.blocks, layers, strict=True) if layer.stage < int(what))]
    else:
        raise UserError(f"freeze: {what} stages, but {model.network.family or 'the network'} has {stages}")
    for cell in cells:
        cell.set_train(False)
        for parameter in cell.get_parameters():
            parameter.requires_grad = False


def load_parameters(parameters: Iterable[ms.Parameter], tensors: Mapping[str, np.ndarray], origin: str) -> None:
    """Set parameters from tensors of the same names and shapes; all of them, or none and an error.

    A network that is not quantized leaves the ranges of one that is aside.

    Raises:
        UserError: listing the first missing, left-over and misshapen tensors.
    """
    by_name = {parameter.name: parameter for parameter in parameters}
    check_fit({name: tuple(parameter.shape) for name, parameter in by_name.items()}, tensors, origin)
    for name, parameter in by_name.items():
        parameter.set_data(ms.Tensor(np.array(tensors[name], order="C"), parameter.dtype))


def check_fit(shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, np.ndarray], origin: str) -> None:
    """Whether tensors have the names and shapes that are wanted; ranges of a quantized network may be left over.

    Raises:
        UserError: listing the first missing, left-over and misshapen tensors.
    """
    if not any(name.startswith(PREFIXES) for name in shapes):
        tensors = {name: value for name, value in tensors.items() if not name.startswith(PREFIXES)}
    missing = [name for name in shapes if name not in tensors]
    extra = [name for name in tensors if name not in shapes]
    odd = [name for name, shape in shapes.items() if name in tensors and tuple(tensors[name].shape) != shape]
    if missing or extra or odd:
        listed = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for what, names in (("missing", missing), ("left over", extra), ("of another shape", odd))
            if names
        ]
        raise UserError(f"{origin} does not fit the network: {'; '.join(listed)}")


def start_from(model: MnasNet, checkpoint: Checkpoint, new_head: bool = False) -> str:
    """Set a network's parameters from a checkpoint; its classifier stays as it is where their number differs.

    A network that is to be quantized takes weights alone: it observes its ranges anew.

    Args:
        new_head: the classifier stays as it is in any case.
    Returns:
        A sentence on what was taken.
    Raises:
        UserError: the checkpoint is of another network.
    """
    theirs = checkpoint.network.num_classes
    takes_all = theirs == model.network.num_classes and not new_head
    left_out = ("head.", "classifier.") if model.features_only else () if takes_all else ("classifier.",)
    left_out = (*left_out, *PREFIXES)
    parameters = [p for p in model.get_parameters() if not p.name.startswith(left_out)]
    weights = {name: value for name, value in checkpoint.weights().items() if not name.startswith(left_out)}
    load_parameters(parameters, weights, str(checkpoint.path))
    fresh = "classifier." in left_out and not model.features_only
    head = f"; classifier new: {model.network.num_classes} classes instead of {theirs}" if fresh else ""
    kind = "averaged (EMA)" if checkpoint.chosen() == "ema" else "raw"
    return f"started from {len(weights)} {kind} tensors of {checkpoint.path}{head}"
