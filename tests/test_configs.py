"""Every recipe file under configs/: it loads, is minimal, says what it is for, and is the network it claims to be."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from mindcv_facts import MINDCV

from mindcv_mnasnet.latency.published import UNIFORM
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import diff, load_recipe
from mindcv_mnasnet.recipe.values import key_table
from mindcv_mnasnet.recipe.yaml_files import read_layers, read_recipe_file
from mindcv_mnasnet.search.settings import SECTIONS, load_settings
from mindcv_mnasnet.search.space_files import load_space
from mindcv_mnasnet.train.schedule import learning_rates

ROOT = Path(__file__).parents[1]
SEARCHES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs" / "search").glob("*.yaml"))
SPACES = sorted((ROOT / "configs" / "search" / "spaces").glob("*.yaml"))
_ALL = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml"))
FILES = [name for name in _ALL if not name.startswith("configs/search/")]

# family, width: parameters and multiply-adds at 224 with 1000 classes. Whole numbers are exact (counted in models built
# by timm and torchvision); the others are as printed, in millions: the authors' table for A1 (by their rule of
# counting), MindCV's parameters with statistics for B1 x 1.4.
GOLDEN = {
    ("a1", 1.4): (6.1, 591.5),
    ("a1", 1.0): (3887038, 311579072),
    ("a1", 0.75): (2.9, 226.7),
    ("a1", 0.5): (2.1, 105.2),
    ("a1", 0.35): (1.7, 63.2),
    ("b1", 1.4): (7.16, None),
    ("b1", 1.3): (6282256, None),
    ("b1", 1.0): (4383312, 314415872),
    ("b1", 0.75): (3170208, 215493104),
    ("b1", 0.5): (2218512, 104455968),
    ("small", 1.0): (2030264, 68339184),
    (None, 1.0): (933800, 442863616),  # configs/cifar10: counted by hand, layer by layer, as the next one
    "mnasnet_cifar10_searched": (777776, 269924096),
}


def test_the_promised_recipes_are_there():
    names = {Path(name).name for name in FILES}
    assert {f"mnasnet_{width}_ascend.yaml" for width in ("0.5", "0.75", "1.0", "1.3", "1.4")} <= names
    assert {f"mnasnet_a1_{width}_authors.yaml" for width in ("1.4", "1.0", "0.75", "0.5", "0.35")} <= names
    assert {"mnasnet_b1_1.0_authors.yaml", "mnasnet_small_authors.yaml"} <= names


@pytest.mark.parametrize("name", FILES)
def test_a_recipe_file_loads_round_trips_and_repeats_no_default(name, tmp_path):
    recipe = load_recipe(ROOT / name)
    (tmp_path / "again.yaml").write_text(recipe.dump())
    assert load_recipe(tmp_path / "again.yaml") == recipe
    own = read_recipe_file(ROOT / name)
    base = {} if "base" not in own else read_layers((ROOT / name).parent / own.pop("base"))
    idle = [key for key in own if key not in base and getattr(recipe, key) == key_table()[key].default]
    assert idle == []
    assert [key for key in own if key in base and own[key] == base[key][0]] == []


@pytest.mark.parametrize(("expand", "kernel"), UNIFORM)
def test_a_uniform_recipe_is_a1_with_one_kind_of_layer(expand, kernel):
    recipe = load_recipe(ROOT / f"configs/mnasnet/mnasnet_uniform_mbconv{expand}_k{kernel}.yaml")
    layers, a1 = recipe.network(1000).layers(), load_recipe(ROOT / "configs/mnasnet/mnasnet_a1_1.0_authors.yaml")
    assert {(layer.expand, layer.kernel, layer.se_width) for layer in layers} == {(expand, kernel, 0)}
    theirs = a1.network(1000).layers()
    assert [(one.out_width, one.stride) for one in layers] == [(one.out_width, one.stride) for one in theirs]
    assert set(diff(recipe, a1)) <= {"blocks", "model"}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_loads_round_trips_and_repeats_no_default(name, tmp_path):
    settings = load_settings(ROOT / name)
    (tmp_path / "again.yaml").write_text(settings.dump())
    again = load_settings(tmp_path / "again.yaml")
    assert (again.beside(again.space), again.proxy) == (settings.beside(settings.space).resolve(), settings.proxy) or (
        again.space == settings.space
    )
    content = read_recipe_file(ROOT / name)
    table, mappings = key_table(SECTIONS), ("proxy", "rungs", "target")
    idle = [key for key in content if key not in mappings and getattr(settings, key) == table[key].default]
    assert idle == []
    header = "".join(re.findall(r"^#.*\n", (ROOT / name).read_text(), flags=re.MULTILINE))
    assert f"python tools/search.py --config {name}" in header
    assert "# Hardware: " in header
    assert "# Expected: " in header
    assert "TODO" not in header


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_space_file_loads(path):
    assert load_space(path).size > 1000


@pytest.mark.parametrize("name", FILES)
def test_a_recipe_files_header_gives_command_hardware_and_expectation(name):
    header = "".join(re.findall(r"^#.*\n", (ROOT / name).read_text(), flags=re.MULTILINE))
    commands = re.findall(r"python (train|validate)\.py --config (\S+)", header)
    assert commands
    assert {path for _, path in commands} == {name}
    assert "# Hardware: " in header
    assert "# Expected: " in header


CLASSIFIERS = [name for name in FILES if not name.startswith("configs/detection/")]  # those have a test of their own


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_recipe_is_the_network_it_claims_to_be(name):
    network = load_recipe(ROOT / name).network(1000)
    if "_uniform_" in name:
        return  # table 6 gives no sizes; see test_a_uniform_recipe_is_a1_with_one_kind_of_layer
    cost = network_cost(replace(network, num_classes=1000, image_size=224, stem_stride=2))
    params, madds = GOLDEN.get(Path(name).stem) or GOLDEN[(network.family, network.width_mult)]
    if isinstance(params, int):
        assert cost.params == params
    elif network.family == "a1":
        assert round(cost.params / 1e6, 1) == params
        assert round(cost.madds_authors_rule / 1e6, 1) == madds
    else:
        assert cost.params_with_bn / 1e6 == pytest.approx(params, abs=0.01)
    if isinstance(madds, int):
        assert cost.madds == madds


@pytest.mark.parametrize("name", FILES)
def test_a_recipes_schedule_reaches_its_end(name):
    recipe = load_recipe(ROOT / name)
    plan = Plan.make(
        recipe, 1437 if recipe.dataset == "digits" else 50000, 100, world_size=8 if recipe.distribute else 1
    )
    rates = learning_rates(recipe, plan)
    assert recipe.warmup_epochs < recipe.epoch_size
    assert rates[-1] < 0.05 * plan.peak_lr
    if recipe.scheduler == "cosine_decay":
        begins = recipe.warmup_epochs if recipe.decay_from == "warmup" else 0
        assert begins + recipe.decay_epochs == recipe.epoch_size


@pytest.mark.parametrize("width", ["0.5", "0.75", "1.0", "1.3", "1.4"])
def test_mindcvs_recipes_under_their_names_are_mindcvs(width):
    name = f"mnasnet_{width}_ascend.yaml"
    changed = diff(load_recipe(ROOT / "configs" / "mnasnet" / name), load_recipe(overrides=MINDCV[name]))
    assert set(changed) <= {"val_while_train"}
