"""Consoles that are closed, full, read by nobody, or cannot print a name: what ends and what goes on."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from image_files import flat
from processes import PLAIN, ROOT, environment, refused, write_recipe

from mindcv_mnasnet import console
from mindcv_mnasnet.commands import average, convert, dry_run, latency, predict, train, validate

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full, a disk that is always full")
MAIN = (sys.executable, "-m", "mindcv_mnasnet.cli")
PROFILE = (*MAIN, "profile", "mnasnet_small")


def ends(command: tuple[str | Path, ...], stdout, **more) -> tuple[int, list[str]]:
    """Exit code and error lines of a command whose standard output goes there."""
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, cwd=ROOT, text=True, check=False, **more)
    return done.returncode, done.stderr.splitlines()


@needs_full
def test_a_full_disk_behind_standard_output_is_one_sentence():
    with FULL.open("w") as full:
        assert ends(PROFILE, full) == (1, ["failed: standard output: No space left on device"])


def test_a_reader_that_has_gone_is_one_sentence():
    read, write = os.pipe()
    os.close(read)
    assert ends((*PROFILE[:-2], "train", "--help"), write) == (0, [])  # argparse tells nobody
    assert ends(PROFILE, write) == (1, ["failed: standard output: Broken pipe"])
    os.close(write)


def test_a_closed_standard_output_is_one_sentence():
    command = ("sh", "-c", 'exec "$@" >&-', "sh", *PROFILE)
    assert ends(command, subprocess.DEVNULL) == (1, ["failed: standard output: it is closed"])


@pytest.mark.parametrize("program", [validate, predict, train], ids=lambda one: one.__name__.rpartition(".")[2])
def test_a_name_that_is_too_long_or_a_link_to_itself_is_one_sentence(program, tmp_path, capsys):
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "a.png").write_bytes(flat(1))
    for name in ("a" * 300, str(tmp_path / "itself")):
        words = {train: ("-c", name), validate: (name,), predict: (name, tmp_path / "a.png")}[program]
        assert name in refused(capsys, *words, program=program)


def test_no_file_gets_the_number_of_a_closed_console(tmp_path):
    opened = "console.prepare(); sys.exit(open(sys.argv[1], 'w').fileno())"
    program = f"import sys; from mindcv_mnasnet import console; {opened}"
    command = ("sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", sys.executable, "-c", program, str(tmp_path / "file"))
    assert subprocess.run(command, cwd=ROOT, check=False).returncode > 2


def test_names_that_the_console_cannot_print_are_escaped(tmp_path):
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    for name in ("größe.jpg".encode("latin-1"), "日本.jpg".encode()):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"no image")
    command = (*MAIN, "check-dataset", str(tmp_path))
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert rb"gr\udcf6\udcdfe.jpg" in done.stdout
    assert rb"\u65e5\u672c.jpg" in done.stdout
    assert b"Traceback" not in done.stderr


class Broken(io.TextIOBase):
    """A stream of which nothing works."""

    def write(self, text):
        raise OSError(28, "No space left on device")

    def flush(self):
        raise ValueError("I/O operation on closed file")


def test_within_lenient_printing_never_fails(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Broken())
    monkeypatch.setattr(sys, "stderr", None)
    with console.lenient():
        print("lost", flush=True)
        print("lost too", file=sys.stderr)
    with pytest.raises(OSError, match="No space"):
        print("told")


@needs_full
def test_training_goes_on_and_saves_without_a_console(tmp_path, digits):
    """Standard output that nobody reads, errors to a full disk, and a data set that ascii cannot name."""
    data = Path(os.fsdecode(os.fsencode(tmp_path) + b"/gr\xf6\xdfe"))
    data.symlink_to(digits)
    recipe = write_recipe(tmp_path, PLAIN)
    words = ("-c", recipe, "--data_dir", data, "--run_name", "run", "--ckpt_save_dir", tmp_path / "runs")
    read, write = os.pipe()
    os.close(read)
    variables = environment() | {"PYTHONIOENCODING": "ascii"}
    with FULL.open("w") as full:
        command = [sys.executable, ROOT / "train.py", *words]
        done = subprocess.run(command, stdout=write, stderr=full, env=variables, check=False)
    os.close(write)
    assert done.returncode == 0
    assert json.loads((tmp_path / "runs" / "run" / "summary.json").read_text())["stopped"] is False


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (validate, ("runs/mine", "--json", "OUT")),
        (validate, ("runs/mine", "--csv", "OUT")),
        (validate, ("runs/mine", "--results", "OUT")),
        (predict, ("runs/mine", "cat.jpg", "--output", "OUT")),
        (predict, ("runs/mine", "cat.jpg", "--features", "OUT.npy")),
        (predict, ("runs/mine", "cat.jpg", "--contact_sheet", "OUT.png")),
        (average, ("a.safetensors", "b.safetensors", "-o", "OUT")),
        (dry_run, ("configs/digits/mnasnet_small_digits.yaml", "--json", "OUT")),
        (train, ("-c", "configs/digits/mnasnet_small_digits.yaml", "--dry_run", "--json", "OUT")),
        (latency, ("grid", "--json", "OUT")),
        (latency, ("grid", "--chart", "OUT.png")),
        (latency, ("build", "--table", "OUT", "--space", "a1")),
        (convert, ("a.pth", "OUT.safetensors")),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(program, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    place = str(tmp_path / "none" / "file")
    sentence = refused(capsys, *(word.replace("OUT", place) for word in words), program=program)
    assert f"there is no folder {tmp_path / 'none'}" in sentence
