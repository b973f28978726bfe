"""Recipes: what is accepted, what is refused and in which words, and that nothing is lost on the way."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from mindcv_facts import MINDCV

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.command_line import Parser, parse_command_line
from mindcv_mnasnet.recipe.recipe import Recipe, diff, load_recipe
from mindcv_mnasnet.recipe.rule import Use
from mindcv_mnasnet.recipe.values import Key, in_interval, key_table, keys_for

REFERENCE = Path(__file__).with_name("reference")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", MINDCV)
def test_mindcvs_files_load_unmodified(name, tmp_path):
    recipe = load_recipe(written(tmp_path, yaml.safe_dump(MINDCV[name])))
    expected = {
        key: float(value) if key in ("min_lr", "weight_decay", "eps") else value for key, value in MINDCV[name].items()
    }
    assert {key: recipe.to_dict()[key] for key in expected} == expected


@pytest.mark.parametrize("name", keys_for(Use.PLACE))
def test_keys_of_place_do_not_change_what_is_computed(name):
    key = key_table()[name]
    other = {bool: not key.default, str: "other", int: 3}[key.kinds[0]]
    choices = [choice for choice in key.rule.choices if choice != key.default]
    value = ["lr"] if key.many else (choices or [other])[0]
    recipe = load_recipe(overrides={name: value})
    assert recipe != load_recipe()
    assert recipe.fingerprint() == load_recipe().fingerprint()


def test_every_key_of_the_network_changes_what_is_computed():
    keys = keys_for(Use.NETWORK | Use.CONVENTION)
    assert not set(keys) & set(keys_for(Use.PLACE))
    assert {"model", "blocks", "padding"} <= set(keys)


def test_every_option_of_mindcv_is_a_key():
    options = set(json.loads((REFERENCE / "mindcv_option_names.json").read_text()))
    assert options - set(key_table()) == {"c", "config"}


def numbers_for(key: Key) -> list[str]:
    """Texts of numbers that a numeric key accepts."""
    candidates = ("200", "0.5", "1", "2", "7", "30", "100")
    whole = [text for text in candidates if float in key.kinds or float(text).is_integer()]
    if key.name == "mean":
        whole = [text for text in whole if float(text) > 1]  # shares of 1 are refused
    return [text for text in whole if key.rule.within is None or in_interval(float(text), key.rule.within)]


@st.composite
def settings(draw) -> tuple[str, str]:
    """A key that can be set and a text that it accepts."""
    free = [key for key in key_table().values() if key.rule.fixed is None and key.name != "allow_changes"]
    key = draw(st.sampled_from(free))
    if key.kinds == (bool,):
        return key.name, draw(st.sampled_from(("True", "False", "true", "no", "1")))
    if key.kinds == (str,) and key.many:
        return key.name, "r1_k3_s11_e1_o16 r2_k3_s22_e6_o24"
    if key.rule.choices:
        return key.name, draw(st.sampled_from(key.rule.choices))
    if key.kinds == (str,):
        return key.name, "randaug-m5-n2" if key.name == "auto_augment" else draw(st.sampled_from(("a", "b.c", "12")))
    count = key.rule.length or (3 if key.many else 1)
    return key.name, " ".join(sorted((draw(st.sampled_from(numbers_for(key))) for _ in range(count)), key=float))


@given(st.lists(settings(), max_size=8, unique_by=lambda pair: pair[0]))
def test_every_way_of_saying_a_recipe_gives_the_same_recipe(tmp_path_factory, pairs):
    argv = [
        word for name, text in pairs for word in (f"--{name}", *(text.split() if key_table()[name].many else [text]))
    ]
    try:
        recipe = load_recipe(argv=argv)
    except UserError as error:
        known = ("contradict", "means nothing with task", "has to be below")  # of keys that do not go together
        assume(not any(words in str(error) for words in known))
        raise
    path = written(tmp_path_factory.mktemp("r"), recipe.dump())
    assert load_recipe(path) == load_recipe(overrides=dict(pairs)) == Recipe.from_dict(recipe.to_dict()) == recipe
    assert load_recipe(path).dump() == recipe.dump()
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))).fingerprint() == recipe.fingerprint()


@pytest.mark.parametrize(
    "words",
    [
        ["--scale", "0.2,1.0"],
        ["--scale", "0.2", "1.0"],
        ["--scale", "[0.2, 1.0]"],
        ["--scale=(0.2, 1.0)"],
        ["--scale", "0.2,", "1"],
    ],
)
def test_lists_may_be_written_in_any_way(words):
    assert load_recipe(argv=words).scale == (0.2, 1.0)


@pytest.mark.parametrize(
    ("text", "value"), [("True", True), ("false", False), ("0", False), ("1", True), ("yes", True), ("NO", False)]
)
def test_booleans_may_be_written_in_any_way(text, value):
    assert load_recipe(argv=["--shuffle", text]).shuffle is value
    assert load_recipe(argv=["--ema", "--lr", "0.1"]).ema is True


def test_the_command_line_overrides_the_file_and_none_unsets(tmp_path):
    path = written(tmp_path, "lr: 0.5\nauto_augment: autoaug\ncolor_jitter: 0.3\nbatch_size: 64\n")
    recipe = load_recipe(
        path, argv=["--lr=0.25", "--auto_augment", "None", "--color_jitter", "null", "--batch_size", "None"]
    )
    assert (recipe.lr, recipe.auto_augment, recipe.color_jitter, recipe.batch_size) == (0.25, None, 0.0, 128)
    assert "auto_augment" not in recipe.dump()
    assert load_recipe(argv=["--config", str(path)]).lr == 0.5


def test_the_fingerprint_ignores_places_and_ways_of_writing_and_nothing_else():
    plain = load_recipe()
    moved = load_recipe(argv=["--data_dir", "/d", "--run_name", "x", "--ckpt_save_dir", "/r", "--lr", "1e-3"])
    assert moved.fingerprint() == plain.fingerprint()
    assert diff(plain, moved) == []
    changed = load_recipe(argv=["--lr", "2e-3", "--seed", "1"])
    assert changed.fingerprint() != plain.fingerprint()
    assert diff(plain, changed) == ["seed", "lr"]


def test_a_changed_copy_dumps_its_change(tmp_path):
    changed = dataclasses.replace(load_recipe(), lr=0.5)
    assert load_recipe(written(tmp_path, changed.dump())) == changed


def test_a_recipe_is_frozen_and_its_network_takes_every_override():
    recipe = load_recipe(
        argv=[
            "--model",
            "a1",
            "--width_mult",
            "0.5",
            "--stem_stride",
            "1",
            "--image_resize",
            "32",
            "--drop_rate",
            "0",
            "--bn_eps",
            "1e-5",
        ]
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.lr = 1.0
    network = recipe.network(10)
    assert (network.family, network.num_classes, network.width_mult, network.stem_stride) == ("a1", 10, 0.5, 1)
    assert (network.image_size, network.dropout, network.bn_eps, network.bn_momentum) == (32, 0.0, 1e-5, 0.99)
    assert load_recipe(argv=["--num_classes", "7"]).network(10).num_classes == 7
    with pytest.raises(UserError, match="mnasnet_100"):
        load_recipe(argv=["--model", "mnasnet_10"]).network(10)
    with pytest.raises(UserError, match="num_classes"):
        load_recipe().network()


def test_gray_input_averages_the_statistics_of_rgb():
    mean, std = load_recipe(argv=["--in_channels", "1"]).pixel_statistics()
    assert mean == pytest.approx([(123.675 + 116.28 + 103.53) / 3])
    assert len(std) == 1
    assert load_recipe().pixel_statistics()[0] == (123.675, 116.28, 103.53)


def test_programs_keep_their_own_options():
    parser = Parser(prog="x")
    parser.add_argument("--json")
    config, overrides, options = parse_command_line(["-c", "a.yaml", "--json", "out", "--lr", "1"], parser)
    assert (config, overrides, options.json) == ("a.yaml", {"lr": "1"}, "out")


def test_the_help_describes_every_key(capsys):
    with pytest.raises(SystemExit):
        parse_command_line(["--help"])
    described = capsys.readouterr().out
    assert [name for name in key_table() if f"--{name} " not in described] == []


# --- recipes that build on another ----------------------------------------------------------------------------------


def write_files(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_a_recipe_builds_on_another_and_wins(tmp_path):
    (tmp_path / "sub").mkdir()
    write_files(tmp_path, grand="lr: 0.1\nbatch_size: 8\nopt: sgd\n", parent="base: grand.yaml\nlr: 0.2\n")
    write_files(tmp_path / "sub", child="base: ../parent.yaml\nbatch_size: 16\n")
    recipe = load_recipe(tmp_path / "sub" / "child.yaml", {"momentum": 0.5})
    assert (recipe.lr, recipe.batch_size, recipe.opt, recipe.momentum) == (0.2, 16, "sgd", 0.5)
    assert {"lr", "batch_size", "opt", "momentum"} <= recipe.given
    flat = load_recipe(overrides={"lr": 0.2, "batch_size": 16, "opt": "sgd", "momentum": 0.5})
    assert recipe.fingerprint() == flat.fingerprint()
    assert "base" not in recipe.dump()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a": "base: a.yaml\n"}, "builds on itself"),
        ({"a": "base: b.yaml\n", "b": "base: a.yaml\n"}, "builds on itself"),
        ({"a": "base: nowhere.yaml\n"}, "nowhere.yaml"),
        ({"a": "base: [b.yaml, c.yaml]\n"}, "names one recipe file"),
        ({"a": "base: b.yaml\n", "b": "lr: -1\n"}, "b.yaml"),
    ],
)
def test_an_impossible_base_is_one_sentence(tmp_path, files, words):
    write_files(tmp_path, **files)
    with pytest.raises(UserError, match=words):
        load_recipe(tmp_path / "a.yaml")
