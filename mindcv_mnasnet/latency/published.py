"""Published networks measured here, beside what their authors measured on a Pixel 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mindcv_mnasnet.latency.agreement import agreement
from mindcv_mnasnet.latency.record import Latency, Meter
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import FAMILIES, BlockSpec, Network, resolve
from mindcv_mnasnet.networks.reported import authors_grid

#: MnasNet, table 6: networks that repeat one kind of layer, by expansion and kernel: top-1 % and Pixel 1 milliseconds.
UNIFORM = {(3, 3): (71.8, 63.0), (3, 5): (72.5, 78.0), (6, 3): (74.9, 116.0), (6, 5): (75.6, 146.0)}
A1 = (75.2, 78.0)


@dataclass(frozen=True)
class Row:
    """A network measured here beside its published figures; ``top1`` in per cent, millions, milliseconds."""

    name: str
    network: Network
    top1: float
    published_ms: float
    measured: Latency

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        cost = network_cost(self.network)
        return {
            "name": self.name,
            "image_size": self.network.image_size,
            "width_mult": self.network.width_mult,
            "params_m": round(cost.params / 1e6, 3),
            "madds_m": round(cost.madds / 1e6, 1),
            "top1": self.top1,
            "published_ms": self.published_ms,
            **{key: value for key, value in self.measured.to_dict().items() if key != "image_size"},
        }


def uniform_network(expand: int, kernel: int) -> Network:
    """A network of table 6: A1's widths, depths and strides with one kind of layer, without gates.

    The paper says only that they repeat a single type of layer; that the skeleton is A1's is our reading.
    """
    blocks = tuple(
        BlockSpec(block.repeats, kernel, block.stride, expand, block.out, 0.0, block.skip)
        for block in FAMILIES["a1"].blocks
    )
    return replace(FAMILIES["a1"], family=None, blocks=blocks)


def measure_grid(meter: Meter, progress: Callable[[str], None] = lambda name: None) -> list[Row]:
    """The 25 sizes and widths of A1 in the authors' table."""
    rows = []
    for entry, network in authors_grid():
        assert entry.latency_ms is not None
        assert entry.top1 is not None
        name = f"{entry.image_size} px x {entry.width_mult:g}"
        progress(name)
        rows.append(Row(name, network, entry.top1, entry.latency_ms, meter.measure(network)))
    return rows


def measure_uniform(meter: Meter, progress: Callable[[str], None] = lambda name: None) -> list[Row]:
    """A1 and the uniform networks of table 6."""
    known = [("MnasNet-A1", resolve("mnasnet-a1"), *A1)]
    known += [(f"MBConv{e} k{k} only", uniform_network(e, k), *figures) for (e, k), figures in UNIFORM.items()]
    rows = []
    for name, network, top1, latency_ms in known:
        progress(name)
        rows.append(Row(name, network, top1, latency_ms, meter.measure(network)))
    return rows


def format_rows(rows: Sequence[Row]) -> str:
    """A Markdown table, and the rank correlation below it."""
    lines = [
        "| network | params, M | madds, M | top-1 % (published) | Pixel 1, ms (published) | here, ms | spread, ms |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        d = row.to_dict()
        lines.append(
            f"| {row.name} | {d['params_m']:.2f} | {d['madds_m']:.1f} | {row.top1} | {row.published_ms:g} | "
            f"{row.measured.median_ms:.2f} | {row.measured.std_ms:.2f} |"
        )
    found = agreement([row.measured.median_ms for row in rows], [row.published_ms for row in rows])
    first = rows[0].measured
    lines += [
        "",
        f"Rank correlation with the published latencies: Spearman {found.spearman:.3f}, Kendall {found.kendall:.3f}. "
        f"Here: {first.device}, {first.runtime}, {first.threads} thread(s), batch {first.batch}, median of "
        f"{first.repetitions}.",
    ]
    return "\n".join(lines)


def draw_rows(rows: Sequence[Row], path: Path) -> Path:
    """The published latency against the measured one."""
    points = [(row.published_ms, row.measured.median_ms, row.name) for row in rows]
    return draw_scatter(points, "Pixel 1 (published), ms", "here, ms", path)


def draw_scatter(points: Sequence[tuple[float, float, str]], x: str, y: str, path: Path) -> Path:
    """Named points on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    axes.scatter([a for a, _, _ in points], [b for _, b, _ in points], s=16, color="#1f6f8b")
    for a, b, name in points:
        axes.annotate(name, (a, b), fontsize=6.5, textcoords="offset points", xytext=(4, -2))
    axes.set(xlabel=x, ylabel=y, xscale="log", yscale="log")
    figure.savefig(path, dpi=110)
    return path
