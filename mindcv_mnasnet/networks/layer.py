"""One block of a network with its real widths."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One block with its real widths; ``se_width`` 0 means no squeeze-and-excitation.

    ``conv``: a plain convolution in place of expansion and depthwise convolution. ``residual``: there is a shortcut;
    with ``pool`` it is a pooled one, because input and output differ in size or width.
    """

    stage: int
    index: int
    in_width: int
    mid_width: int
    out_width: int
    kernel: int
    stride: int
    expand: int
    se_width: int
    residual: bool
    conv: bool = False
    pool: bool = False

    @property
    def expands(self) -> bool:
        """Whether a 1x1 convolution comes before the depthwise one."""
        return self.expand > 1 and not self.conv

    @property
    def projects(self) -> bool:
        """Whether a 1x1 convolution without ReLU comes last."""
        return self.expand > 1 or not self.conv

    @property
    def gated_width(self) -> int:
        """Channels that squeeze-and-excitation works on."""
        return self.mid_width if self.projects else self.out_width


def round_width(width: int, width_mult: float | None, divisor: int = 8, min_width: int | None = None) -> int:
    """Scale a width to a multiple of ``divisor`` that is at least ``min_width`` and loses no more than 10 %."""
    if width_mult is None:
        return width
    scaled = width * width_mult
    rounded = max(divisor if min_width is None else min_width, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded
