"""Searches of tests: on a surrogate, so that nothing is trained or measured."""

from __future__ import annotations

import yaml
from processes import captured

from mindcv_mnasnet.commands import search as command
from mindcv_mnasnet.search.folder import SearchFolder
from mindcv_mnasnet.search.runner import Search
from mindcv_mnasnet.search.settings import load_settings

SYNTHETIC = {"evaluator": "surrogate", "latency": "surrogate", "strategy": "evolution", "trials": 60, "generation": 10}
SPACE = {
    "stem": 8,
    "strides": [1, 2],
    "filters": [8, 16],
    "layers": [1, 1],
    "decisions": {"operator": ["conv", "sepconv"], "kernel": [3, 5], "filters": [0.5, 1]},
}


def search(tmp_path, name="run", **keys):
    settings = load_settings(overrides={**SYNTHETIC, "search_dir": str(tmp_path), "run_name": name, **keys})
    return Search(settings, SearchFolder.create(settings))


def cli(*words):
    """``mnasnet search`` in this process: its exit code and what it prints."""
    return captured(*words, program=command)


def write_search(tmp_path, **keys):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**SYNTHETIC, "search_dir": str(tmp_path), **keys}))
    return path
