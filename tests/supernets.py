"""Small networks that share weights, and where a candidate's tensors are in the supernet's."""

from __future__ import annotations

import mindspore as ms
import numpy as np

from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.search.supernet.choices import Choices
from mindcv_mnasnet.weights.name_maps import shapes

SIZE, CLASSES, BATCH = 16, 4, 8
SMALL = "r1_k3_s11_e1_o4_noskip r1_k3_s22_e2_o8_noskip r1_k3_s11_e1_o6_noskip"
LARGE = "r2_k5_s11_e3_o8_se0.25 r2_k5_s22_e4_o12_se0.5 r1_k3_s11_e1_o12"


def net(blocks, **fields):
    shared = {"stem": 8, "head": 16, "num_classes": CLASSES, "image_size": SIZE, "width_mult": None, "dropout": 0.0}
    return resolve(None, blocks=blocks, **{**shared, **fields})


CHOICES = Choices.of([net(SMALL), net(LARGE)])
CANDIDATES = {
    "largest": CHOICES.largest,
    "smallest": CHOICES.smallest,
    "kernel 3, se, repeats": net("r2_k3_s11_e3_o4_se0.25 r2_k3_s22_e4_o8_se0.5 r1_k3_s11_e1_o6"),
    "bypassed expansion, se of another width": net("r2_k5_s11_e1_o4_se0.25 r1_k5_s22_e2_o12_se0.5 r1_k3_s11_e1_o12"),
    "shortcut into the stage's first block": net("r1_k3_s11_e3_o8 r2_k5_s22_e2_o8_noskip r1_k3_s11_e1_o12_noskip"),
    **{f"random {seed}": CHOICES.draw(np.random.default_rng(seed)) for seed in range(3)},
}
CHOSEN = CANDIDATES["kernel 3, se, repeats"]


def randomize(supernet, seed=0):
    """Values that an error in any slice would show: not the ones and zeros of new norms and biases."""
    rng = np.random.default_rng(seed)
    for parameter in supernet.get_parameters():
        if parameter.name.endswith("moving_variance"):
            parameter.set_data(ms.Tensor(rng.uniform(0.5, 2, parameter.shape).astype(np.float32)))
        elif parameter.name.endswith(("moving_mean", "gamma", "beta", "bias")):
            parameter.set_data(ms.Tensor(rng.normal(0.5, 0.5, parameter.shape).astype(np.float32)))
    return supernet


def normal(seed=0):
    return ms.Tensor(np.random.default_rng(seed).normal(size=(BATCH, 3, SIZE, SIZE)).astype(np.float32))


def values_of(parameters):
    return {parameter.name: parameter.asnumpy().copy() for parameter in parameters}


def values(cell):
    return values_of(cell.get_parameters())


def places_of(network):
    """Candidates' tensor names to the supernet's."""
    indices = {(layer.stage, layer.index): index for index, layer in enumerate(CHOICES.largest.layers())}
    places = [indices[layer.stage, layer.index] for layer in network.layers()]

    def rename(name):
        part, _, rest = name.partition(".")
        if part != "blocks":
            return name
        index, _, rest = rest.partition(".")
        return f"blocks.{places[int(index)]}.{rest}"

    return rename


def used(shape, inner):
    """Where a candidate's tensor is in a larger one."""
    margins = [
        (whole - part) // 2 if axis >= 2 else 0 for axis, (whole, part) in enumerate(zip(shape, inner, strict=True))
    ]
    return tuple(slice(margin, margin + part) for margin, part in zip(margins, inner, strict=True))


def inherited(supernet, network):
    """A candidate's own tensors by name."""
    rename, whole = places_of(network), values(supernet)
    return {
        name: whole[rename(name)][used(whole[rename(name)].shape, shape)] for name, shape in shapes(network).items()
    }
