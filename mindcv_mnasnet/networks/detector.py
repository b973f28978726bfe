"""The whole description of a MnasNet + SSDLite detector, without a framework.

The head is that of TensorFlow's Object Detection API: SSD on the expansion of the first block of stride 32, on the
layer before pooling, and on ``extras`` that halve the map again and again; every predictor is depthwise separable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.blocks import check, check_whole, is_number
from mindcv_mnasnet.networks.network import Layer, Network

TAP_REDUCTION = 32  # the first block that reduces the image so far has the expansion that is tapped


@dataclass(frozen=True)
class Detector:
    """A backbone and what is put on it.

    ``network.num_classes`` counts object classes; the predictors have one slot more, the first one, for background.
    ``extras`` are the output widths of the added layers, each with a 1x1 convolution to half of that before it.
    Scales are shares of the image's side. ``reduced_first_map``: three anchors a cell on the finest map, not six.
    """

    network: Network
    extras: tuple[int, ...] = (512, 256, 256, 128)
    aspect_ratios: tuple[float, ...] = (2.0, 3.0)
    min_scale: float = 0.2
    max_scale: float = 0.95
    reduced_first_map: bool = True

    def __post_init__(self) -> None:
        for width in self.extras:
            check_whole("extras_out_channels", width)
            check(width >= 2, "extras_out_channels", width, "at least 2, as half of it comes before it")
        ratios_ok = all(is_number(ratio) and ratio > 1 for ratio in self.aspect_ratios)
        check(ratios_ok, "aspect_ratios", self.aspect_ratios, "numbers above 1; their inverses are meant too")
        for key in ("min_scale", "max_scale"):
            value = getattr(self, key)
            check(is_number(value) and 0 < value <= 1, key, value, "above 0 and at most 1")
        check(self.min_scale < self.max_scale, "min_scale", self.min_scale, f"below max_scale, {self.max_scale}")
        self.tapped_block  # noqa: B018 - a backbone that cannot be tapped is refused here

    @property
    def slots(self) -> int:
        """Numbers per anchor for its class: background first."""
        return self.network.num_classes + 1

    @property
    def tapped_block(self) -> int:
        """Index of the block whose expansion is the finest map.

        Raises:
            UserError: no block reduces the image by 32, or the one that does first has no expansion.
        """
        return self._tap()[0]

    def _tap(self) -> tuple[int, Layer]:
        reduction = self.network.stem_stride
        for index, layer in enumerate(self.network.layers()):
            reduction *= layer.stride
            if reduction == TAP_REDUCTION and layer.stride > 1:
                if not layer.expands:
                    raise UserError(
                        f"blocks: detection taps the 1x1 expansion of block {index}, the first of stride "
                        f"{TAP_REDUCTION}, and it has none"
                    )
                return index, layer
        raise UserError(f"blocks: detection needs a block of stride {TAP_REDUCTION}; this network has none")

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Channels of the maps that are predicted from, finest first."""
        return (self._tap()[1].mid_width, self.network.head_width, *self.extras)

    def map_sizes(self, image_size: int | None = None) -> tuple[int, ...]:
        """Cells per side of these maps for a square image (None: the network's own size)."""
        size = image_size or self.network.image_size
        sizes = [-(-size // (TAP_REDUCTION // 2))]
        for _ in self.map_widths[1:]:
            sizes.append(-(-sizes[-1] // 2))
        return tuple(sizes)

    @property
    def anchors_per_cell(self) -> tuple[int, ...]:
        """Anchors at each cell of these maps."""
        full = 2 + 2 * len(self.aspect_ratios)
        return (3 if self.reduced_first_map else full, *[full] * (len(self.map_widths) - 1))

    def anchor_count(self, image_size: int | None = None) -> int:
        """Anchors of one image."""
        pairs = zip(self.map_sizes(image_size), self.anchors_per_cell, strict=True)
        return sum(size * size * number for size, number in pairs)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form without the network, which checkpoints hold already; ``from_dict`` is the inverse."""
        values = asdict(self)
        del values["network"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, network: Network, stored: Mapping[str, Any]) -> Detector:
        """Read what ``to_dict`` wrote; a missing or unknown key is a ``UserError``."""
        expected = {field.name for field in fields(cls)} - {"network"}
        if odd := sorted(expected.symmetric_difference(stored)):
            raise UserError(f"a stored detector description has missing or unknown keys: {', '.join(odd)}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
        }
        return cls(network, **values)
