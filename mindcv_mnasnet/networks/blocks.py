"""Block strings: the authors' notation for one stage of a network, read strictly and written canonically."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from mindcv_mnasnet.errors import UserError

_BLOCK_FORM = "r<repeats>_k<odd kernel>_s<11|22>_e<expansion>[_i<in>]_o<out>[_se<ratio>][_conv][_noskip|_pool]"
_BLOCK = re.compile(
    r"r(?P<repeats>[1-9]\d{0,4})_k(?P<kernel>[1-9]\d{0,4})_s(?P<stride>[12])(?P=stride)_e(?P<expand>[1-9]\d{0,4})"
    r"(?:_i(?P<declared>[1-9]\d{0,4}))?_o(?P<out>[1-9]\d{0,4})(?:_se(?P<se_ratio>[01](?:\.\d+)?))?"
    r"(?P<conv>_conv)?(?P<skip>_noskip|_pool)?",
    re.ASCII,
)


@dataclass(frozen=True)
class BlockSpec:
    """One stage: ``repeats`` MBConv blocks, the first with ``stride``; ``out`` is the width before scaling.

    ``se_ratio`` relates the squeeze to the block's *input* width; 0 means no squeeze-and-excitation. A depthwise
    separable convolution is ``expand`` 1, as in the authors' strings. Two parts are ours, for search spaces: ``conv``,
    a plain k x k convolution in place of expansion and depthwise convolution (with ``expand`` 1 it is the whole block);
    and ``pool``, a shortcut past every block: pooled where the block has a stride, and cut or filled with channels of
    zeros where widths differ.
    """

    repeats: int
    kernel: int
    stride: int
    expand: int
    out: int
    se_ratio: float = 0.0
    skip: bool = True
    conv: bool = False
    pool: bool = False

    def __post_init__(self) -> None:
        for key in ("repeats", "kernel", "expand", "out"):
            check_whole(key, getattr(self, key))
        check(self.kernel % 2 == 1, "kernel", self.kernel, "odd")
        check_whole("stride", self.stride, most=2)
        check(is_number(self.se_ratio) and 0 <= self.se_ratio <= 1, "se_ratio", self.se_ratio, "from 0 to 1")
        for key in ("skip", "conv", "pool"):
            check(isinstance(getattr(self, key), bool), key, getattr(self, key), "true or false")
        check(self.skip or not self.pool, "skip", self.skip, "true where there is a pooled shortcut")


def parse_block(text: str) -> BlockSpec:
    """Read one block string, ours or the authors'; a declared input ``i`` is checked by ``parse_blocks`` only."""
    return _parse(text)[0]


def format_block(spec: BlockSpec) -> str:
    """The canonical string, such as ``r3_k5_s22_e3_o40_se0.25``: inverse of ``parse_block``."""
    squeeze = f"_se{Decimal(repr(spec.se_ratio)):f}".removesuffix(".0") if spec.se_ratio > 0 else ""
    head = f"r{spec.repeats}_k{spec.kernel}_s{spec.stride}{spec.stride}_e{spec.expand}_o{spec.out}"
    ending = "_pool" if spec.pool else "" if spec.skip else "_noskip"
    return f"{head}{squeeze}{'_conv' if spec.conv else ''}{ending}"


def parse_blocks(text: str | Iterable[str]) -> tuple[tuple[BlockSpec, ...], int | None]:
    """Read a list of block strings (or one string, separated by blanks).

    Returns the blocks and the input that the first one declares, if it does. A later declared input that is not the
    output of the block before is a ``UserError``.
    """
    texts = text.split() if isinstance(text, str) else list(text)
    parsed = [_parse(one) for one in texts]
    for (before, _), (_, declared), one in zip(parsed, parsed[1:], texts[1:], strict=False):
        if declared not in (None, before.out):
            raise UserError(
                f"block {one!r} declares {declared} input channels, but the one before it gives {before.out}"
            )
    return tuple(spec for spec, _ in parsed), parsed[0][1] if parsed else None


def _parse(text: str) -> tuple[BlockSpec, int | None]:
    match = _BLOCK.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise UserError(f"block {text!r} does not read as {_BLOCK_FORM}")
    numbers = {key: int(match[key]) for key in ("repeats", "kernel", "stride", "expand", "out")}
    try:
        spec = BlockSpec(
            **numbers,
            se_ratio=float(match["se_ratio"] or 0),
            skip=match["skip"] != "_noskip",
            conv=match["conv"] is not None,
            pool=match["skip"] == "_pool",
        )
    except UserError as error:
        raise UserError(f"block {text!r}: {error}") from None
    return spec, int(match["declared"]) if match["declared"] else None


def check(holds: bool, key: str, value: Any, allowed: str) -> None:
    """Raise a ``UserError`` that names key, value and what is allowed, unless it holds."""
    if not holds:
        raise UserError(f"{key} is {value!r}, but must be {allowed}")


def check_whole(key: str, value: Any, most: int = 99_999, least: int = 1) -> None:
    """Refuse everything but whole numbers from ``least`` to ``most``; 1.0 and True are not whole numbers."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    check(whole and least <= value <= most, key, value, f"a whole number from {least} to {most}")


def is_number(value: Any) -> bool:
    """Whether the value is a number; truth values are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
