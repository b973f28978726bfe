"""Extras and predictors copied into torchvision's blocks give the same numbers."""

from __future__ import annotations

from itertools import pairwise

import mindspore as ms
import numpy as np
from mindspore import ops

from mindcv_mnasnet.detection.network import create_detector
from mindcv_mnasnet.networks.detector import Detector
from mindcv_mnasnet.networks.network import resolve

BLOCKS = "r1_k3_s11_e1_o8 r1_k3_s22_e3_o8 r1_k3_s22_e3_o8 r1_k3_s22_e3_o8 r1_k3_s22_e3_o8"


def test_extras_and_predictors_are_torchvisions(torchvision, cpu):
    import torch
    from torchvision.models.detection import ssdlite

    network = resolve(None, blocks=BLOCKS, stem=8, head=16, num_classes=3, image_size=64, padding="symmetric")
    detector = Detector(network, (16, 16, 16, 8), reduced_first_map=False)
    ours = create_detector(detector, kernels=False)
    rng = np.random.default_rng(0)
    for parameter in ours.get_parameters():
        if parameter.name.endswith(("gamma", "moving_variance", "beta", "moving_mean", "bias")):
            parameter.set_data(ms.Tensor(rng.uniform(0.3, 0.8, parameter.shape).astype(np.float32)))
        elif parameter.name.startswith(("extras.", "predictors.")):  # sums small enough for torchvision's ReLU6
            parameter.set_data(ms.Tensor(rng.normal(0, 0.1, parameter.shape).astype(np.float32)))
    ours.set_train(False)
    widths, eps = detector.map_widths, network.bn_eps

    def norm(width):
        return torch.nn.BatchNorm2d(width, eps=eps)

    extras = [ssdlite._extra_block(a, b, norm) for a, b in pairwise(widths[1:])]
    head = ssdlite.SSDLiteHead(list(widths), list(detector.anchors_per_cell), detector.slots, norm)
    for number, block in enumerate(extras):
        for part, unit in zip(("reduce", "depthwise", "expand"), block, strict=True):
            copy_unit(getattr(ours.extras[number], part), unit)
    for number, predictor in enumerate(ours.predictors):
        for cell, modules in ((predictor.classes, head.classification_head), (predictor.boxes, head.regression_head)):
            unit, output = modules.module_list[number]
            copy_unit(cell.depthwise, unit)
            output.load_state_dict({"weight": tensor(cell.output.weight), "bias": tensor(cell.output.bias)})
    head.eval()
    x = rng.random((2, 3, 64, 64), np.float32)
    first, *others = ours.maps(ms.Tensor(x))
    maps = [torch.from_numpy(one.asnumpy()) for one in (first, others[0])]
    with torch.no_grad():
        for block in extras:
            maps.append(block.eval()(maps[-1]))
        theirs = head(maps)
    for one, other in zip(others, maps[1:], strict=True):
        assert np.abs(one.asnumpy() - other.numpy()).max() < 1e-4
    logits, codes = ours(ms.Tensor(x))
    assert float(ops.std(logits)) > 1e-3
    assert np.abs(logits.asnumpy() - theirs["cls_logits"].numpy()).max() < 1e-4
    assert np.abs(codes.asnumpy() - theirs["bbox_regression"].numpy()).max() < 1e-4


def tensor(parameter):
    import torch

    return torch.from_numpy(parameter.asnumpy().copy())


def copy_unit(ours, unit):
    """Convolution and batch norm of one of our cells into torchvision's (convolution, norm, activation)."""
    unit[0].load_state_dict({"weight": tensor(ours.conv.weight)})
    norm = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    unit[1].load_state_dict({name: tensor(getattr(ours.bn, own)) for name, own in norm.items()}, strict=False)
