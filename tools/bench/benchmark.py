"""Speed beside MindCV, PyTorch and exported files, such as tools/bench/benchmark.py --json results/benchmark_avx2.json.

Every measurement has a process of its own, and rounds take the rows in turn: what slows the machine for a while slows
all of them, and ratios are taken within a round. Files to train on are made up where --data_dir is not given.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from mindcv_mnasnet.errors import JobError, UserError, run_cli
from mindcv_mnasnet.files import replace_file
from mindcv_mnasnet.networks.network import resolve

report_of = importlib.import_module("tools.bench.bench_report")
ROWS, format_report, summarize = report_of.ROWS, report_of.format_report, report_of.summarize

DEFAULT_ROWS = ",".join(row for row in ROWS if row != "mindcv_avx2")
READ_FILES = {row for row in ROWS if "pipeline" in row or row.endswith("_start")}
READ_FILES |= {"train_py", "export_onnx", "export_tflite"}
NEEDS = {"mindcv": "mindcv", "timm": "timm", "torch": "torch", "onnx": "onnxruntime", "litert": "tensorflow"}
NEEDS |= {"convert": "timm", "export": "timm"}
TIMM_FAMILIES = {"b1": "mnasnet", "a1": "semnasnet"}
MINDCV_WIDTHS = (0.5, 0.75, 1.0, 1.3, 1.4)
ISA_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # "as installed" means without them
# What --avx2 sets: for our operators, oneDNN's, PyTorch's own. ONNX Runtime and LiteRT have no switch.
AVX2 = {"MNASNET_KERNELS": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
# What the input pipeline holds ready: without so many more, all could be decoded before measuring begins.
READ_AHEAD_BATCHES, READ_AHEAD_IMAGES = 20, 256

Settings = dict[str, Any]
Round = dict[str, dict[str, Any]]  # measurements by row


def main(argv: Sequence[str] | None = None) -> int:
    options = command_line().parse_args(argv)
    if options.artifact is not None:
        return benchmark_artifact(options)
    rows = options.rows.split(",")
    settings = settings_of(options, rows)
    with TemporaryDirectory(prefix="benchmark-") as scratch:
        machine = run_tool("bench_machine.py", [], Path(scratch))
        if options.avx2:
            machine["instruction_set"] = f"AVX2 (limited to it; the processor has {machine['instruction_set']})"
        images = f"{scratch}/images"
        if options.data_dir is None and READ_FILES & set(rows):
            _say(f"making {settings['images']} JPEG files")
            run_tool("bench_images.py", [images, str(settings["images"])], Path(scratch))
        shared = settings if options.data_dir else {**settings, "data_dir": images}
        rounds = measure_rounds(rows, options.rounds, lambda row: run_row(row, shared, Path(scratch)))
    report = {
        "command": "tools/bench/benchmark.py " + " ".join(sys.argv[1:] if argv is None else argv),
        "machine": machine,
        "settings": settings,
        **summarize(rounds),
        "rounds": rounds,
    }
    print(format_report(report))
    if options.json:
        replace_file(options.json, (json.dumps(report, indent=2) + "\n").encode())
    return 0


def benchmark_artifact(options: argparse.Namespace) -> int:
    """Time one exported file through its own runtime, in this process."""
    from mindcv_mnasnet.latency.timing import artifact_report, format_latency

    report = artifact_report(options.artifact, options.threads, options.artifact_batch, options.repetitions)
    print(format_latency(report))
    if options.json:
        with TemporaryDirectory(prefix="benchmark-") as scratch:
            machine = run_tool("bench_machine.py", [], Path(scratch))
        replace_file(options.json, (json.dumps({"machine": machine, **report}, indent=2) + "\n").encode())
    return 0


def command_line() -> argparse.ArgumentParser:
    width = max(map(len, ROWS))
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="rows:\n" + "\n".join(f"  {row:{width}}  {meaning}" for row, meaning in ROWS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--artifact", type=Path, metavar="FILE", help="only the latency of this exported file")
    parser.add_argument("--threads", type=int, help="threads of its runtime (default: the runtime's own choice)")
    parser.add_argument("--artifact_batch", type=int, help="images per call (default: the file's, or 1)")
    parser.add_argument("--repetitions", type=int, default=100, help="calls of it that are timed (default 100)")
    parser.add_argument("--rows", default=DEFAULT_ROWS, metavar="ROW,...", help=f"default: {DEFAULT_ROWS}")
    parser.add_argument("--model", default="b1", help="network; MindCV has the B1 family only")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--data_dir", help="image folder with train/<class>/ for the rows that read files")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each row")
    parser.add_argument("--steps", type=int, default=10, help="steps measured, after --warm_up")
    parser.add_argument("--warm_up", type=int, default=3, help="steps before that; the first one compiles")
    parser.add_argument("--avx2", action="store_true", help="all rows but ONNX's and LiteRT's without AVX-512")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers and what they were measured on")
    return parser


def settings_of(options: argparse.Namespace, rows: Sequence[str]) -> Settings:
    """The settings of every row.

    Raises:
        UserError: an unknown row, a number below 1, a model or package that a row lacks, an unwritable result.
    """
    for row in rows:
        if row not in ROWS:
            raise UserError(f"--rows: {row!r} is not one of {', '.join(ROWS)}")
    for key in ("batch_size", "image_size", "rounds", "steps", "warm_up"):
        if getattr(options, key) < 1:
            raise UserError(f"--{key} {getattr(options, key)}: at least 1 is needed")
    if options.data_dir is not None and not Path(options.data_dir).is_dir():
        raise UserError(f"--data_dir: there is no folder {options.data_dir}")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        raise UserError(f"--json: there is no folder {options.json.absolute().parent}")
    network = resolve(options.model)
    settings = {key: getattr(options, key) for key in ("model", "batch_size", "image_size", "warm_up", "steps")}
    batches = 2 * options.warm_up + options.steps + READ_AHEAD_BATCHES  # train.py logs every warm_up steps
    settings |= {
        "avx2": options.avx2,
        "data_dir": options.data_dir,
        "images": batches * options.batch_size + READ_AHEAD_IMAGES,
    }
    if any(row.startswith("mindcv") for row in rows):
        if network.family != "b1" or network.width_mult not in MINDCV_WIDTHS:
            raise UserError(f"--model: MindCV has no {options.model}, only B1 at widths {MINDCV_WIDTHS}")
        settings["mindcv_model"] = f"mnasnet_{round(100 * network.width_mult):03d}"
    for row in rows:
        package = NEEDS.get(row.partition("_")[0])
        if package is not None and importlib.util.find_spec(package) is None:
            raise UserError(f"row {row}: {package} is not installed; make bench installs it, or leave the row out")
    if any(NEEDS.get(row.partition("_")[0]) == "timm" for row in rows):
        if network.family not in TIMM_FAMILIES or network.width_mult is None:
            raise UserError(f"--model: rows of timm compare B1 and A1, not {options.model}")
        settings["timm_model"] = f"{TIMM_FAMILIES[network.family]}_{round(100 * network.width_mult):03d}"
    return settings


def measure_rounds(rows: Sequence[str], rounds: int, run: Callable[[str], dict[str, Any]]) -> list[Round]:
    """``run`` each row once per round, all rows in each round before the next."""
    found: list[Round] = []
    for number in range(1, rounds + 1):
        found.append({})
        for row in rows:
            load = os.getloadavg()[0]
            measured = found[-1][row] = {**run(row), "load_average_before": round(load, 2)}
            _say(f"round {number} of {rounds}, {row}: {_words(measured)}")
    return found


def run_row(row: str, settings: Settings, scratch: Path) -> dict[str, Any]:
    """Measure a row once in a new process.

    Raises:
        JobError: it failed, for the reason that it gave.
    """
    variables = {name: value for name, value in os.environ.items() if name not in ISA_VARIABLES}
    if settings.get("avx2"):
        variables |= AVX2
    if row == "mindcv_avx2":
        variables["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    passed = {**settings, "began": time.time()}
    measured = run_tool("bench_rows.py", [row, json.dumps(passed)], scratch, variables)
    if "error" in measured:
        raise JobError(f"row {row}: {measured['error']}")
    return measured


def run_tool(
    tool: str, arguments: Sequence[str], scratch: Path, variables: dict[str, str] | None = None
) -> dict[str, Any]:
    """Run a helper of this benchmark, whose last argument is the file for its result, and return that.

    Raises:
        JobError: it died without a result.
    """
    result = scratch / "result.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).with_name(tool)), *arguments, str(result)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not result.is_file():
        words = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise JobError(f"{' '.join([tool, *arguments[:1]])} ended with exit code {done.returncode}: {words[-1]}")
    content: dict[str, Any] = json.loads(result.read_text())
    return content


def _words(measured: dict[str, Any]) -> str:
    rate = measured.get("images_per_second")
    return f"{measured['seconds']:.1f} s" if rate is None else f"{rate:.1f} images/s"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(run_cli(main))
