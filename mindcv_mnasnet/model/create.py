"""Models by name: built, initialized, and with published weights on request."""

from __future__ import annotations

from typing import Any

from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.kernels.build import kernels as built_kernels
from mindcv_mnasnet.model.accelerate import accelerate
from mindcv_mnasnet.model.mnasnet import MnasNet
from mindcv_mnasnet.model.parameters import initialize, start_from
from mindcv_mnasnet.model.quantization import FLOAT, Quantization, QuantizedLayerFactory
from mindcv_mnasnet.networks import network as arch
from mindcv_mnasnet.networks.blocks import check_whole
from mindcv_mnasnet.run.checkpoint import read_checkpoint
from mindcv_mnasnet.weights import hub


def create_model(
    model: str | arch.Network = "mnasnet_100",
    *,
    pretrained: bool = False,
    features_only: bool = False,
    seed: int = 0,
    quantization: Quantization | None = None,
    kernels: bool = True,
    **overrides: Any,
) -> MnasNet:
    """Build an initialized network from any source's model name, or from an ``arch.Network``.

    Args:
        pretrained: start from the weights that the name's source published, see ``weights.hub.pretrained``; with
            another number of classes the classifier stays a new one.
        quantization: build it of fake-quantized layers, see ``quantize``.
        kernels: let it use our own operators where there are some: on CPUs. They compute in float32, and no exported
            file can hold them.
        overrides: fields of ``arch.Network`` (``num_classes``, ``width_mult``, ``dropout``, ``blocks``, ...).
    Raises:
        UserError: unknown names, impossible values, or weights that are not published or do not fit.
        JobError: the weights could not be downloaded.
    """
    runtime.tune_cpu()
    if overrides.get("num_classes") == 0:
        raise UserError("num_classes is 0, but must be 1 or more; features_only=True leaves the classifier out")
    check_whole("seed", seed, least=0, most=2**63 - 1)
    network = arch.changed(model, overrides) if isinstance(model, arch.Network) else arch.resolve(model, **overrides)
    if pretrained and isinstance(model, arch.Network):
        raise UserError("published weights are found by a model's name; a description of a network has none")
    cell = MnasNet(network, features_only, FLOAT if quantization is None else QuantizedLayerFactory(quantization))
    initialize(cell, seed)
    if kernels and (library := built_kernels().path):
        accelerate(cell, library)
    if pretrained:
        wanted = {name: overrides[name] for name in ("width_mult", "image_size") if name in overrides}
        start_from(cell, read_checkpoint(hub.pretrained(str(model), **wanted)))
    return cell
