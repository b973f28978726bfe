"""What a resumed run is refused to change, and the way out that it is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.run import resume
from mindcv_mnasnet.run.checkpoint import write_checkpoint


def refusal(**keys) -> str:
    with pytest.raises(UserError) as refused:
        resume.merged(load_recipe(overrides={"resume": "runs/mine", **keys}), load_recipe(overrides={"lr": 0.1}))
    return str(refused.value)


STATE = {"opt": "sgd", "ema": True, "quantize": True, "freeze": 2, "model": "mnasnet_small", "head": 64}


@pytest.mark.parametrize("name", [*STATE, "num_samples"])
def test_what_a_training_state_follows_from_needs_a_new_run(name):
    change = {name: STATE.get(name, 100)}
    for keys in (change, {"lr": 0.2, **change}):
        sentence = refusal(**keys)
        assert sentence.startswith(f"{name}: the run was made with")
        assert "start a new run with --init_from runs/mine" in sentence
        assert "--allow_changes" not in sentence


def test_what_it_does_not_follow_from_may_be_named():
    assert refusal(lr=0.2, label_smoothing=0.1).endswith("or say --allow_changes label_smoothing,lr")
    changed = load_recipe(overrides={"resume": "runs/mine", "lr": 0.2, "allow_changes": ["lr"]})
    assert resume.merged(changed, load_recipe(overrides={"lr": 0.1})).lr == 0.2


@pytest.mark.parametrize(
    ("edited", "way"), [("opt: sgd", "start a new run with --init_from"), ("lr: 0.2", "say --lr VALUE --allow_changes")]
)
def test_an_edited_recipe_is_answered_with_a_way_that_leads_on(tmp_path, edited, way):
    (tmp_path / "checkpoints").mkdir()
    recipe = load_recipe().to_dict()
    tensors = {"weight": np.zeros(1, np.float32)}
    write_checkpoint(tmp_path / "checkpoints" / "step_1.safetensors", tensors, {"recipe": recipe, "batches": 1})
    (tmp_path / "recipe.yaml").write_text(edited + "\n")
    _, _, notes = resume.stored_state(load_recipe(overrides={"resume": str(tmp_path)}))
    assert way in notes[-1]


def test_a_state_that_does_not_fit_what_was_changed_says_so():
    for allowed, said in (((), "odd$"), (("opt",), "odd; such a change needs a new run, with --init_from a")):
        recipe = load_recipe(overrides={"allow_changes": allowed})
        with pytest.raises(UserError, match=said), resume.misfits_explained(recipe, Path("a")):
            raise UserError("odd")


@pytest.mark.parametrize(
    ("name", "value"), [("run_name", "other"), ("ckpt_save_dir", "/other"), ("ckpt_path", "a.npz"), ("new_head", True)]
)
def test_what_only_a_new_run_looks_at_is_refused(name, value):
    assert refusal(**{name: value}).startswith(f"{name}: ")
    same = load_recipe(overrides={name: value, **({"init_from": "b"} if name == "new_head" else {})})
    again = load_recipe(overrides={"resume": "runs/mine"} | ({} if name == "new_head" else {name: value}))
    assert getattr(resume.merged(again, same), name) == value  # its own recipe's


def test_a_run_that_another_process_went_on_with_meanwhile_is_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "recipe.yaml").write_text("lr: 0.1\n")
    recipe = load_recipe(overrides={"resume": str(tmp_path)})
    stored = []
    for step in (1, 2):
        folder, one, _ = resume.stored_state(recipe)
        resume.require_newest(folder, one)
        stored.append(one)
        meta = {"recipe": load_recipe().to_dict(), "batches": step}
        write_checkpoint(folder.checkpoints / f"step_{step}.safetensors", {"weight": np.zeros(1, np.float32)}, meta)
    for one in stored:
        with pytest.raises(UserError, match=r"another process went on with .* meanwhile"):
            resume.require_newest(folder, one)
