"""What recipes refuse, and in which words."""

from pathlib import Path

import pytest

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.recipe import load_recipe


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def refusal(*argv: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(argv=argv)
    return str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        "--lr -1", "--lr -1e-3", "--lr 0", "--lr nan", "--lr inf", "--lr fast", "--batch_size 0", "--batch_size 2.5",
        "--batch_size True", "--label_smoothing 1.5", "--scale 1 0.08", "--scale 0.08", "--scale 0.1 0.2 0.3",
        "--crop_pct 0", "--epoch_size 0", "--momentum 1", "--hflip 1.1", "--drop_rate 1", "--seed -1", "--ema maybe",
        "--std 0.229 0.224 0.225", "--freeze 9", "--freeze head", "--run_name a/b", "--run_name ..", "--stem_stride 3",
        "--val_fraction 1", "--auto_augment strong", "--amp_level O4", "--multi_step_decay_milestones 30 20",
        "--mode 1", "--pretrained maybe", "--resume_opt True", "--dataset_download True", "--aux_factor 0.4",
        "--reduction sum", "--aug_splits 3", "--opt lion", "--scheduler one_cycle", "--re_value random",
        "--re_value nan", "--amp_cast_list x", "--in_channels 4", "--decay_rate 0", "--gradient_accumulation_steps 0",
    ],
)  # fmt: skip
def test_an_impossible_value_is_refused_with_key_value_place_and_what_is_allowed(words):
    option, value = words.split()[:2]
    sentence = refusal(*words.split())
    assert sentence.startswith(f"{option[2:]}: ")
    assert value in sentence
    assert "(command line)" in sentence
    assert "allowed: " in sentence


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("--lr 0.1 --lr_per_256 0.016", ("lr", "lr_per_256")),
        ("--min_lr 0.1 --lr 0.01", ("min_lr", "lr")),
        ("--resume runs/a --init_from b.ckpt", ("resume", "init_from")),
        ("--pretrained True --init_from b.ckpt", ("pretrained", "init_from")),
        ("--ckpt_path a.ckpt --init_from b.ckpt", ("ckpt_path", "init_from")),
        ("--use_nesterov True --opt rmsprop", ("use_nesterov", "opt")),
        ("--val_fraction 0.1 --val_labels l.txt", ("val_fraction", "val_labels")),
        ("--mean 1 2", ("mean", "std")),
        ("--eval_crop tf_square --val_resize 256", ("eval_crop", "val_resize")),
        (
            "--scheduler exponential_decay --decay_epochs 9 --decay_every_epochs 2.4",
            ("decay_epochs", "decay_every_epochs"),
        ),
    ],
)
def test_a_contradictory_pair_is_refused_by_both_names(words, names):
    sentence = refusal(*words.split())
    assert all(f"{name}: " in sentence for name in names)


def test_unsetting_one_side_resolves_a_contradiction(tmp_path):
    path = written(tmp_path, "lr_per_256: 0.016\n")
    with pytest.raises(UserError, match="contradict"):
        load_recipe(path, argv=["--lr", "0.1"])
    assert load_recipe(path, argv=["--lr", "0.1", "--lr_per_256", "None"]).lr == 0.1


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("--lrr", "lr"),
        ("--batch-size", "batch_size"),
        ("--epochs", "epoch_size"),
        ("--lable_smoothing", "label_smoothing"),
    ],
)
def test_an_unknown_key_names_the_nearest(word, near, tmp_path):
    assert f"nearest known key is {near}" in refusal(word, "1")
    with pytest.raises(UserError, match=f"unknown key .*recipe.yaml.*{near}"):
        load_recipe(written(tmp_path, f"{word[2:]}: 1\n"))


def test_misuse_of_the_command_line_is_one_sentence():
    assert "--config" in refusal("recipe.yaml")
    assert "--lr" in refusal("--lr")
    assert "foo" in refusal("--allow_changes", "foo")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"), ("# nothing\n", "empty"), ("- 1\n", "not a mapping"), ("lr: [1\n", "not valid YAML"),
        ("lr: 0.1\nopt: sgd\nlr: 0.1\n", "line 3: key lr is given twice"), ("a: 1: 2", "not valid YAML"),
        ("!!python/object/apply:os.system [ls]", "not valid YAML"), ("lr: {a: 1}", "wrong type"),
        ("model: 5", "wrong type"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_sentence_with_its_name(text, says, tmp_path):
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=says) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UserError, match=r"recipe .*: (No such file|Is a directory)"):
            load_recipe(path)
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="not a text file"):
        load_recipe(tmp_path / "x.yaml")
