"""Networks, width scaling and names: the whole description of a MnasNet, without a framework."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.blocks import (
    BlockSpec,
    check,
    check_whole,
    format_block,
    is_number,
    parse_block,
    parse_blocks,
)
from mindcv_mnasnet.networks.families import CONVENTIONS, FAMILY_VALUES, NAMES
from mindcv_mnasnet.networks.layer import Layer, round_width

__all__ = [
    "FAMILIES",
    "BlockSpec",
    "Layer",
    "Network",
    "format_block",
    "known_names",
    "parse_block",
    "parse_blocks",
    "resolve",
    "round_width",
]


@dataclass(frozen=True)
class Network:
    """Everything that model, cost and weight conversion need to know.

    ``width_mult`` None leaves every width as written; a number rounds to multiples of ``divisor``. The head is never
    scaled. ``bn_momentum`` is the share of the *old* average that a step keeps. ``residual_rule`` "declared" compares
    a block's output with the input its author wrote down instead of the real one; they differ only where
    ``declared_stem`` is not ``stem`` (the small network), and there the function differs too.
    """

    family: str | None
    blocks: tuple[BlockSpec, ...]
    stem: int = 32
    stem_stride: int = 2
    head: int = 1280
    width_mult: float | None = 1.0
    divisor: int = 8
    min_width: int | None = None
    num_classes: int = 1000
    in_channels: int = 3
    image_size: int = 224
    padding: str = "symmetric"
    bn_eps: float = 1e-3
    bn_momentum: float = 0.99
    residual_rule: str = "actual"
    declared_stem: int | None = None
    dropout: float = 0.2
    drop_connect: float = 0.0

    def __post_init__(self) -> None:
        blocks_ok = isinstance(self.blocks, tuple) and all(isinstance(block, BlockSpec) for block in self.blocks)
        check(blocks_ok and len(self.blocks) > 0, "blocks", self.blocks, "at least one block")
        for key in ("stem", "head", "divisor", "num_classes", "in_channels", "image_size"):
            check_whole(key, getattr(self, key))
        for key in ("min_width", "declared_stem"):
            if getattr(self, key) is not None:
                check_whole(key, getattr(self, key))
        check_whole("stem_stride", self.stem_stride, most=2)
        width_ok = self.width_mult is None or (is_number(self.width_mult) and 0 < self.width_mult <= 100)
        check(width_ok, "width_mult", self.width_mult, "above 0 and at most 100, or unset")
        check(self.padding in ("symmetric", "same"), "padding", self.padding, "symmetric or same")
        check(self.residual_rule in ("actual", "declared"), "residual_rule", self.residual_rule, "actual or declared")
        check(is_number(self.bn_eps) and 0 < self.bn_eps < 1, "bn_eps", self.bn_eps, "between 0 and 1")
        for key in ("bn_momentum", "dropout", "drop_connect"):
            value = getattr(self, key)
            check(is_number(value) and 0 <= value < 1, key, value, "from 0 to below 1")

    def round_width(self, width: int) -> int:
        """The width that ``width`` becomes in this network."""
        return round_width(width, self.width_mult, self.divisor, self.min_width)

    def written_out(self) -> Network:
        """The same layers with their real widths as what is written, so that nothing is scaled any more."""
        declared = None if self.declared_stem is None else self.round_width(self.declared_stem)
        return replace(
            self,
            family=None,
            blocks=tuple(replace(block, out=self.round_width(block.out)) for block in self.blocks),
            stem=self.stem_width,
            declared_stem=declared,
            width_mult=None,
        )

    @property
    def stem_width(self) -> int:
        """Channels that the stem really delivers."""
        return self.round_width(self.stem)

    @property
    def head_width(self) -> int:
        """Channels before the classifier."""
        return self.head

    @property
    def reductions(self) -> tuple[int, ...]:
        """By how much each stage's output is smaller than the image, per side."""
        reduction, found = self.stem_stride, []
        for block in self.blocks:
            reduction *= block.stride
            found.append(reduction)
        return tuple(found)

    @property
    def block_strings(self) -> tuple[str, ...]:
        """The blocks as canonical strings, before scaling."""
        return tuple(format_block(block) for block in self.blocks)

    def layers(self) -> tuple[Layer, ...]:
        """All blocks in order, resolved to real widths."""
        layers: list[Layer] = []
        in_width = self.stem_width
        declared = in_width if self.declared_stem is None else self.round_width(self.declared_stem)
        for stage, block in enumerate(self.blocks):
            out_width = self.round_width(block.out)
            for index in range(block.repeats):
                stride = block.stride if index == 0 else 1
                compared = declared if self.residual_rule == "declared" and not layers else in_width
                alike = stride == 1 and compared == in_width == out_width
                layers.append(
                    Layer(
                        stage=stage,
                        index=index,
                        in_width=in_width,
                        mid_width=in_width * block.expand,
                        out_width=out_width,
                        kernel=block.kernel,
                        stride=stride,
                        expand=block.expand,
                        se_width=max(1, int(in_width * block.se_ratio)) if block.se_ratio > 0 else 0,
                        residual=block.pool or (block.skip and alike),
                        conv=block.conv,
                        pool=block.pool and not alike,
                    )
                )
                in_width = out_width
        return tuple(layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, blocks as strings; ``from_dict`` is the inverse."""
        return {**asdict(self), "blocks": list(self.block_strings)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Network:
        """Read what ``to_dict`` wrote; a missing or unknown key is a ``UserError``."""
        expected = {field.name for field in fields(cls)}
        if odd := sorted(expected.symmetric_difference(stored)):
            raise UserError(f"a stored network description has missing or unknown keys: {', '.join(odd)}")
        return cls(**{**stored, "blocks": parse_blocks(stored["blocks"])[0]})


#: What the words of timm and MindCV for their models are here, where no field is near.
_OF_OTHERS = {
    "model_name": "the model_name of timm and MindCV is model here",
    "drop_rate": "timm's drop_rate is dropout here",
    "drop_path_rate": "timm's drop_path_rate is drop_connect here",
    "in_chans": "timm's in_chans is in_channels here",
    "out_indices": "features_only=True gives the maps of all reductions, of which you take some",
    "global_pool": "the mean over all places is what there is; features_only=True gives the maps themselves",
    "checkpoint_path": "open_classifier opens a checkpoint, and training starts from one with init_from",
    "exportable": "leave it out; mnasnet export writes ONNX, TFLite and MindIR",
    "scriptable": "leave it out; mnasnet export writes ONNX, TFLite and MindIR",
}

FAMILIES: dict[str, Network] = {
    family: Network(family, **{**values, "blocks": parse_blocks(values["blocks"])[0]})
    for family, values in FAMILY_VALUES.items()
}


def known_names() -> list[str]:
    """All model names that ``resolve`` knows, sorted."""
    return sorted(NAMES)


def list_models(pattern: str = "*") -> list[str]:
    """Model names of every source that match a shell pattern such as ``*small*``, sorted."""
    return [name for name in known_names() if fnmatchcase(name, pattern)]


def resolve(name: str | None, /, **overrides: Any) -> Network:
    """The network that a model name of any source stands for, with the conventions of that source.

    Overrides are those of ``changed``. Name None needs ``blocks``. Unknown names and values are a ``UserError``.
    """
    if name is None:
        if "blocks" not in overrides:
            raise UserError("a network needs a model name or blocks")
        base = Network(None, FAMILIES["b1"].blocks)
    elif isinstance(name, str) and name in NAMES:
        family, source, width_mult, image_size = NAMES[name]
        base = replace(FAMILIES[family], width_mult=width_mult, image_size=image_size, **CONVENTIONS[source])
    else:
        raise UserError(f"unknown model {name!r}{_nearest(str(name), known_names())}")
    return changed(base, overrides)


def changed(network: Network, overrides: Mapping[str, Any]) -> Network:
    """A network with other fields; ``blocks`` may also be text.

    An override counts even when it is None: ``width_mult=None`` scales nothing. Unknown fields and impossible values
    are a ``UserError``.
    """
    known = [field.name for field in fields(Network)]
    for key in overrides:
        if key not in known:
            hint = f"; {_OF_OTHERS[key]}" if key in _OF_OTHERS else _nearest(key, known)
            raise UserError(f"a network has no field {key!r}{hint}")
    return replace(network, **(_with_blocks(network, dict(overrides)) if "blocks" in overrides else overrides))


def _with_blocks(base: Network, overrides: dict[str, Any]) -> dict[str, Any]:
    blocks, declared = overrides["blocks"], None
    check(isinstance(blocks, str | Sequence), "blocks", blocks, "block strings")
    if isinstance(blocks, str) or not all(isinstance(block, BlockSpec) for block in blocks):
        blocks, declared = parse_blocks(blocks)
    stem = overrides.get("stem", base.stem)
    declared_stem = overrides.get("declared_stem", base.declared_stem)
    if declared not in (None, stem, declared_stem):
        raise UserError(
            f"the first block declares {declared} input channels, but the stem gives {stem}; "
            f"set stem to {declared}, or declared_stem if the two are meant to differ"
        )
    if tuple(blocks) != base.blocks:
        overrides = {"family": None, "declared_stem": declared_stem if declared == declared_stem else None, **overrides}
    return {**overrides, "blocks": tuple(blocks)}


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=5, cutoff=0.5)
    return f"; the nearest are {', '.join(near)}" if near else f"; known are {', '.join(known)}"
