"""The example scripts run as they stand."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import mindcv_mnasnet as mm

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
SMALL = {"blocks": ["r1_k3_s22_e1_o8"], "num_samples": 128, "compile_cache": False}


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_an_example_runs(script, tmp_path, monkeypatch):
    """What it trains is a network of one block, on few images."""
    train = mm.train
    monkeypatch.setattr(mm, "train", lambda recipe, **keys: train(recipe, **{**keys, **SMALL}))
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_an_example_runs_in_full(script, tmp_path):
    command = [sys.executable, str(script), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
