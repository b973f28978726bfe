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
from mindcv_mnasnet.recipe.values import is_unset, key_table, keys_for, typed
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
from mindcv_mnasnet.search.named_files import FILES, from_folder, from_here, is_file
from mindcv_mnasnet.search.reward import EXPONENTS, Reward
from mindcv_mnasnet.search.sections import read_proxy, read_rungs, read_target
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
        """A path that the file names: from the file's folder where it is there, else from the working directory."""
        path = with_home(name)
        near = self.origin.parent / path
        return path if path.exists() and not near.exists() else near

    def settled(self) -> dict[str, Any]:
        """What is chosen by numbers that a search that goes on may change, and has to stay."""
        return {"strategy": self.chosen_strategy, "ahead": self.generations_ahead}

    def identity(self) -> dict[str, Any]:
        """What decides the outcome, without places and numbers of workers, as YAML holds it."""
        places = keys_for(Use.PLACE, SECTIONS)
        values = {name: getattr(self, name) for name in key_table(SECTIONS) if name not in places} | self.settled()
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {**plain, "proxy": dict(self.proxy), "rungs": [dict(rung) for rung in self.rungs]}

    def dump(self, folder: Path | None = None) -> str:
        """YAML of all that differs from the defaults, with whole paths, and of ``settled``.

        Args:
            folder: where the file will be; its own files are named from there, so that it can be moved.
        """
        table = key_table(SECTIONS)
        values = {name: getattr(self, name) for name in table if getattr(self, name) != table[name].default}
        values |= self.settled()
        for name in FILES:
            if name in values and is_file(name, path := self.beside(str(values[name]))):
                values[name] = str(from_folder(path.resolve(), folder))
        if self.data_dir is not None:
            values["data_dir"] = str(with_home(self.data_dir).absolute())
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


def load_settings(
    path: str | Path | None = None, overrides: Mapping[str, Any] | None = None, stored: bool = False
) -> Settings:
    """A search recipe from its file and the command line; ``stored`` is a search's own file.

    Raises:
        UserError: unknown keys, wrong types, impossible values, or keys that contradict each other.
    """
    content = {} if path is None else read_recipe_file(path)
    content |= read_target(content, str(path))
    proxy = read_proxy(content.pop("proxy", None), str(path), stored)
    rungs = read_rungs(content.pop("rungs", None), str(path), stored)
    content.pop("target", None)
    values = {name: typed(name, raw, str(path), SECTIONS) for name, raw in content.items()}
    names = content.get("references")
    if names is not None and not is_unset(names):
        values["references"] = (names,) if isinstance(names, str) else tuple(map(str, names))  # paths may have blanks
    given = {name: typed(name, raw, "command line", SECTIONS) for name, raw in (overrides or {}).items()}
    values |= {name: from_here(name, value) for name, value in given.items()}
    settings = Settings(**values, proxy=proxy, rungs=rungs, origin=Path(path or "search.yaml"))
    _check_together(settings)
    return settings


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
