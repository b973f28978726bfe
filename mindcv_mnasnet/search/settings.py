"""The recipe of a search: where its keys are read from, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.files import with_home
from mindcv_mnasnet.recipe.recipe import RECIPE_SUFFIXES, Recipe, load_recipe, split_width
from mindcv_mnasnet.recipe.rule import Use
from mindcv_mnasnet.recipe.values import key_table, keys_for, typed
from mindcv_mnasnet.recipe.yaml_files import read_recipe_file, to_yaml
from mindcv_mnasnet.search.keys import (
    KEEP,
    ON_THIS_MACHINE,
    SECTIONS,
    LatencyKeys,
    PlaceKeys,
    RewardKeys,
    SearchKeys,
    TrialKeys,
)
from mindcv_mnasnet.search.limits import Limits
from mindcv_mnasnet.search.reward import EXPONENTS, Reward
from mindcv_mnasnet.search.space import Space
from mindcv_mnasnet.search.space_files import load_space
from mindcv_mnasnet.search.strategies import default_strategy


@dataclass(frozen=True)
class Settings(PlaceKeys, TrialKeys, LatencyKeys, RewardKeys, SearchKeys):
    """A search, complete and checked.

    ``proxy``: recipe keys that trials change in ``recipe``. ``rungs``: longer trainings for the best, each the recipe
    keys that it changes in the one before and ``keep``, how many networks have it. ``origin``: the file, whose folder
    relative paths start at.
    """

    proxy: Mapping[str, Any] = field(default_factory=dict)
    rungs: tuple[Mapping[str, Any], ...] = ()
    origin: Path = Path("search.yaml")

    @property
    def chosen_strategy(self) -> str:
        """The strategy's name, where ``auto`` is asked for too."""
        return default_strategy(self.trials) if self.strategy == "auto" else self.strategy

    @property
    def generations_ahead(self) -> int:
        """Generations that are proposed before the results of earlier ones are in.

        None by default where waiting for the end of a generation costs little, or where latency is timed on the cores
        that train.
        """
        if self.ahead is not None:
            return self.ahead
        if 4 * self.workers <= self.generation or (self.pool == "local" and self.latency in ON_THIS_MACHINE):
            return 0
        return math.ceil(1.5 * self.workers / self.generation)

    def located(self, name: str) -> str:
        """A model's name as it is, a recipe's with its whole path."""
        model, width = split_width(name)
        if not model.endswith(RECIPE_SUFFIXES):
            return name
        return str(self.beside(model).resolve()) + (f"@{width}" if width else "")

    def reward_function(self) -> Reward:
        """The reward."""
        alpha, beta = EXPONENTS[self.reward]
        return Reward(
            self.target_ms, alpha if self.alpha is None else self.alpha, beta if self.beta is None else self.beta
        )

    def limits(self) -> Limits:
        """Bounds of what is proposed."""
        return Limits(self.min_params, self.max_params, self.min_madds, self.max_madds)

    def final_recipe(self) -> Recipe:
        """The recipe of a winner, but for its blocks."""
        moved = {} if self.data_dir is None else {"data_dir": self.data_dir}
        return load_recipe(None if self.recipe is None else self.beside(self.recipe), moved)

    def proxy_keys(self, recipe: Recipe) -> dict[str, Any]:
        """``recipe`` as trials train: all its keys that are not default, with the proxy's."""
        given = {name: value for name, value in recipe.to_dict().items() if name in recipe.given}
        return {**given, **self.proxy}

    def rung_keys(self, rung: int) -> dict[str, Any]:
        """The recipe's keys on a rung: 0 is the proxy; the one after the last is the recipe itself, for finalists."""
        recipe = self.final_recipe()
        if rung > len(self.rungs):
            return {name: value for name, value in recipe.to_dict().items() if name in recipe.given}
        keys = self.proxy_keys(recipe)
        for changes in self.rungs[:rung]:
            keys |= {name: value for name, value in changes.items() if name != KEEP}
        return keys

    def open_space(self) -> Space:
        """The space, whose networks are as ``recipe`` has them: number of classes, image size, stem's stride, ...

        For the surrogate without a recipe: 224 pixels and 1000 classes.
        """
        fields: dict[str, Any] = {}
        if self.recipe is not None:
            recipe = self.final_recipe()
            network = recipe.network(_num_classes(recipe))
            names = ("stem_stride", "head", "padding", "bn_eps", "bn_momentum", "dropout", "drop_connect")
            fields = {name: getattr(network, name) for name in (*names, "in_channels", "num_classes")}
            fields["image_size"] = recipe.image_resize
        return load_space(self.space if "." not in self.space else self.beside(self.space), **fields)

    def beside(self, name: str) -> Path:
        """A path that the file names: from the working directory where it is there, else from the file's folder."""
        path = with_home(name)
        return path if path.is_absolute() or path.exists() else self.origin.parent / path

    def identity(self) -> dict[str, Any]:
        """What decides the outcome, without places and numbers of workers, as YAML holds it."""
        places = keys_for(Use.PLACE, SECTIONS)
        values = {name: getattr(self, name) for name in key_table(SECTIONS) if name not in places}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {**plain, "proxy": dict(self.proxy), "rungs": [dict(rung) for rung in self.rungs]}

    def dump(self) -> str:
        """YAML of all that differs from the defaults; paths as they are found from here."""
        table = key_table(SECTIONS)
        values = {name: getattr(self, name) for name in table if getattr(self, name) != table[name].default}
        if self.generations_ahead:
            values["ahead"] = self.generations_ahead  # other workers may not change it
        for name in ("recipe", "latency_table", "accuracy_table", "space"):
            if name in values and (path := self.beside(str(values[name]))).exists():
                values[name] = str(path.resolve())
        if self.target_network is not None:
            values["target_network"] = self.located(self.target_network)
        if self.references:
            values["references"] = tuple(self.located(name) for name in self.references)
        kept = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        if self.proxy:
            kept["proxy"] = dict(self.proxy)
        if self.rungs:
            kept["rungs"] = [dict(rung) for rung in self.rungs]
        return to_yaml(kept)


def _num_classes(recipe: Recipe) -> int:
    """The recipe's number of classes, or its data set's."""
    if recipe.num_classes is not None:
        return recipe.num_classes
    from mindcv_mnasnet.data.sets import open_train_val

    try:
        return len(open_train_val(recipe)[0].class_names)
    except UserError as error:
        raise UserError(f"num_classes: the recipe does not say it, and the data cannot tell: {error}") from None


def load_settings(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """A search recipe from its file and the command line.

    Raises:
        UserError: unknown keys, wrong types, impossible values, or keys that contradict each other.
    """
    content = {} if path is None else read_recipe_file(path)
    proxy = content.pop("proxy", None) or {}
    _check_recipe_keys(proxy, f"proxy of {path}")
    rungs = _read_rungs(content.pop("rungs", None) or [], str(path))
    content |= _read_target(content.pop("target", None), str(path))
    values = {name: typed(name, raw, str(path), SECTIONS) for name, raw in content.items()}
    if isinstance(content.get("references"), list):
        values["references"] = tuple(str(name) for name in content["references"])  # paths may have blanks
    values |= {name: typed(name, raw, "command line", SECTIONS) for name, raw in (overrides or {}).items()}
    settings = Settings(**values, proxy=dict(proxy), rungs=rungs, origin=Path(path or "search.yaml"))
    _check_together(settings)
    return settings


def _check_recipe_keys(content: Any, where: str) -> None:
    if not isinstance(content, dict):
        raise UserError(f"{where} is not a mapping of recipe keys")
    for name, raw in content.items():
        typed(str(name), raw, where)


def _read_rungs(content: Any, path: str) -> tuple[dict[str, Any], ...]:
    if not isinstance(content, list):
        raise UserError(f"rungs of {path} is not a list of mappings")
    before = None
    for number, rung in enumerate(content, start=1):
        where = f"rung {number} of {path}"
        keep = rung.get(KEEP) if isinstance(rung, dict) else None
        if not isinstance(keep, int) or keep < 1 or (before is not None and keep > before):
            raise UserError(
                f"{where} needs keep, the number of networks: 1 or more and no more than the one before has"
            )
        _check_recipe_keys({name: raw for name, raw in rung.items() if name != KEEP}, where)
        before = keep
    return tuple(dict(rung) for rung in content)


def _read_target(content: Any, path: str) -> dict[str, Any]:
    """``target: {network: NAME or RECIPE, factor: F}`` as the keys that it stands for."""
    if content is None:
        return {}
    if not isinstance(content, dict) or "network" not in content or set(content) - {"network", "factor"}:
        raise UserError(f"target of {path} is a mapping of network and, where it is not 1, factor")
    return {"target_network": content["network"], "target_factor": content.get("factor", 1.0)}


def _check_together(settings: Settings) -> None:
    if settings.evaluator not in ("surrogate", "table") and settings.recipe is None:
        raise UserError(f"recipe: evaluator {settings.evaluator} needs the recipe that winners are trained by")
    if settings.evaluator == "table" and settings.accuracy_table is None:
        raise UserError("accuracy_table: evaluator table needs the file, such as trials.jsonl of another search")
    if (settings.rungs or settings.finalists) and settings.evaluator not in ("proxy", "table"):
        raise UserError(f"rungs, finalists: evaluator {settings.evaluator} has no trainings to make longer")
    if settings.finalists and settings.recipe is None:
        raise UserError("finalists: name the recipe that they are trained by")
    if settings.evaluator == "surrogate" and settings.latency != "surrogate":
        raise UserError("latency: with evaluator surrogate it is surrogate too; what is made up is not mixed")
    if settings.latency == "surrogate" and settings.evaluator != "surrogate":
        raise UserError("latency: surrogate is for evaluator surrogate; what is made up is not mixed with measurements")
    if settings.latency == "command" and settings.latency_command is None:
        raise UserError("latency_command: latency command needs the command line, with {model} where the file goes")
    if settings.latency == "table" and settings.latency_table is None:
        raise UserError("latency_table: latency table needs the file; tools/latency.py build makes it")
    for what in ("params", "madds"):
        low, high = getattr(settings, f"min_{what}"), getattr(settings, f"max_{what}")
        if low is not None and high is not None and low > high:
            raise UserError(f"min_{what}: {low:g} is above max_{what}, {high:g}")
    settings.reward_function()
    if settings.recipe is not None:
        for rung in range(len(settings.rungs) + 1):
            recipe = load_recipe(overrides=settings.rung_keys(rung))  # keys that contradict each other
            if recipe.task != "classify":
                raise UserError(f"recipe: {settings.recipe} is of a detector; a search is for classifiers")


def changed(settings: Settings, **values: Any) -> Settings:
    """The settings with other values."""
    return replace(settings, **values)
