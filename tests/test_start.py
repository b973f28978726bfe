"""What a training starts from: a checkpoint's network, any library's weights, and a run whose recipe was edited."""

from __future__ import annotations

import exported
import numpy as np
import pytest
from image_files import flat, make_folder

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.run import resume
from mindcv_mnasnet.run.checkpoint import read_checkpoint, write_checkpoint
from mindcv_mnasnet.run.folder import RunFolder
from mindcv_mnasnet.train.job import prepare
from mindcv_mnasnet.weights.convert import convert

pytestmark = pytest.mark.usefixtures("cpu")


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_start_without_a_model_takes_the_network_that_the_checkpoint_knows(tmp_path, digits, suffix):
    values = {"width_mult": 0.5, "head": 1280, "bn_eps": 1e-3}
    path = exported.write(tmp_path / "net.safetensors", digits, "b1", **values)
    if suffix == ".ckpt":
        convert(path, tmp_path / "net.ckpt")
    keys = {"dataset": "digits", "data_dir": str(digits), "image_resize": 24, "batch_size": 32, "kernels": False}
    job = prepare(
        load_recipe(overrides={**keys, "init_from": str(tmp_path / f"net{suffix}"), "ckpt_save_dir": str(tmp_path)})
    )
    assert job.network.layers() == read_checkpoint(path).network.layers()
    assert job.recipe.network(10).layers() == job.network.layers()
    started = {parameter.name: parameter.asnumpy() for parameter in job.step.get_parameters()}
    wanted = read_checkpoint(path).weights()["head.conv.weight"]
    assert any(value.shape == wanted.shape and np.array_equal(value, wanted) for value in started.values())


def test_a_classifier_of_as_many_other_classes_is_kept_and_said_or_replaced(tmp_path, digits):
    path = exported.write(tmp_path / "net.safetensors", digits, "tiny")
    folder = make_folder(tmp_path / "set", {f"train/{name}/1.png": flat(1) for name in "abcdefghij"})
    keys = {"data_dir": str(folder), "image_resize": 24, "batch_size": 4, "kernels": False}

    def started(data: dict, **more) -> tuple[str, bool]:
        job = prepare(load_recipe(overrides={**keys, "ckpt_save_dir": str(tmp_path / "runs"), **data, **more}))
        (classifier,) = (p.asnumpy() for p in job.step.get_parameters() if p.name == "classifier.weight")
        return "\n".join(job.notes), np.array_equal(classifier, read_checkpoint(path).weights()["classifier.weight"])

    notes, kept = started({"init_from": str(path)})
    assert "'0' where 'a' is here" in notes
    assert "--new_head True" in notes
    assert kept
    notes, kept = started({"init_from": str(path)}, new_head=True)
    assert "--new_head" not in notes
    assert not kept
    notes, kept = started({"init_from": str(path), "dataset": "digits", "data_dir": str(digits), "batch_size": 32})
    assert "--new_head" not in notes
    assert kept
    with pytest.raises(UserError, match="new_head"):
        started({}, new_head=True)


def test_training_does_not_begin_with_weights_that_are_not_finite(tmp_path, digits):
    stored = read_checkpoint(exported.write(tmp_path / "net.safetensors", digits, "tiny"))
    tensors = {**stored.tensors, "head.bn.moving_mean": stored.tensors["head.bn.moving_mean"] + np.inf}
    write_checkpoint(tmp_path / "net.safetensors", tensors, stored.meta)
    with pytest.raises(UserError, match=r"head\.bn\.moving_mean has values that are not finite"):
        prepare(load_recipe(overrides={"init_from": str(tmp_path / "net.safetensors"), "data_dir": str(digits)}))


def test_an_edited_recipe_of_a_run_is_said_not_to_count(tmp_path, digits):
    recipe = load_recipe(overrides={"ckpt_save_dir": str(tmp_path), "run_name": "run", "lr": 0.1})
    folder = RunFolder.create(recipe)
    stored = read_checkpoint(exported.write(tmp_path / "net.safetensors", digits))
    meta = {**stored.meta, "recipe": recipe.to_dict(), "batches": 1}
    folder.save("step_00000001", stored.tensors, meta, 3, "latest_k", False)
    asked = load_recipe(overrides={"resume": str(folder.path)})
    assert not any("recipe.yaml" in note for note in resume.stored_state(asked)[2])
    (folder.path / "recipe.yaml").write_text(recipe.dump().replace("lr: 0.1", "lr: 0.2"))
    assert any("has another lr than the checkpoint" in note for note in resume.stored_state(asked)[2])
