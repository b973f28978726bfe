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
