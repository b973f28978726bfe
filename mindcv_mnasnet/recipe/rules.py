"""Pairs of recipe keys that contradict each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.detection_keys import CLASSIFIERS_KEYS, DetectionKeys
from mindcv_mnasnet.recipe.keys import AllKeys
from mindcv_mnasnet.recipe.values import key_table, nearest


def check_together(recipe: AllKeys, origins: Mapping[str, str]) -> None:
    """Refuse contradictions between keys.

    Args:
        origins: where each key that was given stood, for the error sentence.
    Raises:
        UserError: naming both keys, both values and where they stood.
    """

    def clash(one: str, other: str, why: str) -> UserError:
        said = (f"{name}: {getattr(recipe, name)!r} ({origins.get(name, 'default')})" for name in (one, other))
        return UserError(" and ".join(said) + f" contradict each other: {why}")

    def given(name: str) -> bool:
        return name in recipe.given

    if recipe.lr_per_256 is not None and given("lr"):
        raise clash("lr", "lr_per_256", "both set the peak rate; unset one, for example --lr_per_256 None")
    if recipe.decay_every_epochs is not None and recipe.scheduler == "exponential_decay" and given("decay_epochs"):
        raise clash("decay_epochs", "decay_every_epochs", "exponential decay has one period, decay_every_epochs")
    ends_at_min = recipe.scheduler in ("cosine_decay", "polynomial_decay")
    if recipe.lr_per_256 is None and ends_at_min and recipe.min_lr > recipe.lr:
        raise clash("min_lr", "lr", "the rate cannot decay to more than its peak")
    if unknown := [name for name in recipe.allow_changes if name not in key_table()]:
        raise UserError(f"allow_changes: unknown key {unknown[0]!r}{nearest(unknown[0], key_table())}")
    if recipe.resume and recipe.init_from:
        raise clash("resume", "init_from", "a resumed run has its own weights")
    if recipe.ckpt_path and recipe.init_from and recipe.ckpt_path != recipe.init_from:
        raise clash("ckpt_path", "init_from", "training starts from one checkpoint")
    for other in ("resume", "init_from", "ckpt_path"):
        if recipe.pretrained and getattr(recipe, other):
            raise clash("pretrained", other, "training starts from one set of weights")
    if recipe.quantize and recipe.freeze is not None:
        raise clash("quantize", "freeze", "parts that are kept fixed would never learn their ranges")
    for level in ("amp_level", "val_amp_level"):
        if recipe.quantize and getattr(recipe, level) != "O0":
            raise clash("quantize", level, "steps of 8 bits are simulated in float32")
    if recipe.use_nesterov and recipe.opt not in ("sgd", "momentum"):
        raise clash("use_nesterov", "opt", "Nesterov's momentum exists for sgd only")
    if recipe.val_fraction is not None and recipe.val_labels is not None:
        raise clash("val_fraction", "val_labels", "validation images are either split off or a folder of their own")
    if len(recipe.mean) != len(recipe.std):
        raise clash("mean", "std", "they have one item per channel each")
    if len(recipe.mean) not in (recipe.in_channels, 3):
        raise clash("mean", "in_channels", "there is one mean per channel (an RGB triple serves gray input too)")
    if recipe.eval_crop == "tf_square" and recipe.val_resize is not None:
        raise clash("eval_crop", "val_resize", "the authors' square is cut before resizing, to the network's input")
    if recipe.val_interpolation == "tf_bilinear" and recipe.eval_crop != "tf_square":
        raise clash("val_interpolation", "eval_crop", "TensorFlow 1's grid belongs to tf_square")
    _check_task(recipe, origins)


def _check_task(recipe: AllKeys, origins: Mapping[str, str]) -> None:
    """Refuse keys of the other task where they say more than their defaults."""
    table = key_table()
    changed = [name for name in table if getattr(recipe, name) != table[name].default]
    own = {field.name: "task: detect is what it is for" for field in fields(DetectionKeys) if field.name != "task"}
    foreign = CLASSIFIERS_KEYS if recipe.task == "detect" else own
    if found := [name for name in changed if name in foreign]:
        name = found[0]
        said = f"{name}: {getattr(recipe, name)!r} ({origins.get(name, 'default')})"
        raise UserError(f"{said} means nothing with task: {recipe.task}: {foreign[name]}")
    if recipe.task == "detect" and recipe.min_scale >= recipe.max_scale:
        raise UserError(f"min_scale: {recipe.min_scale} has to be below max_scale: {recipe.max_scale}")
