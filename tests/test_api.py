"""The Python API and the ``mnasnet`` command: what they offer, and that neither loads more than it needs."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from processes import ROOT

import mindcv_mnasnet as mm
from mindcv_mnasnet import cli
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.networks.network import resolve


def loaded_by(program: str) -> set[str]:
    """The modules that a Python program of its own has loaded at its end."""
    program += "\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_loads_nothing():
    loaded = loaded_by("import mindcv_mnasnet as mm\nassert 'create_model' in dir(mm)")
    assert not {"mindspore", "numpy", "yaml", "mindcv_mnasnet.recipe"} & loaded


@pytest.mark.parametrize("program", ["cli.dispatch(['--help'])", "cli.dispatch(['--version'])"])
def test_help_loads_no_library(program):
    assert not {"mindspore", "numpy", "yaml"} & loaded_by(f"from mindcv_mnasnet import cli\n{program}")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself_without_mindspore(name):
    program = f"""
import sys
from mindcv_mnasnet import cli
try:
    cli.dispatch([{name!r}, "--help"])
except SystemExit as end:
    assert not end.code
"""
    assert "mindspore" not in loaded_by(program)


def test_help_fits_one_screen():
    lines = cli.usage().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert all(any(line.split()[:1] == [name] for line in lines) for name in cli.COMMANDS)


def test_an_unknown_command_is_one_sentence():
    with pytest.raises(UserError, match="no command 'tarin'"):
        cli.dispatch(["tarin"])


def test_a_command_returns_its_programs_exit_code(capsys):
    assert cli.dispatch(["profile", "mnasnet-a1", "--json"]) == 0
    with pytest.raises(UserError, match="unknown model"):
        cli.dispatch(["profile", "mnasnet-z9"])


def test_models_are_listed_by_pattern():
    found = mm.list_models("*small*")
    assert "mnasnet_small" in found
    assert set(found) < set(mm.list_models())
    assert all(resolve(name) for name in mm.list_models())


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'open_detektor'"):
        _ = mm.open_detektor


def test_training_with_keys_keeps_what_was_changed_in_the_recipe(cpu, monkeypatch):
    monkeypatch.setattr("mindcv_mnasnet.train.engine.fit", lambda recipe: recipe)
    trained = mm.train(replace(mm.load_recipe(overrides={"epoch_size": 10}), label_smoothing=0.2), lr=0.5)
    assert (trained.label_smoothing, trained.lr, trained.epoch_size) == (0.2, 0.5, 10)


def test_the_api_trains_validates_and_predicts(cpu, digits, tmp_path, capsys):
    keys = {
        "data_dir": str(digits),
        "ckpt_save_dir": str(tmp_path),
        "run_name": "run",
        "num_samples": 64,
        "epoch_size": 1,
        "blocks": ["r1_k3_s22_e1_o8_noskip"],
        "image_resize": 16,
        "in_channels": 1,
        "batch_size": 16,
    }
    assert mm.train(mm.load_recipe(overrides=keys))["stopped"] is False
    (result,) = mm.validate(tmp_path / "run")
    assert result.to_dict()["images"] == 360
    images = sorted((digits / "val").rglob("*.png"))[:3]
    classifier = mm.open_classifier(str(tmp_path / "run"))
    predictions = classifier.predict(images, top=2)
    assert [one.path for one in predictions] == [str(path) for path in images]
    assert all(len(one.classes) == 2 and one.probabilities[0] >= one.probabilities[1] for one in predictions)
    capsys.readouterr()
    cli.dispatch(["predict", str(tmp_path / "run"), *map(str, images), "--top", "2", "--format", "csv"])
    printed = [line.split(",") for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[2] for row in printed] == [name for one in predictions for name in one.classes]
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(JobError, match=r"broken\.png"):
        classifier.predict(tmp_path / "broken.png")


def test_the_documented_names_are_the_packages():
    page = (ROOT / "docs" / "reference" / "api.md").read_text()
    documented = re.findall(r"auto(?:function|class):: (mindcv_mnasnet\.[\w.]+)\.(\w+)", page)
    assert {name for _, name in documented} | {"train"} == set(mm.__all__)
    for module, name in documented:
        assert getattr(mm, name) is getattr(importlib.import_module(module), name)


def test_the_package_can_be_run():
    done = subprocess.run(
        [sys.executable, "-m", "mindcv_mnasnet", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{mm.__version__}\n"
