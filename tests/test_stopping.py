"""A training told to stop: what its log and its checkpoint hold, and how it goes on; names of run folders."""

from __future__ import annotations

import json

from processes import PLAIN, cli, messages, refused, steps, stopped_at, write_recipe

from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.run.folder import RunFolder


def test_a_stop_between_log_lines_loses_none(tmp_path, digits):
    """What was trained since the last line is logged at the stop, and the checkpoint lies there."""
    recipe = write_recipe(tmp_path, PLAIN, data_dir=str(digits), log_interval=3, epoch_size=2)
    assert stopped_at(5, "-c", recipe, "--ckpt_save_dir", tmp_path, "--run_name", "run") == 0
    folder = tmp_path / "run"
    assert [step for step, *_ in steps(folder)] == [1, 3, 4, 5]
    assert json.loads((folder / "summary.json").read_text())["stopped"] is True
    assert "step_00000005.safetensors" in {path.name for path in (folder / "checkpoints").iterdir()}
    assert cli("--resume", folder) == 0
    assert [step for step, *_ in steps(folder)] == [1, 3, 4, 5, 6, 8]


def test_another_number_of_images_per_step_keeps_the_log(tmp_path, digits):
    recipe = write_recipe(tmp_path, PLAIN, data_dir=str(digits), epoch_size=3)  # 4 steps an epoch, then 2
    assert stopped_at(6, "-c", recipe, "--ckpt_save_dir", tmp_path, "--run_name", "run") == 0
    folder = tmp_path / "run"
    assert stopped_at(5, "--resume", folder, "--batch_size", "32", "--allow_changes", "batch_size") == 0
    assert cli("--resume", folder) == 0
    assert [step for step, *_ in steps(folder)] == [1, 2, 3, 4, 5, 6, 3, 4, 5, 6]
    assert messages(folder).count("images per step: 32, were 16") == 1


def test_runs_are_numbered_unless_they_have_a_name(tmp_path, digits, capsys):
    recipe = load_recipe(overrides={"ckpt_save_dir": str(tmp_path), "model": "mnasnet_050"})
    assert [RunFolder.create(recipe).path.name for _ in range(3)] == ["mnasnet_050", "mnasnet_050-2", "mnasnet_050-3"]
    path = write_recipe(tmp_path, PLAIN, data_dir=str(digits))
    sentence = refused(capsys, "-c", path, "--ckpt_save_dir", tmp_path, "--run_name", "mnasnet_050-2")
    assert f"--resume {tmp_path / 'mnasnet_050-2'}" in sentence
