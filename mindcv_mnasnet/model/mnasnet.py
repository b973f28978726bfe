"""The network as a MindSpore cell, built from an ``arch.Network``."""

from __future__ import annotations

from typing import Any

from mindspore import nn, ops

from mindcv_mnasnet.model.layers import ConvBN, MBConv, TappedMBConv
from mindcv_mnasnet.model.quantization import FLOAT, LayerFactory
from mindcv_mnasnet.networks import network as arch


class MnasNet(nn.Cell):
    """A MnasNet classifier, or with ``features_only`` its feature maps.

    Call with images (batch, channels, height, width), normalized; returns logits (batch, classes), or the last map of
    every reduction, finest first (``feature_channels`` and ``feature_reductions`` describe them).

    In training, dropout and drop-connect compare their rates with ``random_inputs``, uniform numbers in [0, 1) of shape
    (batch, ``random_columns``); without ``random_inputs`` the device draws them, which no seed can repeat.

    ``factory`` makes its layers: plain ones, or those of one ``quantization.QuantizedLayerFactory``. The block number
    ``tapped_block`` gives its expansion too; that is for sub-classes, which say what becomes of it.
    """

    def __init__(
        self,
        network: arch.Network,
        features_only: bool = False,
        factory: LayerFactory = FLOAT,
        tapped_block: int | None = None,
    ):
        super().__init__()
        layers = network.layers()
        self.network = network
        self.features_only = features_only
        self.fake_quant = factory.fake_quant("input")
        self.stem = ConvBN(
            network, network.in_channels, network.stem_width, 3, network.stem_stride, factory=factory, name="stem"
        )
        kinds = [TappedMBConv if i == tapped_block else MBConv for i in range(len(layers))]
        blocks = [kinds[i](network, layer, factory, f"blocks.{i}") for i, layer in enumerate(layers)]
        self.blocks = nn.CellList(blocks)
        self._describe_features(layers)
        rates = [network.drop_connect * i / len(layers) if layer.residual else 0.0 for i, layer in enumerate(layers)]
        self.drop_connect_rates = tuple(rates)
        self.dropout = 0.0 if features_only else network.dropout
        self.dropped_blocks = sum(rate > 0 for rate in rates)
        self.random_columns = self.dropped_blocks + (network.head_width if self.dropout > 0 else 0)
        if not features_only:
            self.head = ConvBN(network, layers[-1].out_width, network.head_width, factory=factory, name="head")
            self.pool_fake_quant = factory.fake_quant("pool", positive=True)
            self.classifier = factory.dense(
                network.head_width, network.num_classes, weight_init="zeros", bias_init="zeros"
            )
            self.logits_fake_quant = factory.fake_quant("logits")
        self.batch_counter = factory.batch_counter()
        factory.rename_parameters()

    def _describe_features(self, layers: tuple[arch.Layer, ...]) -> None:
        stage_reductions = self.network.reductions
        last_of = {self.network.stem_stride: -1} | {stage_reductions[x.stage]: i for i, x in enumerate(layers)}
        wanted = sorted((index, reduction) for reduction, index in last_of.items() if reduction > 1)
        self.feature_blocks = tuple(index for index, _ in wanted)
        self.feature_reductions = tuple(reduction for _, reduction in wanted)
        widths = [self.network.stem_width, *(layer.out_width for layer in layers)]
        self.feature_channels = tuple(widths[index + 1] for index in self.feature_blocks)

    def depths(self) -> dict[str, int]:
        """Each parameter's distance from the classifier in stages: 0 for head and classifier, most for the stem."""
        stages = len(self.network.blocks)
        stage_of = [layer.stage for layer in self.network.layers()]
        found = {}
        for parameter in self.get_parameters():  # whose names stay where mixed precision wraps cells
            part, index = parameter.name.split(".")[:2]
            in_block = part == "blocks"
            found[parameter.name] = stages - stage_of[int(index)] if in_block else {"stem": stages + 1}.get(part, 0)
        return found

    def construct(self, x, random_inputs=None):
        if self.training and self.random_columns > 0 and random_inputs is None:
            random_inputs = ops.rand(x.shape[0], self.random_columns)
        if self.batch_counter is not None and self.training:
            self.batch_counter()
        features: Any = ()
        x = self.stem(x if self.fake_quant is None else self.fake_quant(x))
        if -1 in self.feature_blocks:
            features = (*features, x)
        column = 0
        for index, block in enumerate(self.blocks):
            rate = self.drop_connect_rates[index]
            if self.training and rate > 0:
                kept = (random_inputs[:, column] >= rate).astype(x.dtype) / (1 - rate)
                x = block(x, kept.reshape(-1, 1, 1, 1))
                column += 1
            else:
                x = block(x)
            if index in self.feature_blocks:
                features = (*features, x)
        if self.features_only:
            return features
        return self.classify(x, random_inputs)

    def classify(self, x, random_inputs):
        """Logits from the last feature map."""
        x = ops.mean(self.head(x), (2, 3))
        if self.pool_fake_quant is not None:
            x = self.pool_fake_quant(x)
        if self.training and self.dropout > 0:
            kept = (random_inputs[:, self.dropped_blocks :] >= self.dropout).astype(x.dtype)
            x = x * kept / (1 - self.dropout)
        x = self.classifier(x)
        return x if self.logits_fake_quant is None else self.logits_fake_quant(x)
