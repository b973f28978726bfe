"""The recipe of a search: its keys, where they are read from, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.keys import key
from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe, read_recipe_file, to_yaml
from mindcv_mnasnet.recipe.values import key_table, typed
from mindcv_mnasnet.search.reward import EXPONENTS, Reward
from mindcv_mnasnet.search.space import Limits, Space
from mindcv_mnasnet.search.space_files import load_space
from mindcv_mnasnet.search.strategy import NAMES


@dataclass(frozen=True)
class SearchKeys:
    """what is searched"""

    space: str = key("paper", "preset (paper, a1, open) or YAML file", pattern=".+")
    strategy: str = key("controller", "what proposes networks", choices=NAMES)
    trials: int = key(200, "networks to try", within="[1, inf)")
    generation: int = key(20, "networks proposed at once, then learned from", within="[1, 10000]")
    population: int = key(50, "networks that evolution and nsga2 breed from", within="[2, 10000]")
    seed: int = key(42, "seed of every random choice", within="[0, 2147483647]")
    references: tuple[str, ...] = key((), "models (NAME or NAME@WIDTH) tried beside, as what there is already")
    min_params: float | None = key(None, "least parameters", within="[0, inf)")
    max_params: float | None = key(None, "most parameters", within="(0, inf)")
    min_madds: float | None = key(None, "least multiply-adds", within="[0, inf)")
    max_madds: float | None = key(None, "most multiply-adds", within="(0, inf)")


@dataclass(frozen=True)
class RewardKeys:
    """what is rewarded"""

    target_ms: float = key(75.0, "latency wanted", within="(0, inf)")
    reward: str = key("soft", "exponents of latency above and below the target", choices=tuple(EXPONENTS))
    alpha: float | None = key(None, "exponent below the target; None is the reward's", within="[-10, 0]")
    beta: float | None = key(None, "exponent above the target; None is the reward's", within="[-10, 0]")


@dataclass(frozen=True)
class LatencyKeys:
    """where latency comes from"""

    latency: str = key(
        "onnxruntime",
        "runtime on this machine, a command, or a table",
        choices=("onnxruntime", "litert", "mindspore", "command", "table", "surrogate"),
    )
    latency_threads: int = key(1, "threads of the runtime", within="[1, inf)")
    latency_batch: int = key(1, "images per call", within="[1, inf)")
    latency_repetitions: int = key(100, "timed calls", within="[1, inf)")
    latency_warm_up: int = key(10, "calls before", within="[0, inf)")
    latency_timeout_s: float = key(120.0, "most seconds for one network", within="(0, inf)")
    latency_command: str | None = key(None, "command line with {model} for latency: command", pattern=".+")
    latency_format: str = key("onnx", "file that the command gets", choices=("onnx", "tflite", "mindir"))
    latency_pattern: str | None = key(None, "regular expression whose group is its milliseconds", pattern=".+")
    latency_json_path: str | None = key(None, "place of the milliseconds in JSON output, a.b.0", pattern=".+")
    latency_scale: float = key(1.0, "milliseconds per unit of the answer: 0.001 for microseconds", within="(0, inf)")
    latency_table: str | None = key(None, "file of tools/latency.py build, for latency: table", pattern=".+")


@dataclass(frozen=True)
class TrialKeys:
    """how a network is tried"""

    evaluator: str = key("proxy", "where accuracy comes from", choices=("proxy", "supernet", "surrogate"))
    recipe: str | None = key(None, "recipe that the winners are trained by; None for the surrogate", pattern=".+")
    data_dir: str | None = key(None, "data of recipe, in place of its own data_dir", pattern=".+", place=True)
    held_out: float = key(0.1, "share of the training images that measures accuracy", within="(0, 1)")
    workers: int = key(1, "trainings at once", within="[1, 1024]", place=True)
    pool: str = key("local", "processes here, or Ray's", choices=("local", "ray"), place=True)
    ray_address: str | None = key(None, "Ray cluster; None starts one here", pattern=".+", place=True)
    trial_timeout_s: float = key(3600.0, "most seconds for one training", within="(0, inf)")
    trial_memory_gb: float | None = key(None, "most memory of one training", within="(0, inf)")
    retries: int = key(1, "new attempts when a worker dies", within="[0, 10]", place=True)
    most_failures: float = key(0.5, "share of failed trials that ends the search", within="(0, 1]")
    top: int = key(3, "winners to write recipes for", within="[1, 1000]")
    supernet_epochs: int = key(30, "epochs that evaluator: supernet trains", within="[1, inf)")
    supernet_sandwich: bool = key(False, "train the largest and the smallest network in every step too")


@dataclass(frozen=True)
class PlaceKeys:
    """where it is kept"""

    search_dir: str = key("runs", "folder of search folders", pattern=".+", place=True)
    run_name: str | None = key(
        None, "folder below search_dir", pattern=r"(?!\.+$)[^/\\]+", form="a folder name", place=True
    )


SECTIONS: tuple[type, ...] = (SearchKeys, RewardKeys, LatencyKeys, TrialKeys, PlaceKeys)


@dataclass(frozen=True)
class Settings(PlaceKeys, TrialKeys, LatencyKeys, RewardKeys, SearchKeys):
    """A search, complete and checked.

    ``proxy``: recipe keys that trials change in ``recipe``. ``origin``: the file, whose folder relative paths start at.
    """

    proxy: Mapping[str, Any] = field(default_factory=dict)
    origin: Path = Path("search.yaml")

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

    def open_space(self) -> Space:
        """The space, whose networks are as ``recipe`` has them: number of classes, image size, stem's stride, ...

        For the surrogate without a recipe: 224 pixels and 1000 classes.
        """
        fields: dict[str, Any] = {}
        if self.recipe is not None:
            recipe = self.final_recipe()
            network = recipe.network(_num_classes(recipe))
            names = (
                "stem_stride",
                "head",
                "padding",
                "bn_eps",
                "bn_momentum",
                "dropout",
                "drop_connect",
                "in_channels",
            )
            fields = {name: getattr(network, name) for name in (*names, "in_channels", "num_classes")}
            fields["image_size"] = recipe.image_resize
        return load_space(self.space if "." not in self.space else self.beside(self.space), **fields)

    def beside(self, name: str) -> Path:
        """A path that the file names: from the working directory where it is there, else from the file's folder."""
        path = Path(name).expanduser()
        return path if path.is_absolute() or path.exists() else self.origin.parent / path

    def identity(self) -> dict[str, Any]:
        """What decides the outcome, without places and numbers of workers, as YAML holds it."""
        values = {name: getattr(self, name) for name, one in key_table(SECTIONS).items() if not one.rule.place}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {**plain, "proxy": dict(self.proxy)}

    def dump(self) -> str:
        """YAML of all that differs from the defaults; paths as they are found from here."""
        table = key_table(SECTIONS)
        values = {name: getattr(self, name) for name in table if getattr(self, name) != table[name].default}
        for name in ("recipe", "latency_table", "space"):
            if name in values and (path := self.beside(str(values[name]))).exists():
                values[name] = str(path.resolve())
        kept = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        if self.proxy:
            kept["proxy"] = dict(self.proxy)
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
    if not isinstance(proxy, dict):
        raise UserError(f"proxy ({path}) is not a mapping of recipe keys")
    for name, raw in proxy.items():
        typed(str(name), raw, f"proxy of {path}")
    values = {name: typed(name, raw, str(path), SECTIONS) for name, raw in content.items()}
    values |= {name: typed(name, raw, "command line", SECTIONS) for name, raw in (overrides or {}).items()}
    settings = Settings(**values, proxy=dict(proxy), origin=Path(path or "search.yaml"))
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    if settings.evaluator != "surrogate" and settings.recipe is None:
        raise UserError(f"recipe: evaluator {settings.evaluator} needs the recipe that winners are trained by")
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
        load_recipe(overrides=settings.proxy_keys(settings.final_recipe()))  # keys that contradict each other


def changed(settings: Settings, **values: Any) -> Settings:
    """The settings with other values."""
    return replace(settings, **values)
