"""tools/profile.py as a process: numbers, options, exit codes, and that it stays light."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[1] / "tools" / "profile.py"


def run(*arguments, cwd=None):
    return subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True, cwd=cwd, check=False)


def report(*arguments):
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_json_holds_the_golden_numbers(tmp_path):
    done = run("mnasnet-a1", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert (found["params"], found["params_with_bn"], found["madds"]) == (3_887_038, 3_920_526, 311_579_072)
    assert round(found["madds_authors_rule"] / 1e6, 1) == 315.2
    assert found["blocks"][2] == "r3_k5_s22_e3_o40_se0.25"


def test_options_change_the_network():
    found = report("mnasnet_100", "--width_mult", "0.5", "--image_size", "224", "--num_classes", "1000")
    assert (found["params"], found["madds"]) == (2_218_512, 104_455_968)
    assert report("d1", "--width_mult", "none")["params"] == 3_638_404
    assert report("d1", "--width_mult", "1")["params"] > 3_638_404


def test_blocks_alone_describe_a_network():
    """Two 1x1 convolutions, one 3x3 and their BNs, by hand: stem 8, depthwise 8, project 8 to 8, head 16, 2 classes."""
    found = report("--blocks", "r1_k3_s11_e1_o8", "--stem", "8", "--head", "16", "--num_classes", "2")
    assert found["params"] == (27 * 8 + 16) + (9 * 8 + 16) + (64 + 16) + (8 * 16 + 32) + (16 * 2 + 2)
    assert found["blocks"] == ["r1_k3_s11_e1_o8"]


def test_layers_sum_to_the_total():
    found = report("mnasnet-small", "--layers")
    assert sum(layer["params"] for layer in found["layers"]) == found["params"]
    assert len(run("mnasnet-small", "--layers").stdout.splitlines()) > len(found["layers"])


def test_the_table_has_25_rows_that_agree():
    rows = report("--table")["table"]
    assert len(rows) == 25
    assert all((row["params_m"], row["madds_m"]) == (row["our_params_m"], row["our_madds_m"]) for row in rows)
    assert sum(bool(row["printed"]) for row in rows) == 2
    assert "52.3" in run("mnasnet-a1", "--table").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["mnasnet_10"],
        ["b1", "--width_mult", "wide"],
        ["b1", "--width_mult", "-1"],
        ["b1", "--image_size", "0"],
        ["b1", "--width", "1"],
        ["b1", "--blocks", "r1_k3"],
    ],
)
def test_mistakes_exit_with_2_and_no_traceback(arguments):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_heavy_is_imported():
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(TOOL)!r}, 'mnasnet-a1', '--layers']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as done:\n    assert not done.code\n"
        "print(sorted({'mindspore', 'numpy', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_detectors_recipe_costs_what_detection_was_counted_for():
    recipe = TOOL.parents[1] / "configs" / "detection" / "mnasnet_a1_ssdlite320_ascend.yaml"
    for words, expected in (
        ((), (4_745_771, 4_796_283, 821_099_872)),
        (("--num_classes", "90"), (4_912_181, 4_962_693, 837_819_232)),
    ):
        found = report("-c", recipe, *words)
        assert (found["params"], found["params_with_bn"], found["madds"]) == expected
