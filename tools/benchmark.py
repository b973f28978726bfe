"""tools/bench/benchmark.py under its old name: python tools/benchmark.py --artifact FILE."""

import runpy
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("bench") / "benchmark.py"

if __name__ == "__main__":
    sys.path[0] = str(PROGRAM.parent)
    runpy.run_path(str(PROGRAM), run_name="__main__")
