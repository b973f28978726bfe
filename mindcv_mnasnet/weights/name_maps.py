"""What timm, torchvision and MindCV call the tensors of a network, by role; and the shapes that they all share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.network import Layer, Network

_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_TORCH_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class NameMap:
    """A source's names: ``modules`` gives, for a network, its name of every module of ours that holds tensors.

    ``norm``: what it calls gamma, beta, mean and variance of a batch norm. ``counts``: whether a batch norm also counts
    its batches (PyTorch's ``num_batches_tracked``, an int64 scalar that inference never reads).
    """

    source: str
    modules: Callable[[Network], Mapping[str, str]]
    norm: tuple[str, str, str, str] = _NORM
    counts: bool = False

    def names(self, network: Network) -> dict[str, str]:
        """Our name of every tensor -> theirs, in our order.

        Raises:
            UserError: the source cannot describe such a network.
        """
        modules = self.modules(network)
        leaves = dict(zip(_NORM, self.norm, strict=True))
        found = {}
        for name in shapes(network):
            module, _, leaf = name.rpartition(".")
            found[name] = f"{modules[module]}.{leaves.get(leaf, leaf)}"
        return found

    def counters(self, network: Network) -> list[str]:
        """Their names of the batch counters."""
        modules = self.modules(network)
        norms = [ours.rpartition(".")[0] for ours in shapes(network) if ours.endswith(".gamma")]
        return [f"{modules[norm]}.num_batches_tracked" for norm in norms] if self.counts else []


def shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Every tensor of a network by our name, with its shape (convolutions OIHW), from stem to classifier."""
    found: dict[str, tuple[int, ...]] = {}

    def conv_bn(name: str, out: int, width: int, kernel: int = 1) -> None:
        found[f"{name}.conv.weight"] = (out, width, kernel, kernel)
        found.update({f"{name}.bn.{leaf}": (out,) for leaf in _NORM})

    def dense(name: str, *shape: int) -> None:
        found.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

    conv_bn("stem", network.stem_width, network.in_channels, 3)
    layers = network.layers()
    for index, layer in enumerate(layers):
        block, mid = f"blocks.{index}", layer.gated_width
        if layer.expands:
            conv_bn(f"{block}.expand", mid, layer.in_width)
        if layer.conv:
            conv_bn(f"{block}.spatial", mid, layer.in_width, layer.kernel)
        else:
            conv_bn(f"{block}.depthwise", mid, 1, layer.kernel)
        if layer.se_width:
            dense(f"{block}.se.reduce", layer.se_width, mid, 1, 1)
            dense(f"{block}.se.expand", mid, layer.se_width, 1, 1)
        if layer.projects:
            conv_bn(f"{block}.project", layer.out_width, mid)
    conv_bn("head", network.head_width, layers[-1].out_width)
    dense("classifier", network.num_classes, network.head_width)
    return found


def _own(network: Network) -> dict[str, str]:
    return {module: module for module in (name.rpartition(".")[0] for name in shapes(network))}


def require_mbconv(network: Network, library: str) -> None:
    """Refuse a network with operators that only our own notation has."""
    if any(block.conv or block.pool for block in network.blocks):
        raise UserError(f"{library} has no plain convolutions or pooled shortcuts in a MnasNet; --to own keeps them")


def _timm(network: Network) -> dict[str, str]:
    require_mbconv(network, "timm")
    found = {"stem.conv": "conv_stem", "stem.bn": "bn1", "head.conv": "conv_head", "head.bn": "bn2"}
    found["classifier"] = "classifier"
    for number, layer in enumerate(network.layers()):
        parts = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}  # DepthwiseSeparableConv
        if layer.expand > 1:  # InvertedResidual
            parts = {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}
        ours, theirs = f"blocks.{number}", f"blocks.{layer.stage}.{layer.index}"
        for part, (conv, norm) in parts.items():
            found |= {f"{ours}.{part}.conv": f"{theirs}.{conv}", f"{ours}.{part}.bn": f"{theirs}.{norm}"}
        found |= {f"{ours}.se.reduce": f"{theirs}.se.conv_reduce", f"{ours}.se.expand": f"{theirs}.se.conv_expand"}
    return found


def _torchvision(network: Network) -> dict[str, str]:
    layers = _plain_layers(network, "torchvision")
    inner = {number: f"layers.{7 + layer.stage}.{layer.index}" for number, layer in enumerate(layers) if number}
    head = 8 + len(network.blocks) - 1
    return _sequential(inner, "layers", head, "classifier.1")


def _mindcv(network: Network) -> dict[str, str]:
    layers = _plain_layers(network, "MindCV")
    inner = {number: f"features.{7 + number}" for number in range(1, len(layers))}
    return _sequential(inner, "features", 7 + len(layers), "classifier")


def _plain_layers(network: Network, library: str) -> tuple[Layer, ...]:
    """The layers of a network that the library can build: b1's pattern of any widths."""
    require_mbconv(network, library)
    layers = network.layers()
    if layers[0].expand > 1 or any(layer.expand == 1 for layer in layers[1:]) or network.blocks[0].repeats > 1:
        raise UserError(f"{library} has one block without expansion, the first, and all others with it")
    if any(layer.se_width for layer in layers):
        raise UserError(f"{library} has no MnasNet with squeeze-and-excitation")
    return layers


def _sequential(inner: Mapping[int, str], root: str, head: int, classifier: str) -> dict[str, str]:
    found = {"stem.conv": f"{root}.0", "stem.bn": f"{root}.1", "classifier": classifier}
    found |= {"blocks.0.depthwise.conv": f"{root}.3", "blocks.0.depthwise.bn": f"{root}.4"}
    found |= {"blocks.0.project.conv": f"{root}.6", "blocks.0.project.bn": f"{root}.7"}
    for number, theirs in inner.items():
        for part, at in (("expand", 0), ("depthwise", 3), ("project", 6)):
            found[f"blocks.{number}.{part}.conv"] = f"{theirs}.layers.{at}"
            found[f"blocks.{number}.{part}.bn"] = f"{theirs}.layers.{at + 1}"
    return found | {"head.conv": f"{root}.{head}", "head.bn": f"{root}.{head + 1}"}


NAME_MAPS = {
    name_map.source: name_map
    for name_map in (
        NameMap("own", _own),
        NameMap("timm", _timm, _TORCH_NORM, counts=True),
        NameMap("torchvision", _torchvision, _TORCH_NORM, counts=True),
        NameMap("mindcv", _mindcv),
    )
}
