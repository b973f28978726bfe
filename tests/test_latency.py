"""Latency: records, commands that misbehave, tables that predict, published networks."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from processes import ROOT, SECONDS

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.export.folded import fold, parts
from mindcv_mnasnet.latency import command as latency_command
from mindcv_mnasnet.latency import runtime as latency_runtime
from mindcv_mnasnet.latency import table as latency_table
from mindcv_mnasnet.latency.fit import Fit
from mindcv_mnasnet.latency.growing import GrowingTable
from mindcv_mnasnet.latency.models import random_tensors
from mindcv_mnasnet.latency.published import UNIFORM, format_rows, measure_grid, measure_uniform, uniform_network
from mindcv_mnasnet.latency.record import Latency, LatencyError, LatencySettings
from mindcv_mnasnet.latency.runtime import RuntimeMeter
from mindcv_mnasnet.latency.table import ROUNDS, Table, build, check, part_keys
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import FAMILIES, resolve
from mindcv_mnasnet.networks.reported import load_reported
from mindcv_mnasnet.search.covering import networks_covering
from mindcv_mnasnet.search.space_files import read_space

SMALL = {"image_size": 24, "num_classes": 10, "head": 32}
NETWORK = resolve("mnasnet_small", width_mult=0.35, **SMALL)
SPACE = read_space(
    "tiny",
    {
        "stem": 8,
        "strides": [1, 2],
        "filters": [8, 16],
        "layers": [1, 2],
        "decisions": {"operator": ["sepconv", "mbconv3", "mbconv6"], "kernel": [3, 5], "filters": [0.5, 1]},
    },
    {**SMALL, "stem_stride": 1},
)


def record(ms, network=NETWORK):
    return Latency(ms, ms, 0.0, ms, 100, 10, 1, 1, network.image_size, "fake", "fake")


class CostMeter:
    """A device whose latency follows from multiply-adds and layers, with parts that pay for their ends."""

    def __init__(self, settings=None):
        self.parts_measured = 0

    def measure(self, network):
        return record(0.05 * len(network.layers()) + network_cost(network).madds / 1e6, network)

    def measure_part(self, part):
        self.parts_measured += 1
        if part.stem is not None or part.head is not None:
            return record(0.2)
        weights = sum(c.weight.size for b in part.blocks for c in (b.expand, b.spatial, b.project) if c is not None)
        return record(0.3 + 2 * (0.05 + weights * part.network.image_size**2 / part.blocks[0].layer.stride ** 2 / 1e6))


@pytest.fixture(autouse=True)
def _no_model(monkeypatch, request):
    """Commands get an empty file: what is tested is how they are asked, and onnx may be missing."""
    if "command" in request.node.name:
        monkeypatch.setattr(latency_command, "write_model", lambda network, path, batch: path)


@pytest.fixture
def meters(monkeypatch):
    """Every meter that a table opens."""
    found = []

    def meter(settings):
        found.append(CostMeter())
        return found[-1]

    monkeypatch.setattr(latency_table, "RuntimeMeter", meter)
    return found


def test_calls_beside_other_work_do_not_move_a_turn(monkeypatch):
    """Of a turn's calls the lowest counts: other work only adds to it."""
    monkeypatch.setattr(latency_runtime, "write_model", lambda *_: None)
    monkeypatch.setattr(RuntimeMeter, "_call", lambda *_: lambda: None)
    monkeypatch.setattr(latency_runtime, "_timed", lambda *_: np.array([9.0, 1.0, 9.0, 9.0]))
    with RuntimeMeter(LatencySettings("mindspore")).opened(NETWORK) as clock:
        assert clock() == 1.0


def test_a_record_is_read_as_it_was_written():
    one = record(1.5)
    assert Latency.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    with pytest.raises(UserError, match="missing or unknown keys: device"):
        Latency.from_dict({k: v for k, v in one.to_dict().items() if k != "device"})
    with pytest.raises(UserError, match="median_ms"):
        Latency.from_dict({**one.to_dict(), "median_ms": math.nan})


def test_a_table_is_built_through_a_command(tmp_path, monkeypatch):
    """A phone's too: every part is a file that the command gets."""
    monkeypatch.setattr(latency_command, "write_folded", lambda folded, path, batch: _sized(path, folded))
    monkeypatch.setattr(latency_command, "write_model", lambda network, path, batch: _sized(path, network))
    program = tmp_path / "device.py"
    program.write_text("import pathlib, sys; print('ms', pathlib.Path(sys.argv[1]).stat().st_size)")
    words = f"'{sys.executable}' -S '{program}' {{model}}"
    settings = LatencySettings("command", command=words, pattern=r"ms (\d+)", timeout_s=60.0)
    monkeypatch.setattr(latency_table, "ROUNDS", 1)
    networks = [SPACE.network(SPACE.random(np.random.default_rng(seed))) for seed in range(3)]
    table = build(networks, networks, settings, tmp_path / "t.jsonl")
    assert table.described["device"] == words
    assert set(table.entries) == {key for network in networks for key in part_keys(network)}
    assert Table.read(table.path).measure(networks[0]).median_ms > 0


def _sized(path, what):
    path.write_bytes(b"x" * (10 + len(repr(what)) % 90))
    return path


def test_one_process_measures_at_a_time():
    code = "from mindcv_mnasnet.latency.runtime import one_at_a_time; print('waits', flush=True)\n"
    code += "with one_at_a_time(): print('in')"
    with latency_runtime.one_at_a_time():
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "waits\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
    assert process.communicate(timeout=SECONDS)[0] == "in\n"


@pytest.mark.parametrize(
    ("kind", "modules"),
    [("onnxruntime", ("onnx", "onnxruntime")), ("litert", ("tensorflow", "ai_edge_litert")), ("mindspore", ())],
)
def test_runtimes_time_whole_networks_and_parts(cpu, kind, modules):
    for module in modules:
        pytest.importorskip(module)
    meter = RuntimeMeter(LatencySettings(kind, repetitions=5, warm_up=1))
    whole = meter.measure(NETWORK)
    assert (whole.repetitions, whole.image_size, whole.runtime) == (5, 24, kind)
    assert 0 < whole.median_ms <= whole.p90_ms
    if kind != "mindspore":
        for part in parts(fold(NETWORK, random_tensors(NETWORK)))[:4]:
            assert meter.measure_part(part).median_ms > 0


def test_a_network_is_its_parts():
    whole = resolve("mnasnet-a1", image_size=33)
    folded = fold(whole, random_tensors(whole))
    cut = parts(folded)
    assert len(cut) == len(part_keys(whole)) == len(whole.layers()) + 2
    assert [part.network.image_size for part in cut] == [33, 17, 17, 9, 9, 5, 5, 5, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2]
    assert cut[0].head is None
    assert cut[-1].blocks == ()


def test_a_table_predicts_whole_networks_from_parts(tmp_path, monkeypatch):
    """Parts pay for their ends and networks do not: a line makes up for it."""
    monkeypatch.setattr(latency_table, "RuntimeMeter", CostMeter)
    rng = np.random.default_rng(0)
    draw = lambda count: [SPACE.network(SPACE.random(rng)) for _ in range(count)]  # noqa: E731
    table = build(networks_covering(SPACE), draw(8), LatencySettings(), tmp_path / "t.jsonl")
    found, pairs = check(Table.read(table.path), CostMeter(), draw(30))
    assert found.spearman > 0.95
    assert found.relative_error < 0.2
    assert len(pairs) == 30
    predicted = Table.read(table.path).measure(draw(1)[0])
    assert (predicted.repetitions, predicted.runtime) == (0, "table of onnxruntime")


def test_large_networks_do_not_spoil_a_tables_small_ones(tmp_path, monkeypatch):
    """Networks too large for the processor's cache take longer than their parts; parts pay for a call each."""

    class Cached(CostMeter):
        def measure(self, network):
            found = [self.measure_part(part).median_ms for part in parts(fold(network, random_tensors(network)))]
            return record((sum(found) - 0.15 * len(found)) * (1.1 if sum(found) > 100 else 1.0), network)

    monkeypatch.setattr(latency_table, "RuntimeMeter", Cached)
    rng = np.random.default_rng(0)
    wide = replace(SPACE, choices=tuple((n, (1, 16) if n == "filters" else c) for n, c in SPACE.choices))
    some = [wide.network(wide.random(rng)) for _ in range(12)]
    table = build(networks_covering(wide), some, LatencySettings(), tmp_path / "t.jsonl")
    pairs = [(table.measure(one).median_ms, Cached().measure(one).median_ms) for one in some]
    assert max(ms for _, ms in pairs) > 50 * min(ms for _, ms in pairs)
    assert all(abs(predicted / ms - 1) < 0.1 for predicted, ms in pairs)


def test_a_growing_table_measures_a_part_when_it_is_first_asked_for(tmp_path, meters):
    one, other = (resolve(None, blocks=f"r1_k3_s22_e3_o8 r1_k{k}_s11_e3_o8", stem=8, **SMALL) for k in (3, 5))
    path = tmp_path / "parts.jsonl"
    table = GrowingTable(LatencySettings(), path)
    total, parts_of_one = table.total_ms(one), ROUNDS * len(part_keys(one))
    assert meters[0].parts_measured == parts_of_one
    assert table.total_ms(one) == total
    table.total_ms(other)
    assert meters[0].parts_measured == parts_of_one + ROUNDS
    assert GrowingTable(LatencySettings(), path).total_ms(one) == total
    assert meters[1].parts_measured == 0
    GrowingTable(LatencySettings(threads=2), path).total_ms(one)  # another measurement: nothing is taken over
    assert meters[2].parts_measured == parts_of_one


def test_a_growing_tables_fit_is_kept_with_its_parts(tmp_path, meters):
    networks = [SPACE.network(SPACE.random(np.random.default_rng(seed))) for seed in range(4)]
    path = tmp_path / "parts.jsonl"
    table = GrowingTable(LatencySettings(), path)
    assert not table.fitted
    table.fit(networks[:3], [0.9 * table.total_ms(one) - 0.01 * len(part_keys(one)) for one in networks[:3]])
    expected = 0.9 * table.total_ms(networks[3]) - 0.01 * len(part_keys(networks[3]))
    assert table.predict(networks[3]) == pytest.approx(expected)
    again = GrowingTable(LatencySettings(), path)
    assert again.fitted
    assert again.predict(networks[3]) == table.predict(networks[3])
    assert meters[1].parts_measured == 0
    assert GrowingTable(LatencySettings(), tmp_path / "new.jsonl").predict(networks[3], 0.1) > 0.1


def test_a_fit_never_falls_as_parts_take_longer():
    """Measurements that say so are noise."""
    fit = Fit.to([1.0, 2.0, 3.0], [NETWORK] * 3, [3.0, 2.0, 1.0])
    assert fit.milliseconds(2.0, NETWORK) >= fit.milliseconds(1.0, NETWORK)


def test_a_fit_knows_what_parts_pay_and_what_weights_cost_a_whole_network():
    """Weights of a network do not stay in the cache that holds those of a part."""
    rng = np.random.default_rng(0)
    networks = [SPACE.network(SPACE.random(rng)) for _ in range(12)]
    totals = [2 * network_cost(one).madds / 1e6 + 0.1 * len(part_keys(one)) for one in networks]
    taken = [
        0.9 * total - 0.08 * len(part_keys(one)) + 20 * network_cost(one).params / 1e6
        for total, one in zip(totals, networks, strict=True)
    ]
    fit = Fit.to(totals[:8], networks[:8], taken[:8])
    for total, one, ms in zip(totals, networks, taken, strict=True):
        assert fit.milliseconds(total, one) == pytest.approx(ms)
        assert fit.total_ms(ms, one) == pytest.approx(total)


def test_a_network_that_is_too_slow_by_some_parts_has_no_more_measured(tmp_path, meters):
    table = GrowingTable(LatencySettings(), tmp_path / "parts.jsonl")
    whole = GrowingTable(LatencySettings(), tmp_path / "all.jsonl").total_ms(NETWORK)
    assert 0.5 * whole < table.total_ms(NETWORK, 0.5 * whole) < whole
    measured = meters[0].parts_measured
    assert 0 < measured < meters[1].parts_measured
    assert table.total_ms(NETWORK, 0.4 * whole) > 0.4 * whole
    assert meters[0].parts_measured == measured
    assert table.total_ms(NETWORK, whole) == pytest.approx(whole)


def test_a_table_with_an_offset_is_read_as_it_was_built(tmp_path):
    path = tmp_path / "t.jsonl"
    lines = [{"schema": 1, "kind": "onnxruntime", "device": "a", "threads": 1, "batch": 1}]
    lines += [{"part": key, "median_ms": 0.5} for key in part_keys(NETWORK)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"factor": 0.9, "offset_ms": -0.1}]))
    assert Table.read(path).measure(NETWORK).median_ms == pytest.approx(0.9 * 0.5 * len(part_keys(NETWORK)) - 0.1)


def test_a_table_that_was_interrupted_measures_only_what_is_missing(tmp_path, meters):
    networks, path = networks_covering(SPACE), tmp_path / "t.jsonl"
    whole = build(networks, networks[:3], LatencySettings(), path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:11]) + lines[11][:7])
    again = build(networks, networks[:3], LatencySettings(), path)
    assert again.entries == whole.entries
    assert meters[1].parts_measured == meters[0].parts_measured - latency_table.ROUNDS * 10


def test_a_table_refuses_what_it_does_not_know(tmp_path, monkeypatch):
    monkeypatch.setattr(latency_table, "RuntimeMeter", CostMeter)
    networks, path = networks_covering(SPACE), tmp_path / "t.jsonl"
    table = build(networks, networks[:3], LatencySettings(), path)
    with pytest.raises(LatencyError, match=r"has no entry for 'stem in=3 .*tools/latency.py build"):
        table.measure(resolve("mnasnet-a1"))
    with pytest.raises(UserError, match="name another"):
        build(networks, networks[:3], LatencySettings(threads=2), path)
    with pytest.raises(UserError, match="not mindspore"):
        build(networks, networks[:3], LatencySettings("mindspore"), tmp_path / "other.jsonl")
    path.write_text("{}\n")
    with pytest.raises(UserError, match="no table of schema"):
        Table.read(path)
    path.write_text("rubbish\n{}\n")
    with pytest.raises(UserError, match="line 1 cannot be read"):
        Table.read(path)


def test_uniform_networks_are_a1_with_one_kind_of_layer():
    for expand, kernel in UNIFORM:
        layers = uniform_network(expand, kernel).layers()
        assert {(layer.expand, layer.kernel, layer.se_width) for layer in layers} == {(expand, kernel, 0)}
        assert len(layers) == sum(block.repeats for block in FAMILIES["a1"].blocks)
    madds = [network_cost(uniform_network(*kind)).madds for kind in UNIFORM]
    assert madds == sorted(madds)  # as the paper's latencies rise


def test_the_grid_is_the_authors_25_rows():
    rows = measure_grid(CostMeter())
    published = [one for one in load_reported() if (one.source, one.model) == ("tf", "mnasnet-a1") and one.latency_ms]
    assert len(rows) == 25 == len(published)
    assert [row.published_ms for row in rows] == [one.latency_ms for one in published]
    text = format_rows(rows)
    assert "Spearman 0.9" in text
    assert len(measure_uniform(CostMeter())) == 5


def cli(*words):
    command = [sys.executable, ROOT / "tools" / "latency.py", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "the following arguments are required"),
        (("measure", "mnasnet_10"), "unknown model 'mnasnet_10'"),
        (("measure", "mnasnet_100@wide"), "not a model's name"),
        (("measure", "mnasnet_100", "--threads", "0"), "threads: 0 is impossible"),
        (("predict", "mnasnet_100", "--table", "none"), "none cannot be read"),
        (("build", "--space", "papr", "--table", "t"), "presets are paper"),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(words, sentence):
    done = cli(*words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
