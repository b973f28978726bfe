"""The command lines that the README had before the package was divided into sub-packages still mean something."""

import argparse
import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.command_line import parse_command_line
from mindcv_mnasnet.recipe.keys import SECTIONS
from mindcv_mnasnet.recipe.values import typed

ROOT = Path(__file__).resolve().parents[1]
LINES = json.loads((Path(__file__).with_name("reference") / "readme_commands.json").read_text())


class Parsed(Exception):  # noqa: N818 - it ends a command in place of its work
    """The command line was accepted."""


@pytest.fixture
def parse_only(monkeypatch):
    """Commands stop when their command line is parsed and the values of its keys are known to be possible."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(self, argv=None, namespace=None):
        raise Parsed(parse_args(self, argv, namespace))

    def stop_with_keys(argv, parser=None, sections=SECTIONS, only=None):
        found = parse_command_line(argv, parser, sections, only)
        for name, raw in found.overrides.items():
            typed(name, raw, "command line", sections)
        raise Parsed(found)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    for name in ("train", "validate", "search"):
        module = importlib.import_module(f"mindcv_mnasnet.commands.{name}")
        monkeypatch.setattr(module, "parse_command_line", stop_with_keys)


def command_of(script: str):
    """What a script of the repository runs."""
    module = re.search(r"from (mindcv_mnasnet\.commands\.\w+) import main", (ROOT / script).read_text())
    return importlib.import_module(module[1]).main


@pytest.mark.parametrize("line", [line for line in LINES if not line.startswith("tools/benchmark.py")])
def test_an_old_command_line_is_accepted(line, parse_only):
    script, *words = shlex.split(line)
    with pytest.raises(Parsed):
        command_of(script)(words)


@pytest.mark.parametrize("script", sorted({line.split()[0] for line in LINES}))
def test_an_old_script_is_where_it_was(script):
    assert (ROOT / script).is_file()


def test_the_check_would_notice_an_option_that_is_gone(parse_only):
    with pytest.raises((UserError, SystemExit)):
        command_of("tools/average_checkpoints.py")(["runs/mine", "--newest", "5", "-o", "x.safetensors"])
