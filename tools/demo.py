"""First contact: train on the built-in digits, validate the checkpoint, show the results."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from mindcv_mnasnet.errors import JobError, UserError, run_cli
from mindcv_mnasnet.recipe.command_line import Parser

RECIPE = "configs/digits/mnasnet_small_digits.yaml"
_OWN = ("-c", "--config", "--run_name", "--ckpt_save_dir", "--resume", "--dry_run")


def _run(*command: str) -> None:
    print(f"\n$ python {shlex.join(command)}", flush=True)
    code = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
    if code:
        raise JobError(f"python {shlex.join(command)} ended with exit code {code}")


def _free_run(root: Path) -> Path:
    number = 1
    while (root / f"demo-{number}").exists():
        number += 1
    return root / f"demo-{number}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; options are handed on to train.py."""
    parser = Parser(prog="demo.py", description=__doc__, epilog="other options go to train.py, such as --epoch_size 5")
    _, handed_on = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    for word in handed_on:
        if (name := word.partition("=")[0]) in _OWN:
            raise UserError(f"{name}: the demo sets it itself; train.py takes it")
    run = _free_run(ROOT / "runs")
    shown = run.relative_to(ROOT)
    _run("train.py", "--config", RECIPE, "--run_name", run.name, *handed_on)
    summary = json.loads((run / "summary.json").read_text())
    if summary["stopped"]:
        return 0
    _run("validate.py", "--ckpt_path", str(shown), "--json", str(shown / "validation.json"))
    validated = json.loads((run / "validation.json").read_text())[0]
    rows = {
        "top-1 on held-out digits": f"{validated['top1']:.2f} % of {validated['images']}",
        "parameters": f"{summary['params']:,}",
        "training": f"{summary['images_per_second']:,.0f} images/s",
        "run folder": f"{shown}/",
        "curves": f"{shown / 'curves.png'}",
        "checkpoint": validated["checkpoint"],
    }
    print(flush=True)
    for name, value in rows.items():
        print(f"  {name:<26}{value}")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
