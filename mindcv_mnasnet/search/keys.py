"""The keys of a search's recipe: types, defaults, bounds and meaning."""

from __future__ import annotations

from dataclasses import dataclass

from mindcv_mnasnet.recipe.rule import Use, key
from mindcv_mnasnet.search.reward import EXPONENTS
from mindcv_mnasnet.search.strategy import NAMES

#: Kinds of latency that this machine's cores are timed for: nothing else may run meanwhile.
ON_THIS_MACHINE = ("onnxruntime", "litert", "mindspore")

KEEP = "keep"


@dataclass(frozen=True)
class SearchKeys:
    """what is searched"""

    space: str = key("paper", "preset (paper, a1, open) or YAML file", pattern=".+")
    strategy: str = key("auto", "what proposes networks; auto is by the number of trials", choices=("auto", *NAMES))
    trials: int = key(200, "networks to try", within="[1, inf)")
    generation: int = key(20, "networks proposed at once, then learned from", within="[1, 10000]")
    ahead: int | None = key(
        None, "generations proposed before earlier results are in; None keeps all workers busy", within="[0, 1000]"
    )
    population: int = key(50, "networks that evolution and nsga2 breed from", within="[2, 10000]")
    seed: int = key(42, "seed of every random choice", within="[0, 2147483647]")
    references: tuple[str, ...] = key((), "networks (NAME, FILE.yaml, either @WIDTH) tried beside, as what there is")
    seed_references: bool = key(True, "with a band, begin with the references, as wide as it allows")
    min_params: float | None = key(None, "least parameters", within="[0, inf)")
    max_params: float | None = key(None, "most parameters", within="(0, inf)")
    min_madds: float | None = key(None, "least multiply-adds", within="[0, inf)")
    max_madds: float | None = key(None, "most multiply-adds", within="(0, inf)")


@dataclass(frozen=True)
class RewardKeys:
    """what is rewarded"""

    target_ms: float = key(75.0, "latency wanted; with target_network it is measured", within="(0, inf)")
    target_network: str | None = key(None, "model or recipe whose latency, measured in turns, is wanted", pattern=".+")
    target_factor: float = key(1.0, "share of target_network's latency that is wanted", within="(0, 100]")
    band: float | None = key(None, "least share of the target that is proposed; None proposes all", within="(0, 1)")
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
    latency_threads: int = key(1, "threads of the runtime", within="[1, 1024]")
    latency_batch: int = key(1, "images per call", within="[1, inf)")
    latency_repetitions: int = key(100, "timed calls", within="[1, inf)")
    latency_warm_up: int = key(10, "calls before", within="[0, inf)")
    latency_timeout_s: float = key(120.0, "most seconds for one network", within="(0, inf)")
    latency_command: str | None = key(None, "command line with {model} for latency: command", pattern=".+")
    latency_format: str = key("onnx", "file that the command gets", choices=("onnx", "tflite", "mindir"))
    latency_pattern: str | None = key(None, "regular expression whose group is its milliseconds", pattern=".+")
    latency_json_path: str | None = key(None, "place of the milliseconds in JSON output, a.b.0", pattern=".+")
    latency_scale: float = key(1.0, "milliseconds per unit of the answer: 0.001 for microseconds", within="(0, inf)")
    latency_calls: int = key(1, "calls of latency_command per network, whose median counts", within="[1, 1000]")
    latency_turns: int = key(24, "most turns with target_network", within="[3, 1000]")
    latency_error: float = key(0.01, "standard error of a ratio that ends the turns", within="(0, 1)")
    latency_table: str | None = key(
        None, "file of tools/latency.py build, for latency: table, or for the band", pattern=".+"
    )


@dataclass(frozen=True)
class TrialKeys:
    """how a network is tried"""

    evaluator: str = key("proxy", "where accuracy comes from", choices=("proxy", "supernet", "table", "surrogate"))
    accuracy_table: str | None = key(None, "file of earlier trials, for evaluator: table", pattern=".+")
    recipe: str | None = key(None, "recipe that the winners are trained by; None for the surrogate", pattern=".+")
    data_dir: str | None = key(None, "data of recipe, in place of its own data_dir", pattern=".+", use=Use.PLACE)
    held_out: float = key(0.1, "share of the training images that measures accuracy", within="(0, 1)")
    workers: int = key(1, "trainings at once", within="[1, 1024]", use=Use.PLACE)
    pool: str = key("local", "processes here, or Ray's", choices=("local", "ray"), use=Use.PLACE)
    ray_address: str | None = key(None, "Ray cluster; None starts one here", pattern=".+", use=Use.PLACE)
    trial_timeout_s: float = key(3600.0, "most seconds for one training", within="(0, inf)")
    trial_memory_gb: float | None = key(None, "most memory of one training", within="(0, inf)")
    retries: int = key(1, "new attempts when a worker dies", within="[0, 10]", use=Use.PLACE)
    most_failures: float = key(0.5, "share of failed trials that ends the search", within="(0, 1]")
    finalist_timeout_s: float = key(172800.0, "most seconds for a finalist's training", within="(0, inf)")
    finalists: int = key(0, "networks trained by recipe in the end, beside the references", within="[0, 100]")
    top: int = key(3, "winners to write recipes for", within="[1, 1000]")
    supernet_epochs: int = key(30, "epochs that evaluator: supernet trains", within="[1, inf)")
    supernet_sandwich: bool = key(False, "train the largest and the smallest network in every step too")


@dataclass(frozen=True)
class PlaceKeys:
    """where it is kept"""

    search_dir: str = key("runs", "folder of search folders", pattern=".+", use=Use.PLACE)
    run_name: str | None = key(
        None, "folder below search_dir", pattern=r"(?!\.+$)[^/\\\0-\37]+", form="a folder name", use=Use.PLACE
    )


SECTIONS: tuple[type, ...] = (SearchKeys, RewardKeys, LatencyKeys, TrialKeys, PlaceKeys)
