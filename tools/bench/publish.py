"""Turn a validated run into results/NAME.json with its evidence, and results/*.json into README's tables."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

tables = importlib.import_module("tools.bench.speed_tables")
benchmark_table, speed_table = tables.benchmark_table, tables.speed_table

from mindcv_mnasnet.errors import UserError, run_cli
from mindcv_mnasnet.files import replace_file
from mindcv_mnasnet.recipe.command_line import Parser
from mindcv_mnasnet.run.checkpoint import read_checkpoint
from mindcv_mnasnet.run.folder import find_checkpoints
from mindcv_mnasnet.run.log import read_log


def collect(run: Path, recipe: str, note: str) -> dict[str, Any]:
    """What a run's files say of its result; percentages are from a validation of the finished checkpoint.

    Raises:
        UserError: the run has no ``summary.json``, or no ``validation.json`` (validate.py --json) beside it.
    """
    try:
        summary = json.loads((run / "summary.json").read_text())
        validation = json.loads((run / "validation.json").read_text())[0]
        sessions = json.loads((run / "environment.json").read_text())
    except OSError as error:
        hint = f"train first, then validate.py --ckpt_path {run} --json {run}/validation.json"
        raise UserError(f"{error.filename}: {error.strerror}; {hint}") from None
    return {
        "recipe": recipe,
        "recipe_fingerprint": summary["recipe_fingerprint"],
        "commit": _git("rev-parse", "HEAD") + ("-dirty" if _git("status", "--porcelain", "-uno") else ""),
        **{key: validation[key] for key in _SCORES if key in validation},
        "images": validation["images"],
        "num_classes": read_checkpoint(find_checkpoints([str(run)])[0], only_meta=True).network.num_classes,
        "weights": validation["weights"],
        "minutes": round(seconds_at_work(read_log(run / "log.jsonl")) / 60, 1),
        "starts": len(sessions),
        "note": note,
        **{key: summary[key] for key in _SUMMARISED},
    }


def seconds_at_work(records: Sequence[dict[str, Any]]) -> float:
    """Seconds between a log's records, without the pauses before a resumed run says so."""
    steps = pairwise(records)
    begins = ("resuming from", "images per step")
    return sum(b["time"] - a["time"] for a, b in steps if not str(b.get("text", "")).startswith(begins))


_SCORES = ("top1", "top5", "ap", "ap50", "ap75", "ap50_of")
_SUMMARISED = (
    *("model", "params", "params_with_bn", "madds", "cards", "device", "batch_size", "resolution", "jit_level"),
    *("graph_compile_seconds", "ms_per_step", "images_per_second", "data_wait_percent", "epochs", "steps"),
    "environment",
)


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown, first those of classifiers: MindCV's columns and the time that training took."""
    classifiers = [[*_columns(r), f"{r['top1']:.2f}", f"{r['top5']:.2f}", _minutes(r)] for r in results if "top1" in r]
    detectors = [
        [*_columns(r), f"{r['ap']:.1f}", f"{r['ap50']:.1f}", _by_class(r), _minutes(r)] for r in results if "ap" in r
    ]
    whole = _markdown(("acc@top1", "acc@top5", "minutes"), classifiers)
    return f"{whole}\n\n{_markdown(('AP', 'AP50', 'AP50 by class', 'minutes'), detectors)}" if detectors else whole


def _columns(r: dict[str, Any]) -> list[str]:
    return [
        f"[{Path(r['recipe']).stem}]({r['recipe']})",
        f"{r['params_with_bn'] / 1e6:.2f}",
        f"{r['cards']} x {r['device']}",
        f"{r['batch_size']}",
        r["resolution"],
        r["jit_level"] or "default",
        f"{r['graph_compile_seconds']:.0f} s",
        f"{r['ms_per_step']:.1f}",
        f"{r['images_per_second']:.0f}",
    ]


def _minutes(r: dict[str, Any]) -> str:
    return f"{r['minutes']:.1f}"


def _by_class(r: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in r["ap50_of"].items() if value is not None)


def _markdown(scores: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    columns = ("recipe", "params (M)", "cards", "batch size", "resolution", "jit level", "graph compile")
    header = (*columns, "ms/step", "img/s", *scores)
    lines = [f"| {' | '.join(row)} |" for row in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


def page_with(text: str, folder: Path) -> str:
    """The text of docs/results.md with the tables of all benchmarks in ``folder`` between their marks."""
    return _between(text, "benchmark", "\n\n".join(benchmark_table(one) for one in load_benchmarks(folder)))


def readme_with(text: str, folder: Path) -> str:
    """README's text with the tables of the trainings and of the speeds in ``folder`` between their marks."""
    text = _between(text, "results", table(load_results(folder)))
    return _between(text, "speed", speed_table(load_benchmarks(folder)))


def _between(text: str, what: str, content: str) -> str:
    begin, end = f"<!-- {what}: written by tools/bench/publish.py -->", f"<!-- end of {what} -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def load_results(folder: Path) -> list[dict[str, Any]]:
    """All training results, by recipe."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [result for result in found if result.keys() & {"top1", "ap"}]


def load_benchmarks(folder: Path) -> list[dict[str, Any]]:
    """All benchmarks: by instruction set, then by file."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("benchmark_*.json"))]
    return sorted(found, key=lambda report: report["machine"]["instruction_set"], reverse=True)


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def main(argv: Sequence[str] | None = None) -> int:
    """Write a result, or only the tables of README and docs/results.md; returns the exit code."""
    parser = Parser(prog="publish.py", description=__doc__)
    parser.add_argument("run", nargs="?", help="run folder; without one only README is written")
    parser.add_argument("--recipe", help="the recipe file that the run followed")
    parser.add_argument("--note", default="", help="what a reader has to know about this run")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    results = ROOT / "results"
    if options.run:
        if not options.recipe or not (ROOT / options.recipe).is_file():
            raise UserError(f"recipe: {options.recipe!r} is not a recipe file below {ROOT}")
        collected = collect(Path(options.run), options.recipe, options.note)
        target = results / f"{Path(options.recipe).stem}.json"
        replace_file(target, (json.dumps(collected, indent=2) + "\n").encode())
        print(target)
    readme = ROOT / "README.md"
    replace_file(readme, readme_with(readme.read_text(), results).encode())
    page = ROOT / "docs" / "results.md"
    replace_file(page, page_with(page.read_text(), results).encode())
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
