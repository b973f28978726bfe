"""The project around the package: locks, Makefile, README, metadata."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mindcv_mnasnet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKS = {  # lock: the extras that it holds besides the dependencies
    "requirements.txt": (),
    "requirements-dev.txt": ("dev", "test", "tensorboard"),
    "requirements-oldest.txt": ("test", "tensorboard"),
}
PYTHONS = ("3.10", "3.11", "3.12")


def locked(lock: str, python: str) -> dict[str, str]:
    """Version of every package that ``lock`` installs on Linux with this Python, by canonical name."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    pins = {}
    for line in (ROOT / lock).read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text:
            requirement = Requirement(text)
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"{lock} does not pin {requirement.name}"
            if requirement.marker is None or requirement.marker.evaluate(environment):
                pins[canonicalize_name(requirement.name)] = specifier.version
    return pins


def direct(extras: tuple[str, ...], python: str) -> list[Requirement]:
    texts = PROJECT["dependencies"] + [text for extra in extras for text in EXTRAS[extra]]
    requirements = [Requirement(text) for text in texts]
    return [
        requirement
        for requirement in requirements
        if canonicalize_name(requirement.name) != canonicalize_name(PROJECT["name"])
        and (requirement.marker is None or requirement.marker.evaluate({"python_version": python}))
    ]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_locks_pin_every_direct_dependency_within_its_range(lock, python):
    pins = locked(lock, python)
    for requirement in direct(LOCKS[lock], python):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is missing: run make lock"
        assert requirement.specifier.contains(pins[name]), f"{name} {pins[name]} is out of range: run make lock"


@pytest.mark.parametrize("python", PYTHONS)
def test_tools_do_not_change_what_is_trained_with(python):
    base = locked("requirements.txt", python)
    pins = locked("requirements-dev.txt", python)
    assert {name: pins[name] for name in base} == base


def test_the_oldest_lock_holds_the_lower_bounds():
    pins = locked("requirements-oldest.txt", "3.10")
    for requirement in direct((), "3.10"):
        (lowest,) = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        assert pins[canonicalize_name(requirement.name)].startswith(lowest)


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_name_no_index_and_no_host(lock):
    assert not re.search(r"://|--|@", (ROOT / lock).read_text())


def test_the_makefile_looks_for_the_pythons_that_the_metadata_allow():
    names = re.findall(r"python(3\.\d+)", (ROOT / "Makefile").read_text())
    assert sorted(set(names)) == list(PYTHONS)
    allowed = Requirement(f"x{PROJECT['requires-python']}").specifier
    assert [allowed.contains(f"3.{minor}") for minor in range(9, 14)] == [False, True, True, True, False]


def test_the_version_is_importable_and_the_installed_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+", mindcv_mnasnet.__version__)
    try:
        installed = importlib.metadata.version(PROJECT["name"])
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed")
    assert installed == mindcv_mnasnet.__version__


def readme_commands() -> list[str]:
    """Lines of the README's code blocks, continuation lines joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return "\n".join(blocks).replace("\\\n", " ").splitlines()


def test_the_readme_names_make_targets_that_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for line in readme_commands() for target in re.findall(r"^(?:\$ )?make ([a-z-]+)", line)}
    assert {"demo", "test"} <= named <= targets


def test_the_readme_names_files_that_exist():
    text = "\n".join(readme_commands())
    named = set(re.findall(r"(?<![\w/.])((?:tools|configs|results)/[\w./-]+\.\w+|(?:train|validate)\.py)", text))
    named |= set(re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", (ROOT / "README.md").read_text()))
    assert {"train.py", "validate.py"} <= named
    assert not [name for name in named if not (ROOT / name).exists()]


FAKE_PYTHON = """#!/bin/sh
# Stands for an interpreter of version $FAKE_VERSION; "-m venv DIR" copies it, "-m pip" fails when FAKE_PIP says so.
echo "$*" >>"$FAKE_LOG"
case "$1 $2" in
"-c import sys"*) [ "$FAKE_VERSION" = 3.11 ];;
"-c import ensurepip"*) [ "$FAKE_VENV" != missing ];;
"-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python";;
"-m pip") [ "$FAKE_PIP" != broken ];;
esac
"""


@pytest.fixture
def clone(tmp_path):
    """A copy of what ``make demo`` needs, in a folder with a space, with an interpreter that installs nothing."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    folder = tmp_path / "a clone"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", *LOCKS):
        shutil.copy(ROOT / name, folder)
    python = folder / "a python"
    python.write_text(FAKE_PYTHON)
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return folder


def make(clone: Path, *targets: str, **settings: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The finished process and the ``-m`` calls of the interpreter, in order."""
    calls = clone / "calls"
    calls.write_text("")
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    fake = {"PYTHON": "./a python", "ARGS": "", "FAKE_VERSION": "3.11", "FAKE_LOG": str(calls)}
    environment = keep | fake | settings
    process = subprocess.run(
        ["make", *targets], cwd=clone, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return process, [line for line in calls.read_text().splitlines() if line.startswith("-m")]


def edit(path: Path) -> None:
    """Make ``path`` newer than what was made from it, without waiting for the clock."""
    os.utime(path, (path.stat().st_atime, time.time() + 10))


def test_a_second_make_installs_nothing(clone):
    process, first = make(clone, "demo")
    assert process.returncode == 0, process.stderr
    assert [call.split()[1] for call in first] == ["venv", "pip", "pip"]
    assert make(clone, "demo")[1] == []


def test_environments_follow_their_locks_and_do_not_undo_each_other(clone):
    make(clone, "test", "bench")
    assert make(clone, "demo", "test", "bench")[1] == ["-m pytest -n 2 --dist loadfile --no-loadscope-reorder"]
    edit(clone / "requirements.txt")
    process, calls = make(clone, "demo")
    assert process.returncode == 0, process.stderr
    assert [call.split()[1] for call in calls] == ["pip", "pip"]


@pytest.mark.parametrize("target", ["demo", "test"])
def test_an_interrupted_installation_is_begun_again(clone, target):
    process, _ = make(clone, target, FAKE_PIP="broken")
    assert process.returncode != 0
    (clone / ".venv" / "half written").touch()
    process, calls = make(clone, target)
    assert process.returncode == 0, process.stderr
    assert calls[0] == "-m venv .venv"
    assert not (clone / ".venv" / "half written").exists()


def test_an_interrupted_upgrade_is_begun_again(clone):
    make(clone, "test")
    edit(clone / "requirements-dev.txt")
    assert make(clone, "test", FAKE_PIP="broken")[0].returncode != 0
    process, calls = make(clone, "demo")
    assert process.returncode == 0, process.stderr
    assert calls[0] == "-m venv .venv"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"FAKE_VERSION": "3.13"}, ["3.10, 3.11 or 3.12", "PYTHON="]),
        ({"PYTHON": "/nowhere/python"}, ["3.10, 3.11 or 3.12", "/nowhere/python"]),
        ({"FAKE_VENV": "missing"}, ["venv", "apt install", "PYTHON="]),
    ],
    ids=["wrong version", "not there", "no venv"],
)
def test_an_unusable_python_is_one_sentence(clone, settings, words):
    process, calls = make(clone, "demo", **settings)
    assert process.returncode != 0
    (sentence,) = [line for line in process.stderr.splitlines() if not line.startswith("make")]
    assert all(word in sentence for word in words)
    assert calls == []
    assert not (clone / ".venv").exists()
