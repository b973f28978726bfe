"""What tools/bench/benchmark.py measured, as Markdown: all of one machine, and ratios of all machines side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# What README shows: words, the network that was measured, the ratio's name.
SHOWN = (
    ("training step, MnasNet-B1 / timm's on PyTorch, channels_last", "b1", "train_step / timm_channels_last"),
    ("the same, A1 / timm's semnasnet_100", "a1", "train_step / timm_channels_last"),
    ("the same, B1 / MindCV's on MindSpore as installed", "b1", "train_step / mindcv"),
    ("inference, B1 / timm's, channels_last", "b1", "infer / timm_infer"),
    ("exported ONNX, one image, one thread / timm's", "b1", "onnx_one / timm_one"),
    ("input pipeline, JPEG files / MindCV's", "b1", "pipeline / mindcv_pipeline"),
    ("input pipeline, pack of short side 256 / MindCV's from full-size files", "b1", "pipeline_256 / mindcv_pipeline"),
)


def machine_words(report: dict[str, Any]) -> str:
    """Processor, instruction set and cores of a report."""
    machine = report["machine"]
    return f"{machine['cpu']}, {machine['instruction_set']}, {machine['cores']} cores"


def benchmark_table(report: dict[str, Any]) -> str:
    """One report: its machine, a table of speeds and one of their ratios."""
    settings, rounds = report["settings"], len(report["rounds"])
    what = f"{settings['model']}, batch {settings['batch_size']}, {settings['image_size']} px, float32"
    lines = [
        f"**{machine_words(report)}**: {what}, median of {rounds} rounds (range).",
        "",
        "| what | images/s | most memory, GB |",
        "|---|---|---|",
    ]
    for row in report["rows"].values():
        seconds = row.get("seconds")
        speed = _spread(row["images_per_second"], 1) if seconds is None else f"{_spread(seconds, 1)} s"
        lines.append(f"| {row['meaning']} | {speed} | {row['peak_memory_gb']['median']:.1f} |")
    lines += ["", "| speed / speed | ratio within a round (range) |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {_spread(ratio, 2)} |" for name, ratio in report["ratios"].items()]
    notes = [
        f"Validation images {row['meaning']} differ by {row['validation_difference']['median']:.2f} levels of 255 on "
        f"average from those of the files; a packed image has {row['bytes_per_image']['median'] / 1e3:.0f} kB."
        for row in report["rows"].values()
        if row.get("validation_difference", {}).get("median")
    ]
    waiting = report["rows"].get("train_py", {}).get("data_wait_percent")
    notes += [] if waiting is None else [f"`train.py` waits for input {waiting['median']:.1f} % of its time."]
    return "\n".join([*lines, *(line for note in notes for line in ("", note))])


def speed_table(reports: Sequence[dict[str, Any]]) -> str:
    """The ratios that README shows, a column for each kind of machine; what was not measured there is not there."""
    machines = list(dict.fromkeys(machine_words(report) for report in reports))
    lines = [f"| speed / speed | {' | '.join(machines)} |", f"|---|{'---|' * len(machines)}"]
    for words, model, name in SHOWN:
        cells = [_cell(reports, machine, model, name) for machine in machines]
        if any(cells):
            lines.append(f"| {words} | {' | '.join(cell or 'not run' for cell in cells)} |")
    return "\n".join(lines)


def _cell(reports: Sequence[dict[str, Any]], machine: str, model: str, name: str) -> str:
    found = [
        report["ratios"][name]
        for report in reports
        if machine_words(report) == machine and report["settings"]["model"] == model and name in report["ratios"]
    ]
    return f"{found[0]['median']:.2f}" if found else ""


def _spread(number: dict[str, float], digits: int) -> str:
    median, low, high = (f"{number[key]:.{digits}f}" for key in ("median", "min", "max"))
    return median if low == high else f"{median} ({low} to {high})"
