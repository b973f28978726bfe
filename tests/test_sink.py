"""Data sinking, with a stand-in for the queue that only devices have: its calls, and what they leave behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import mindspore as ms
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import PLAIN, cli, refused, state, steps, unequal, write_recipe

from mindcv_mnasnet.devices.runtime import Runtime
from mindcv_mnasnet.recipe.plan import FEWEST_SUNK_STEPS, passed, sunk_steps

PRIME = 13  # steps of an epoch
KEYS = {
    "num_samples": 16 * PRIME,
    "epoch_size": 2,
    "drop_path_rate": 0.2,
    "hflip": 0.0,
    "num_parallel_workers": 1,
    "log_interval": 5,
    "ckpt_save_steps": 6,
}


def queue(loops: Callable[[int], int] = lambda size: size, sizes: list[int] | None = None) -> Callable[..., Any]:
    """A stand-in for ``mindspore.data_sink`` that makes ``loops(sink_size)`` steps a call on this CPU."""

    def data_sink(step: Any, dataset: Any, sink_size: int, jit_config: Any) -> Callable[[], Any]:
        batches = dataset.create_tuple_iterator(num_epochs=1, do_copy=False)

        def call() -> Any:
            if sizes is not None:
                sizes.append(sink_size)
            return [step(*next(batches)) for _ in range(loops(sink_size))][-1]

        return call

    return data_sink


@pytest.fixture
def sinking(monkeypatch):
    """Makes this process sink through a stand-in."""

    def install(data_sink: Callable[..., Any]) -> None:
        monkeypatch.setattr(Runtime, "sinks", property(lambda self: True))
        monkeypatch.setattr(ms, "data_sink", data_sink)

    return install


@pytest.fixture
def words(tmp_path, digits):
    path = write_recipe(tmp_path, PLAIN, **KEYS, data_dir=str(digits))
    return ("-c", path, "--ckpt_save_dir", tmp_path, "--run_name")


def test_a_prime_number_of_steps_is_sunk_in_calls_and_a_shorter_one_and_computes_the_same(words, tmp_path, sinking):
    assert cli(*words, "handed", "--dataset_sink_mode", "False") == 0
    sizes: list[int] = []
    sinking(queue(sizes=sizes))
    assert cli(*words, "sunk") == 0
    assert sizes == 2 * [5, 5, 3]
    assert unequal(state(tmp_path / "handed", 2 * PRIME), state(tmp_path / "sunk", 2 * PRIME)) == []
    assert steps(tmp_path / "sunk")[-1][:2] == pytest.approx(steps(tmp_path / "handed")[-1][:2])


def test_sunk_calls_log_save_and_count_images_as_steps_do(words, tmp_path, sinking):
    sinking(queue())
    assert cli(*words, "run") == 0
    logged = [step for step, *_ in steps(tmp_path / "run")]
    assert logged == [5, 10, 13, 18, 23, 26]
    saved = sorted((tmp_path / "run" / "checkpoints").glob("step_*"))
    assert [int(path.stem[5:]) for path in saved] == [10, 13, 18, 26], "after the call that passed 6, 12, 18, 24"
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    lines = [record for record in records if record["kind"] == "step"]
    for before, line in list(pairwise(lines))[1:]:
        images = 16 * (line["step"] - before["step"])
        assert images / line["images_per_second"] <= line["time"] - before["time"] + 1e-3


@pytest.mark.parametrize(("loops", "made"), [(lambda size: 1, 1), (lambda size: size - 1, 4)])
def test_a_call_that_makes_fewer_steps_than_it_should_stops_the_job_with_one_sentence(
    loops, made, words, sinking, capsys
):
    sinking(queue(loops))
    sentence = refused(capsys, *words, "run", code=1)
    assert f"a sunk call of 5 steps made {made}" in sentence
    assert "--dataset_sink_mode False" in sentence


@pytest.mark.parametrize(
    ("epoch", "wanted", "sizes"),
    [(625, 100, (25, 0)), (10_009, 100, (100, 9)), (1251, 100, (100, 51)), (547, 100, (100, 47)), (12, 100, (12, 0))],
)
def test_imagenets_epochs_are_sunk_in_many_steps_a_call(epoch, wanted, sizes):
    assert sunk_steps(epoch, wanted) == sizes


@given(st.integers(1, 20_000), st.integers(1, 500))
def test_calls_add_up_to_an_epoch_and_are_not_small_without_need(epoch, wanted):
    size, last = sunk_steps(epoch, wanted)
    assert (epoch - last) % size == 0
    assert 0 <= last < size <= wanted
    assert last != 1 or size == 1
    assert size >= min(epoch, wanted, FEWEST_SUNK_STEPS) - 1


@given(st.integers(1, 50), st.integers(1, 200), st.integers(1, 60))
def test_a_multiple_is_passed_as_often_as_by_single_steps(every, step, taken):
    taken = min(taken, step)
    assert passed(every, step, taken) == any(one % every == 0 for one in range(step - taken + 1, step + 1))
