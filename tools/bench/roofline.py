"""How far each block of a network is from what this machine could do: python tools/bench/roofline.py [--model b1].

The bound of a convolution is the longer of two times: its multiply-adds at the measured peak of a large float32 matrix
product, or its input, output and weights, each moved once, at the measured bandwidth of a copy between large arrays. A
block's bound is the sum of its convolutions'. Training moves and computes three times that: forward, and the gradients
of input and weights. Williams et al. 2009, "Roofline: an insightful visual performance model".
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

sys.path[0] = str(Path(__file__).resolve().parents[2])

from mindcv_mnasnet.errors import UserError, interrupts_wait, run_cli
from mindcv_mnasnet.files import replace_file
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import Network, resolve
from mindcv_mnasnet.recipe.command_line import Parser

_MATRIX = 2048
_COPIED = 32 * 2**20  # numbers per thread
_TRAINING = 3


@dataclass(frozen=True)
class Peak:
    """What this machine does at best: float32 operations and bytes per second, with so many threads."""

    flops: float
    bytes: float
    threads: int


@dataclass
class Part:
    """A block: its multiply-adds and bytes for one batch, and the bound they set."""

    name: str
    madds: float
    bytes: float
    bound_s: float


def measure_peak(threads: int) -> Peak:
    """The fastest of ten matrix products, and of ten copies by all threads at once."""
    a, b = (np.random.default_rng(seed).normal(size=(_MATRIX, _MATRIX)).astype(np.float32) for seed in (0, 1))
    product = min(_seconds(lambda: a @ b) for _ in range(10))
    sources = [np.ones(_COPIED, np.float32) for _ in range(threads)]
    targets = [np.zeros(_COPIED, np.float32) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        copy = min(_seconds(lambda: list(pool.map(np.copyto, targets, sources))) for _ in range(10))
    return Peak(2 * _MATRIX**3 / product, threads * 2 * 4 * _COPIED / copy, threads)


def parts(network: Network, batch: int, peak: Peak) -> list[Part]:
    """The bounds of stem, blocks, head and classifier, in order."""
    found: dict[str, Part] = {}
    size = network.image_size
    for layer in network_cost(network).layers:
        name = ".".join(layer.name.split(".")[:2]) if layer.name.startswith("blocks") else layer.name
        part = found.setdefault(name, Part(name, 0.0, 0.0, 0.0))
        if layer.kernel == 0:
            continue
        own = layer.out_size if ".se." in layer.name or layer.name == "classifier" else size
        madds = float(layer.madds) * batch
        moved = 4.0 * (batch * (layer.in_width * own**2 + layer.out_width * layer.out_size**2) + layer.params)
        part.madds, part.bytes = part.madds + madds, part.bytes + moved
        part.bound_s += max(2 * madds / peak.flops, moved / peak.bytes)
        if ".se." not in layer.name:
            size = layer.out_size
    return list(found.values())


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure_parts(network: Network, batch: int, calls: int) -> dict[str, tuple[float, float]]:
    """Median seconds of every part at inference, and forward and backward in training."""
    import mindspore as ms
    from mindspore import nn, ops

    from mindcv_mnasnet.devices import runtime
    from mindcv_mnasnet.model.create import create_model

    runtime.start("auto")

    class Backward(nn.Cell):
        """Gradients of a part's summed output by its input and its weights."""

        def __init__(self, part: nn.Cell):
            super().__init__()
            self.part = part
            self.gradient = ops.grad(self.forward, 0, ms.ParameterTuple(part.trainable_params()))

        def forward(self, x, factors):
            return ops.sum(self.part(x) * factors)

        def construct(self, x, factors):
            return self.gradient(x, factors)

    model = create_model(network)
    cells = [("stem", model.stem), *((f"blocks.{i}", block) for i, block in enumerate(model.blocks))]
    cells += [("head", model.head), ("classifier", model.classifier)]
    rng, found = np.random.default_rng(0), {}
    x = ms.Tensor(rng.normal(size=(batch, network.in_channels, *[network.image_size] * 2)).astype(np.float32))
    for name, cell in tqdm(cells, unit="part", disable=None):
        if name == "classifier":
            x = ops.mean(x, (2, 3))
        cell.set_train(False)
        forward = _median(partial(cell, x), calls)
        y = cell(x)
        factors = ms.Tensor(rng.normal(size=y.shape).astype(np.float32))
        both = Backward(cell).set_train()
        found[name] = forward, _median(partial(both, x, factors), calls)
        x = y
    return found


def _median(call: Callable[[], Any], calls: int) -> float:
    def wait() -> None:
        result = call()
        (result[0] if isinstance(result, tuple) else result).asnumpy()

    for _ in range(3):
        wait()
    return float(np.median([_seconds(wait) for _ in range(calls)]))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = Parser(prog="roofline.py", description=__doc__)
    parser.add_argument("--model", default="b1")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--repetitions", type=int, default=10, help="timed calls of each part (default 10)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    for key in ("batch_size", "image_size", "repetitions"):
        if getattr(options, key) < 1:
            raise UserError(f"--{key} {getattr(options, key)}: at least 1 is needed")
    network = resolve(options.model, image_size=options.image_size)
    with interrupts_wait():
        from mindcv_mnasnet.devices import runtime
    peak = measure_peak(runtime.usable_cores())
    bounds = parts(network, options.batch_size, peak)
    times = measure_parts(network, options.batch_size, options.repetitions)
    rows: list[dict[str, Any]] = [
        {"part": p.name, "flops": 2 * p.madds, "bytes": p.bytes, "bound_ms": 1000 * p.bound_s}
        | {"forward_ms": 1000 * times[p.name][0], "training_ms": 1000 * times[p.name][1]}
        for p in bounds
    ]
    print(
        f"{options.model}, batch {options.batch_size}, {options.image_size} px, {peak.threads} threads: at best "
        f"{peak.flops / 1e9:.0f} GFLOP/s and {peak.bytes / 1e9:.1f} GB/s"
    )
    heads = f"{'part':12}{'MFLOP':>8}{'FLOP/byte':>11}{'bound, ms':>11}"
    print(f"{heads}{'forward':>9}{'of bound':>10}{'training':>10}{'of bound':>10}")
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key != "part"}
    for row in [*rows, {"part": "sum", **total}]:
        print(
            f"{row['part']:12}{row['flops'] / 1e6:>8.0f}{row['flops'] / row['bytes']:>11.1f}{row['bound_ms']:>11.2f}"
            f"{row['forward_ms']:>9.2f}{row['bound_ms'] / row['forward_ms']:>10.0%}{row['training_ms']:>10.2f}"
            f"{_TRAINING * row['bound_ms'] / row['training_ms']:>10.0%}"
        )
    if options.json:
        content = {"model": options.model, "batch_size": options.batch_size, "image_size": options.image_size}
        content |= {"flops_per_s": peak.flops, "bytes_per_s": peak.bytes, "threads": peak.threads, "parts": rows}
        replace_file(options.json, (json.dumps(content, indent=2) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
