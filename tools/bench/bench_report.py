"""The rows of the benchmark in words, what they come to over several rounds, and the table of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Round = dict[str, dict[str, Any]]  # measurements by row

ROWS = {
    "train_step": "our compiled step, one constant batch",
    "qat_step": "the same with fake quantization, for networks of 8-bit integers",
    "digits_step": "the compiled step of make demo's recipe (24 px, batch 64)",
    "train_py": "train.py as a whole, JPEG files",
    "mindcv": "MindCV's network in a plain MindSpore loop as installed, one constant batch",
    "mindcv_avx2": "the same with ONEDNN_MAX_CPU_ISA=AVX2 set by hand",
    "timm": "timm's network in a plain PyTorch loop, default layout, one constant batch",
    "timm_channels_last": "the same in channels_last",
    "pipeline": "the input pipeline of train_py alone",
    "pipeline_pack": "the same from a pack of the same images",
    "pipeline_320": "from a pack scaled down to a short side of 320",
    "pipeline_256": "from a pack scaled down to a short side of 256",
    "mindcv_pipeline": "MindCV's input pipeline alone, full-size files, same augmentation and cores",
    "torch_pipeline": "torchvision's transforms in PyTorch's DataLoader, the same",
    "infer": "our network at inference through MindSpore, one constant batch",
    "timm_infer": "timm's network at inference, PyTorch eager, channels_last",
    "onnx_one": "our ONNX file in ONNX Runtime, one image, one thread",
    "litert_one": "our TFLite file in LiteRT, one image, one thread",
    "timm_one": "timm's network, PyTorch eager, channels_last, one image, one thread",
    "train_start": "train.py, from the command to the end of the first step",
    "mindcv_start": "the same calls through MindCV",
    "convert": "tools/convert.py, timm's weights to ours",
    "export_onnx": "tools/export.py to ONNX, checked on 32 images",
    "export_tflite": "tools/export.py to TFLite, the same",
}
RATIOS = (
    ("train_step", "mindcv"),
    ("train_step", "timm"),
    ("train_step", "timm_channels_last"),
    ("infer", "timm_infer"),
    ("onnx_one", "timm_one"),
    ("litert_one", "timm_one"),
    ("pipeline", "mindcv_pipeline"),
    ("pipeline", "torch_pipeline"),
    ("pipeline_pack", "mindcv_pipeline"),
    ("pipeline_320", "mindcv_pipeline"),
    ("pipeline_256", "mindcv_pipeline"),
    ("pipeline_256", "torch_pipeline"),
    ("qat_step", "train_step"),
    ("train_start", "mindcv_start"),
    ("train_py", "mindcv"),
    ("train_step", "mindcv_avx2"),
    ("train_py", "train_step"),
    ("pipeline", "train_py"),
)


def summarize(rounds: Sequence[Round]) -> dict[str, Any]:
    """Median and range of every number of every row, and of the ratios of speeds within each round."""
    rows: dict[str, Any] = {}
    for row, first in rounds[0].items():
        numbers = [key for key, value in first.items() if isinstance(value, (int, float))]
        texts = {key: value for key, value in first.items() if isinstance(value, str)}
        rows[row] = {
            "meaning": ROWS[row],
            **{key: _spread([one[row][key] for one in rounds]) for key in numbers},
            **texts,
        }
    ratios = {
        f"{ours} / {theirs}": _spread([_speed(one[ours]) / _speed(one[theirs]) for one in rounds])
        for ours, theirs in RATIOS
        if ours in rows and theirs in rows
    }
    return {"rows": rows, "ratios": ratios}


def _speed(measured: dict[str, Any]) -> float:
    return float(measured["images_per_second"] if "images_per_second" in measured else 1 / measured["seconds"])


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {name: round(f(values), 3) for name, f in (("median", statistics.median), ("min", min), ("max", max))}


def format_report(report: dict[str, Any]) -> str:
    """The report as a table for people."""
    machine, settings = report["machine"], report["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    lines = [
        f"{machine['cpu']}, {machine['instruction_set']}, {machine['cores']} cores; {versions}",
        f"{settings['model']}, batch {settings['batch_size']}, {settings['image_size']} px, float32; median (range) of "
        f"{len(report['rounds'])} rounds; load average at the start {machine['load_average']}",
        "",
        f"{'row':19}{'images/s':>10}{'':20}{'ms/step':>9}{'GB':>7}  ",
    ]
    for row, found in report["rows"].items():
        rate, step = found.get("images_per_second", found.get("seconds")), found.get("ms_per_step")
        shown = f"{step['median']:.0f}" if step else "seconds" if "seconds" in found else "-"
        memory = f"{found['peak_memory_gb']['median']:.2f}" if "peak_memory_gb" in found else "-"
        lines.append(f"{row:19}{rate['median']:>10.1f} {_range(rate, 1):19}{shown:>9}{memory:>7}  {found['meaning']}")
    lines.append("")
    for name, ratio in report["ratios"].items():
        lines.append(f"{name:26}{ratio['median']:>8.2f} {_range(ratio, 2)}")
    waiting = report["rows"].get("train_py", {}).get("data_wait_percent")
    if waiting:
        lines.append(f"{'train_py waits for input':26}{waiting['median']:>8.2f} {_range(waiting, 2)} % of its time")
    return "\n".join(lines)


def _range(spread: dict[str, float], digits: int) -> str:
    return f"({spread['min']:.{digits}f} to {spread['max']:.{digits}f})"
