"""Jobs compiled for NPUs in dry runs, with bounds on what they launch; ``make test-ascend`` runs these."""

from __future__ import annotations

from pathlib import Path

import pytest

from mindcv_mnasnet.dry_run.report import Report
from mindcv_mnasnet.dry_run.run import dry_run, dry_run_search, follow
from mindcv_mnasnet.errors import JobError
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.search.settings import load_settings

pytestmark = pytest.mark.ascend
MADE_UP = """
import mindspore as ms
import numpy as np
from mindspore import nn, ops

class NoSuchOperator(ops.PrimitiveWithInfer):
    def infer_shape(self, x):
        return x

    def infer_dtype(self, x):
        return x

class Network(nn.Cell):
    def __init__(self):
        super().__init__()
        self.made_up = NoSuchOperator("NoSuchOperator")

    def construct(self, x):
        return ops.relu(self.made_up(x))

ms.set_device("Ascend")
ms.set_context(mode=ms.GRAPH_MODE, jit_config={"jit_level": "O1"})
Network()(ms.Tensor(np.zeros((2, 2), np.float32)))
"""
SPACE = """
stem: 8
strides: [2, 2]
filters: [16, 24]
layers: [1, 1]
decisions:
  operator: [mbconv]
  expansion: [1, 3]
  kernel: [3, 5]
  se: [0, 0.25]
  skip: [identity]
"""
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
# The sample: the recipe that this project exists for at both levels, alone and in a group; the recipe with everything
# (AMP, EMA, mixing, accumulation); another optimizer; quantization. ``make test-all`` has every recipe.
MAIN = "mnasnet/mnasnet_0.75_ascend"


def run(name: str, devices: int = 1, level: str = "O1", phases: tuple[str, ...] = ("train",), **keys) -> Report:
    recipe = load_recipe(CONFIGS / f"{name}.yaml", {"batch_size": 32, **keys})
    return dry_run(recipe, name, devices, level, phases)


@pytest.mark.parametrize(("level", "most"), [("O0", 800), ("O1", 700)])
def test_one_device_launches_few_kernels(level, most):
    report = run(MAIN, level=level, phases=("train", "validate"))
    train = report.phase("train")
    assert train.launched <= most
    assert train.kernels["TensorMove"] <= 10
    assert train.collectives == 0
    assert report.phase("validate").launched <= 220
    assert report.peak_bytes > 0


def test_eight_devices_share_everything_in_one_collective():
    train = run(MAIN, devices=8).phase("train")
    assert train.launched <= 850
    assert 1 <= train.collectives <= 3
    assert train.kernels["TensorMove"] <= 10
    assert train.collective_bytes > 4 * 3_000_000


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_modern_recipe_runs_with_mixed_precision(dtype):
    train = run("mnasnet/mnasnet_a1_1.0_modern", devices=8, amp_dtype=dtype).phase("train")
    assert train.launched <= 1800
    assert train.collectives <= 3
    assert train.kernels["TensorMove"] <= 10


def test_accumulation_and_averages_of_weights():
    report = run(MAIN, devices=8, gradient_accumulation_steps=2, ema=True, clip_grad=True)
    assert report.phase("accumulate").collectives == 0
    assert report.phase("train").launched <= 950


def test_every_optimizer_updates_rows():
    assert run("mnasnet/mnasnet_small_timm", devices=8).phase("train").launched <= 1500


def test_quantization_aware_training_compiles():
    assert run("digits/mnasnet_small_digits_qat").phase("train").launched <= 3300


def test_the_whole_job_sinks_its_data_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = run("digits/mnasnet_small_digits", phases=("export", "loop"), dataset_sink_mode=True, ema=False)
    assert 0 < report.phase("export").launched <= 200
    assert report.facts["loop_seconds"] > 0
    assert report.errors == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("evaluator", "most"), [("proxy", {"train": 200, "validate": 60}), ("supernet", {"gradients": 250, "update": 400})]
)
def test_what_a_search_trains_compiles(tmp_path, evaluator, most):
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    settings = load_settings(CONFIGS / "search/digits_cpu.yaml", {"evaluator": evaluator, "space": str(space)})
    report = dry_run_search(settings, "digits_cpu")
    assert {phase.name: phase.launched <= most[phase.name] for phase in report.phases} == dict.fromkeys(most, True)


def test_an_operator_without_a_kernel_is_named_with_the_line_of_our_code(tmp_path):
    script = tmp_path / "mindcv_mnasnet" / "made_up.py"
    script.parent.mkdir()
    script.write_text(MADE_UP)
    line = MADE_UP[: MADE_UP.index("self.made_up(x)")].count("\n") + 1
    with pytest.raises(JobError, match=rf"NoSuchOperator.*\(mindcv_mnasnet/made_up\.py:{line}\)"):
        follow(Report("made up", "O1", 1), [str(script)])
