"""What commands are asked for and cannot mean: one sentence that names the option, exit code 2, and nothing is done."""

from __future__ import annotations

import pytest
import yaml
from image_files import numbered_folder
from processes import captured
from search_files import SPACE, write_search

from mindcv_mnasnet.commands import check_device, convert_boxes, dry_run, latency, pack, profile, train
from mindcv_mnasnet.commands import search as search_command
from mindcv_mnasnet.errors import UserError, run_cli
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.search.space_files import load_space


@pytest.mark.parametrize(
    ("program", "words", "sentence"),
    [
        (search_command, "-c FILE --proxy_check 0", "--proxy_check"),
        (search_command, "-c FILE --resume a --report b", "not allowed with"),
        (search_command, "-c FILE --dry_run --images_per_second nan", "--images_per_second: nan"),
        (search_command, "-c FILE --images_per_second 5", "--images_per_second belongs to --dry_run"),
        (search_command, "-c FILE --to somewhere", "--to belongs to --compare"),
        (search_command, "--report a --trials 5", "--trials: --report has no use for it"),
        (search_command, "-c FILE --run_name a\nb", "run_name"),
        (check_device, "--parts ", "--parts: ''"),
        (convert_boxes, "cvat a b", "command line: argument"),
        (profile, "--modl x", "command line: unrecognized"),
        (profile, "--table --width_mult 0.5", "width_mult: --table has no use for it"),
        (profile, "--table --layers", "layers: --table has no use for it"),
        (latency, "measure mnasnet_small --timeout_s nan", "--timeout_s: nan"),
        (latency, "measure mnasnet_small --warm_up -1", "--warm_up: -1"),
        (latency, "measure mnasnet_small --threads 99999", "--threads: 99999"),
        (latency, "measure mnasnet_small --latency command --latency_command a", "latency_command: a command line"),
        (train, "recipe.yaml", "a recipe is given as --config FILE, a checkpoint as --ckpt_path FILE"),
        (latency, "build --space nowhere.yaml --table t", "recipe nowhere.yaml: No such file"),
        (latency, "build --space paper --table t --random 0", "--random: 0"),
        (train, "--dry_run --resume nowhere", "nowhere"),
    ],
)
def test_impossible_commands_are_one_sentence(tmp_path, monkeypatch, program, words, sentence):
    monkeypatch.chdir(tmp_path)
    path = write_search(tmp_path)
    before = sorted(tmp_path.iterdir())
    done = captured(*(str(path) if word == "FILE" else word for word in words.split(" ")), program=program)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert sentence in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["SRC", "SRC"], "not written among the images"),
        (["SRC", "out", "--train_split", "tain"], "--train_split: SRC has no folder 'tain'"),
        (["SRC", "out", "--val_split", ".."], "--val_split: SRC has no folder '..'"),
        (["SRC", "out", "--train_split", "train/cat"], "--train_split"),
    ],
)
def test_packs_of_folders_that_are_not_there_are_refused(tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    numbered_folder(tmp_path / "SRC" / "train", 4)
    done = captured(*words, program=pack)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["SRC"]


def test_a_file_of_a_search_is_known_without_a_space(tmp_path):
    """What a search takes by default is not said in its file."""
    path = tmp_path / "mine.yaml"
    path.write_text("evaluator: surrogate\nlatency: surrogate\ntrials: 5\n")
    with pytest.raises(UserError, match="evaluator surrogate trains nothing"):
        dry_run.main([str(path)])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"batch_size: {'9' * 401}", "is not a finite number"),
        ("run_name: 2024-13-45", None),
        ("lr: 2024-13-45", "is not valid YAML: month must be"),
        ("blocks: " + "[" * 2000, "is not valid YAML"),
        ('run_name: "a\\0b"', "run_name"),
        ('data_dir: "a\\0b"', "has a character that no name can have"),
    ],
    ids=range(6),
)
def test_values_that_nothing_can_be_are_refused(tmp_path, text, sentence):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    if sentence is None:
        assert load_recipe(path).run_name == "2024-13-45"
        return
    with pytest.raises(UserError, match=sentence):
        load_recipe(path)


def test_a_space_whose_stage_can_have_no_layer_is_refused(tmp_path):
    decisions = {**SPACE["decisions"], "layers": [-5]}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({**SPACE, "decisions": decisions}))
    with pytest.raises(UserError, match="layers: no choice leaves the 1 of stage 1 one"):
        load_space(tmp_path / "s.yaml")


def test_a_lack_of_memory_is_a_failed_job(capsys):
    def work() -> int:
        raise MemoryError("Unable to allocate 54.8 TiB")

    assert run_cli(work) == 1
    assert capsys.readouterr().err == "failed: there is not enough memory here (Unable to allocate 54.8 TiB)\n"
