"""Every recipe under configs/ trains: at its own network, image size and optimizer, alone and in a group of two.

Networks of tests are small, and what is shipped is not: MindSpore's compiler has limits that only large ones meet.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from processes import ROOT, msrun, unequal
from shipped import BATCH, RECIPES, batch, bring, take_steps, write_images

# AdamW with averages, clipping, a moving loss scale; two processes take RMSProp as in MindCV. The others take half a
# minute each to compile.
ORDINARY = ("mnasnet_a1_1.0_modern",)
ASCEND = ROOT / "configs" / "mnasnet" / "mnasnet_0.75_ascend.yaml"
TIMM = ROOT / "configs" / "mnasnet" / "mnasnet_a1_1.0_timm.yaml"
GROUP = 5  # recipes that one pair of processes goes through


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data set") / "images")


def pair(folder: Path, images: Path, steps: int, *recipes: Path, **overrides) -> list[list[dict[str, np.ndarray]]]:
    """What both processes of a group hold after so many steps of each recipe: losses and training state."""
    (folder / "images").symlink_to(images)
    ended = msrun(ROOT / "tests" / "shipped.py", str(steps), json.dumps(overrides), *recipes, cwd=folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return [[dict(np.load(folder / f"{path.stem}_rank_{rank}.npz")) for rank in (0, 1)] for path in recipes]


def alone(folder: Path, images: Path, steps: int, recipe: Path, **overrides) -> dict[str, np.ndarray]:
    """What one process holds that takes the batches of both in turn."""
    micro = 2 * overrides.pop("gradient_accumulation_steps", 1)
    with bring(recipe, images, folder / "alone", gradient_accumulation_steps=micro, **overrides) as job:
        losses = take_steps(job, steps)
        return {"losses": np.array(losses), **job.step.state()}


def assert_sound(state: dict[str, np.ndarray], steps: int) -> None:
    assert state["state.step"] == steps
    assert all(np.isfinite(value).all() for value in state.values())


def named(paths: list[Path]) -> list:
    """Test parameters, of which only some run in the ordinary suite."""
    marks = {path: () if path.stem in ORDINARY else (pytest.mark.slow,) for path in paths}
    return [pytest.param(path, id=path.stem, marks=marks[path]) for path in paths]


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize("recipe", named(RECIPES))
def test_a_step_of_every_recipe(recipe, images, tmp_path):
    with bring(recipe, images, tmp_path) as job:
        (loss,) = take_steps(job, 1)
        assert np.isfinite(loss)
        assert_sound(job.step.state(), 1)
        assert batch(job, 0)[0].shape == (BATCH, job.network.image_size, job.network.image_size, 3)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, len(RECIPES), GROUP))
def test_a_step_of_every_recipe_in_a_group_of_two(start, images, tmp_path):
    chosen = RECIPES[start : start + GROUP]
    for recipe, (first, second) in zip(chosen, pair(tmp_path, images, 1, *chosen), strict=True):
        assert unequal(first, second) == [], recipe.stem
        assert_sound(first, 1)


def test_two_processes_train_a_whole_network_to_the_same_bits(images, tmp_path):
    ((first, second),) = pair(tmp_path, images, 2, ASCEND)
    assert unequal(first, second) == []
    assert_sound(first, 2)


FEATURES = {
    "plain": {},
    "averages, accumulation and clipping": {
        "ema": True,
        "gradient_accumulation_steps": 2,
        "clip_grad": True,
        "clip_value": 1.0,
        "drop_overflow_update": True,
    },
    "frozen stages": {"freeze": 3, "ema": True},
}


@pytest.mark.slow
@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize("overrides", FEATURES.values(), ids=FEATURES)
@pytest.mark.parametrize("recipe", [ASCEND, TIMM], ids=["ascend", "timm"])
def test_two_processes_compute_what_one_does(recipe, overrides, images, tmp_path):
    """One that accumulates over both halves of the batch; batch norms see the same halves."""
    ((first, second),) = pair(tmp_path, images, 3, recipe, **overrides)
    assert unequal(first, second) == []
    expected = alone(tmp_path, images, 3, recipe, **overrides)
    assert first.keys() == expected.keys()
    np.testing.assert_allclose(first["losses"], expected["losses"], rtol=2e-4)
    # Statistics average over two halves, not one after the other; sums count batches of a process.
    np.testing.assert_allclose(2 * first.pop("state.sums"), expected.pop("state.sums"), rtol=2e-4)
    for name, value in expected.items():
        if not name.endswith(("moving_mean", "moving_variance")):
            scale = np.abs(value).max() + 1e-6
            np.testing.assert_allclose(first[name] / scale, value / scale, atol=2e-3, err_msg=name)


@pytest.mark.slow
def test_a_whole_network_is_quantized_on_two_processes(images, tmp_path):
    ((first, second),) = pair(tmp_path, images, 2, ASCEND, quantize=True, ema=True)
    assert unequal(first, second) == []
    assert_sound(first, 2)
    assert any(name.startswith("ema.ranges.") for name in first)
