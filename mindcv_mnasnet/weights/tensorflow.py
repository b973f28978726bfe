"""The authors' TensorFlow checkpoints, read and written in our parameter names."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.errors import UserError, first_line, require_extra
from mindcv_mnasnet.files import unwritable
from mindcv_mnasnet.networks.families import CONVENTIONS
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.weights.archive import data_bytes, open_checkpoint
from mindcv_mnasnet.weights.detect import network_of
from mindcv_mnasnet.weights.tensorflow_names import (
    authors_layout,
    our_layout,
    our_names,
    our_shape,
    variable_names,
)

EMA = "/ExponentialMovingAverage"
_OPTIMIZER = ("/RMSProp", "/RMSProp_1", "/Momentum")
_COUNTERS = ("global_step",)


def read_tensorflow(path: str | Path, raw: bool = False) -> tuple[dict[str, np.ndarray], Network, str]:
    """Read a checkpoint of the authors' code: its prefix, a file of it, its folder, or its .tgz archive.

    Averaged (EMA) variables are taken, which the published accuracies belong to, or with ``raw`` the plain ones; a
    file without averages has its plain ones taken, as the authors' exported checkpoints have the averages there.
    Optimizer slots and the step counter are passed over.

    Returns:
        Tensors by our parameter names in our layout, the network with the authors' conventions, and a sentence on
        which variables were taken.
    Raises:
        UserError: no TensorFlow here, no checkpoint there, a damaged or hostile one, or variables that are not
            exactly those of a known MnasNet.
    """
    with open_checkpoint(Path(path)) as prefix:
        return _read(prefix, raw, str(path))


def _read(prefix: Path, raw: bool, origin: str) -> tuple[dict[str, np.ndarray], Network, str]:
    tf = load_tensorflow()
    broken = (tf.errors.OpError, IndexError, ValueError, RuntimeError)
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
        kinds = reader.get_variable_to_dtype_map()
    except broken as error:
        raise UserError(f"{origin} is damaged or not a TensorFlow checkpoint ({first_line(error)})") from None
    try:
        variables, note = _choose(shapes, raw)
        names = our_names(variables)
        if odd := [name for name in variables if kinds[variables[name]] != tf.float32]:
            raise UserError(f"variables are not float32: {', '.join(odd[:3])}")
        our_shapes = {ours: our_shape(ours, shapes[variables[name]]) for ours, name in names.items()}
        network = replace(network_of(our_shapes), **CONVENTIONS["tf"])
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None
    needed = sum(kinds[name].size * int(np.prod(shape, dtype=np.int64)) for name, shape in shapes.items())
    if (there := data_bytes(prefix)) < needed:
        raise UserError(f"{origin} is truncated: its variables need {needed:,} bytes, its data files have {there:,}")
    try:
        tensors = {ours: our_layout(ours, reader.get_tensor(variables[name])) for ours, name in names.items()}
    except broken as error:
        raise UserError(f"{origin} is damaged: {first_line(error)}") from None
    return tensors, network, note


def _choose(stored: Iterable[str], raw: bool) -> tuple[dict[str, str], str]:
    """The variables to take, ``{plain name: stored name}``, and a sentence about the choice."""
    stored = [name for name in stored if name not in _COUNTERS and not name.endswith(_OPTIMIZER)]
    averaged = {name.removesuffix(EMA): name for name in stored if name.endswith(EMA)}
    plain = {name: name for name in stored if not name.endswith(EMA)}
    if raw:
        if plain:
            return plain, f"{len(plain)} raw variables"
        raise UserError("there are only averaged (EMA) variables; leave raw out")
    if not averaged:
        return plain, f"{len(plain)} variables; there are no averaged (EMA) ones beside them"
    if lacking := sorted(plain.keys() - averaged.keys()):
        raise UserError(
            f"{len(lacking)} of {len(plain)} variables have no average (EMA), such as {lacking[0]}; "
            "ask for the raw ones to take all of them as they are"
        )
    return averaged, f"{len(averaged)} averaged (EMA) variables"


def write_tensorflow(
    path: str | Path, tensors: Mapping[str, np.ndarray], network: Network, name_map: str = "keras"
) -> None:
    """Write a checkpoint that the authors' code restores (without averages): ``path``.index and ``path``.data-....

    Args:
        name_map: "keras" or "tf_layers", as the model is built with ``use_keras`` or without.
    Raises:
        UserError: no TensorFlow here; tensors that are not the network's; or a network that the authors' code would
            compute otherwise, because its padding, BN epsilon or first shortcut are another source's.
        JobError: the files cannot be written; none is left then.
    """
    names = variable_names(network, name_map)
    authors = replace(network, **CONVENTIONS["tf"])
    for key in ("padding", "bn_eps"):
        if getattr(network, key) != getattr(authors, key):
            raise UserError(
                f"the authors' code has {key} {getattr(authors, key)}, these weights have {getattr(network, key)}: "
                "written as a TensorFlow checkpoint they would compute something else"
            )
    if network.layers() != authors.layers():
        raise UserError("the authors' code has no shortcut over the first block, these weights were trained with one")
    if odd := sorted(names.keys() ^ tensors.keys()):
        raise UserError(f"{len(odd)} tensors are missing or left over, such as {odd[0]}")
    values = {name: authors_layout(ours, np.asarray(tensors[ours], np.float32)) for ours, name in names.items()}
    _save(Path(path), values)


def _save(path: Path, values: Mapping[str, np.ndarray]) -> None:
    tf = load_tensorflow()
    try:
        with tempfile.TemporaryDirectory(prefix=f"{path.name}.partial.", dir=path.parent) as folder:
            prefix = Path(folder) / path.name
            try:
                tf.raw_ops.SaveV2(
                    prefix=str(prefix),
                    tensor_names=list(values),
                    shape_and_slices=[""] * len(values),
                    tensors=[tf.constant(value) for value in values.values()],
                )
            except tf.errors.OpError as error:
                raise OSError(first_line(error)) from None
            for written in sorted(Path(folder).iterdir()):  # the index, which makes it a checkpoint, comes last
                written.replace(path.parent / written.name)
    except OSError as error:
        raise unwritable(path, error) from error


def load_tensorflow() -> Any:
    """TensorFlow with fewer messages.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # it is talkative
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # else TensorFlow 2.21 announces them whatever the level
    return require_extra("tensorflow", "tensorflow")
