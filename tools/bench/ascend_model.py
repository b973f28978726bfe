"""Predicted ms/step on Ascend, from paper alone (docs/ascend.md), such as `tools/bench/ascend_model.py mnasnet_075`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])

from mindcv_mnasnet.errors import run_cli
from mindcv_mnasnet.networks.ascend_model import (
    DEVICES,
    MACHINE_DEVICES,
    PRECISIONS,
    Choice,
    cube_share,
    depthwise_floor,
    hbm_share,
    host_cores,
    host_rate,
    predict,
    work_of,
)
from mindcv_mnasnet.networks.ascend_variants import launches, variants
from mindcv_mnasnet.networks.network import resolve


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    work = work_of(resolve(options.model))
    base = Choice(
        options.device, options.devices, options.batch_size, options.precision, not options.no_sink, options.host_rate
    )
    steps = {name: predict(work, choice) for name, choice in variants(base).items()}
    report: dict[str, Any] = {
        "model": options.model,
        "choice": asdict(base),
        "shares": {"cube": cube_share(), "hbm": hbm_share(), "depthwise_floor": depthwise_floor()},
        "host_images_per_second": base.host_rate or host_rate(base.device),
        "parts_ms": {name: step.parts for name, step in steps.items()},
        "launch_ms": {name: predict(work, choice).launch_ms for name, choice in launches(base).items()},
        "steps": {
            name: {"device_ms": s.device_ms, "host_ms": s.host_ms, "ms": s.ms, "images_per_second": s.images_per_second}
            for name, s in steps.items()
        },
    }
    if options.per_core is not None:
        report["host_cores"] = host_cores(steps["as chosen"].images_per_second, options.per_core)
    print(json.dumps(report, indent=2) if options.json else _text(report))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("model", nargs="?", default="mnasnet_075", help="a model name of any source")
    parser.add_argument("--device", choices=DEVICES, default="910B")
    parser.add_argument("--devices", type=int, default=MACHINE_DEVICES, help="devices of one machine")
    parser.add_argument("--batch_size", type=int, default=256, help="images per device")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--no_sink", action="store_true", help="the host hands over each batch")
    parser.add_argument("--host_rate", type=float, help="images/s that the host of 8 devices delivers")
    parser.add_argument("--per_core", type=float, help="images/s of one host core, for the number of cores")
    parser.add_argument("--json", action="store_true")
    return parser


def _text(report: dict[str, Any]) -> str:
    shares, choice = report["shares"], report["choice"]
    lines = [
        f"{report['model']}, {choice['devices']} x {choice['device']}, batch {choice['batch']}, {choice['precision']}: "
        "predicted on paper, nothing was run",
        f"fitted: cube {shares['cube']:.2f} of its peak, HBM {shares['hbm']:.2f} of nominal (depthwise at least "
        f"{shares['depthwise_floor']:.3f}), host {report['host_images_per_second']:.0f} images/s per 8 devices",
        "",
        f"{'part, ms':34}{'as chosen':>12}{'slowest depthwise':>20}",
    ]
    chosen, slow = report["parts_ms"]["as chosen"], report["parts_ms"]["slowest depthwise"]
    lines += [f"  {part:32}{ms:12.2f}{slow[part]:20.2f}" for part, ms in chosen.items()]
    lines += ["", f"{'ms/step':34}{'device':>10}{'host':>10}{'step':>10}{'images/s':>12}"]
    lines += [
        f"  {name:32}{s['device_ms']:10.1f}{s['host_ms']:10.1f}{s['ms']:10.1f}{s['images_per_second']:12.0f}"
        for name, s in report["steps"].items()
    ]
    if report["model"] == "mnasnet_075":
        lines += ["", "to launch all kernels of a step, where the host does it (O0, O1), ms"]
        lines += [f"  {name:32}{ms:10.1f}" for name, ms in report["launch_ms"].items()]
    if "host_cores" in report:
        lines += ["", f"host cores kept busy: {report['host_cores']:.0f}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_cli(main))
