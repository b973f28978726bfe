"""Published weights by name: the list of them, the cache, and every way from there into a model."""

from __future__ import annotations

import io
import json
import pwd
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import replace

import numpy as np
import pytest
from file_server import Served, serving
from processes import PLAIN, ROOT, cli, refused, write_recipe

import validate
from mindcv_mnasnet.devices import environment
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.run.checkpoint import read_checkpoint, write_checkpoint
from mindcv_mnasnet.train import job
from mindcv_mnasnet.weights import hub
from mindcv_mnasnet.weights.convert import convert
from mindcv_mnasnet.weights.download import Patience, file_sha256
from mindcv_mnasnet.weights.name_maps import shapes
from mindcv_mnasnet.weights.tensorflow import write_tensorflow

NAME, WIDTH, SIZE, CLASSES = "mnasnet_small", 0.5, 32, 10
QUICK = Patience(timeout=5.0, attempts=2, pause=0.001)


@pytest.fixture(scope="module")
def tensors():
    """Weights of a small network whose batch norms do something."""
    rng = np.random.default_rng(0)
    model = create_model(NAME, width_mult=WIDTH, num_classes=CLASSES, image_size=SIZE)
    return {
        p.name: (rng.uniform(0.5, 1.5, p.shape) / max(np.prod(p.shape[1:]), 1)).astype(np.float32)
        for p in model.get_parameters()
    }


@pytest.fixture(scope="module")
def file(tmp_path_factory, tensors):
    """A file as timm would publish it, of ten classes."""
    folder = tmp_path_factory.mktemp("publisher")
    keys = {"model": NAME, "width_mult": WIDTH, "image_resize": SIZE, "num_classes": CLASSES}
    network = resolve(NAME, width_mult=WIDTH, num_classes=CLASSES, image_size=SIZE)
    meta = {"recipe": load_recipe(overrides=keys).to_dict(), "network": network.to_dict()}
    write_checkpoint(folder / "ours.safetensors", tensors, meta | {"class_names": [str(i) for i in range(CLASSES)]})
    convert(folder / "ours.safetensors", folder / "theirs.safetensors", target="timm")
    return folder / "theirs.safetensors"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MNASNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MNASNET_OFFLINE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def entry(file, monkeypatch):
    """The only published file there is, at an address where nobody is."""
    only = hub.Published(
        source="timm",
        model=NAME,
        file="small.safetensors",
        page="https://example.org/table",
        url="http://127.0.0.1:9/file",
        checkpoint="mnasnet_small.lamb_in1k",
        sha256=file_sha256(file)[:8],
        width_mult=WIDTH,
    )

    def publish(**changes):
        changed = replace(only, **changes)
        monkeypatch.setattr(hub, "load_registry", lambda: (changed,))
        return changed

    publish()
    return publish


@pytest.fixture
def served(file, entry):
    with serving(Served(file.read_bytes())) as server:
        entry(url=server.url)
        yield server


def get(**more):
    return hub.pretrained(NAME, width_mult=WIDTH, patience=QUICK, **more)


def holds(path, tensors) -> bool:
    found = read_checkpoint(path).weights()
    return found.keys() == tensors.keys() and all(found[n].tobytes() == tensors[n].tobytes() for n in tensors)


@pytest.mark.parametrize("home", [None, "/nowhere"])
def test_a_user_without_a_home_has_a_cache_that_nobody_else_writes(home, tmp_path, monkeypatch):
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("MNASNET_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment._temporary_folder.cache_clear()
    first = environment.cache_folder()
    assert first.parent == tmp_path
    assert first.stat().st_mode & 0o777 == 0o700
    first.chmod(0o777)
    environment._temporary_folder.cache_clear()
    assert environment.cache_folder() not in (first, *first.parents)
    environment._temporary_folder.cache_clear()


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    for name in ("MNASNET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment.cache_folder() == tmp_path / ".cache" / "mindcv_mnasnet"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert environment.cache_folder() == tmp_path / "xdg" / "mindcv_mnasnet"
    monkeypatch.setenv("MNASNET_CACHE", str(tmp_path / "own"))
    assert environment.cache_folder() == tmp_path / "own"
    assert environment.cache_folder(tmp_path / "said") == tmp_path / "said"


def test_weights_are_fetched_and_converted_once(cache, served, tensors, monkeypatch):
    path = get()
    assert path.is_relative_to(cache)
    assert holds(path, tensors)
    assert read_checkpoint(path, only_meta=True).meta["source"] == "timm"
    monkeypatch.setenv("MNASNET_OFFLINE", "1")
    assert get() == path
    assert len(served.requests) == 1


def test_a_damaged_conversion_is_made_again(cache, served, tensors):
    path = get()
    path.write_bytes(path.read_bytes()[:1000])
    assert holds(get(), tensors)
    assert len(served.requests) == 1


def test_offline_a_missing_file_is_named_with_its_address_and_place(cache, served, file, tensors, monkeypatch):
    monkeypatch.setenv("MNASNET_OFFLINE", "1")
    with pytest.raises(UserError, match="MNASNET_OFFLINE") as refused:
        get()
    assert served.url in str(refused.value)
    assert str(cache / "small.safetensors") in str(refused.value)
    (cache / "small.safetensors").write_bytes(file.read_bytes())
    assert holds(get(), tensors)
    assert served.requests == []


def test_a_file_of_unknown_address_is_asked_for_by_its_page(cache, entry):
    entry(url=None)
    with pytest.raises(UserError, match=rf"https://example.org/table.*{cache / 'small.safetensors'}"):
        get()


@pytest.mark.parametrize("status", [404, None])
def test_a_failed_download_says_what_to_put_where(cache, served, entry, status):
    if status is None:
        entry()
    else:
        served.statuses.append(status)
    with pytest.raises(JobError, match=rf"{status or 'refused'}.*save it as {cache / 'small.safetensors'}"):
        get()


def test_another_file_than_published_is_refused(cache, served, entry, file):
    entry(url=served.url, sha256="00000000")
    with pytest.raises(JobError, match="is not what was published"):
        get()
    (cache / "small.safetensors").write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"damaged or another file.*delete it"):
        get()
    assert not list((cache / hub.CONVERTED).iterdir())


def test_weights_of_another_network_are_refused(cache, served, entry):
    entry(url=served.url, model="semnasnet_100", sha256=None)
    with pytest.raises(UserError):
        hub.pretrained("semnasnet_100", width_mult=WIDTH, patience=QUICK)
    assert not list((cache / hub.CONVERTED).iterdir())


def test_a_hostile_archive_is_refused(cache, entry):
    entry(source="tf", model="mnasnet-small", file="mnasnet-small.tgz", sha256=None)
    cache.mkdir()
    with tarfile.open(cache / "mnasnet-small.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("../../evil.index")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(UserError, match="outside its folder"):
        hub.pretrained("mnasnet-small", width_mult=WIDTH)
    assert not list((cache / hub.CONVERTED).iterdir())
    assert not list(cache.parent.rglob("evil*"))


_ASK = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from mindcv_mnasnet.weights import hub
entry = hub.Published("timm", {NAME!r}, "small.safetensors", "", sys.argv[1], sha256=sys.argv[2],
                      checkpoint="mnasnet_small.lamb_in1k", width_mult={WIDTH})
hub.load_registry = lambda: (entry,)
print(hub.pretrained({NAME!r}, width_mult={WIDTH}))
"""


def test_two_processes_at_once_do_it_once(cache, served, file, tensors):
    served.delay = 1.0
    command = [sys.executable, "-c", _ASK, served.url, file_sha256(file)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    (path,) = {output.strip() for output, _ in outputs}
    assert holds(path, tensors)
    assert len(served.requests) == 1


def test_the_authors_archive_of_a_size_brings_its_size_evaluation_and_accuracy(cache, tmp_path):
    pytest.importorskip("tensorflow")
    network = resolve("mnasnet-a1", width_mult=0.35, image_size=96)
    weights = {name: np.full(shape, 0.5, np.float32) for name, shape in shapes(network).items()}
    (tmp_path / "archived").mkdir()
    write_tensorflow(tmp_path / "archived" / "model.ckpt", weights, network)
    cache.mkdir()
    with tarfile.open(cache / hub.find("mnasnet-a1", 0.35, 96).file, "w:gz") as archive:
        archive.add(tmp_path / "archived", "mnasnet-a1-of-a-size")
    path = hub.pretrained("mnasnet-a1", width_mult=0.35, image_size=96)
    checkpoint = read_checkpoint(path)
    assert holds(path, weights)
    assert checkpoint.network == network
    assert (checkpoint.recipe.image_resize, checkpoint.recipe.eval_crop) == (96, "tf_square")
    assert checkpoint.meta["reported"]["top1"] == 49.3


def values(model) -> dict[str, bytes]:
    return {parameter.name: parameter.asnumpy().tobytes() for parameter in model.get_parameters()}


def test_create_model_starts_from_published_weights(cache, served, tensors):
    expected = {name: value.tobytes() for name, value in tensors.items()}
    assert values(create_model(NAME, pretrained=True, width_mult=WIDTH, num_classes=CLASSES)) == expected
    other = values(create_model(NAME, pretrained=True, width_mult=WIDTH, num_classes=3, seed=5))
    fresh = values(create_model(NAME, width_mult=WIDTH, num_classes=3, seed=5))
    assert other == {name: fresh[name] if name.startswith("classifier.") else expected[name] for name in expected}
    features = values(create_model(NAME, pretrained=True, width_mult=WIDTH, features_only=True))
    assert features == {name: v for name, v in expected.items() if not name.startswith(("head.", "classifier."))}


def test_create_model_refuses_what_has_no_published_weights(cache, served):
    with pytest.raises(UserError, match="by a model's name"):
        create_model(resolve(NAME), pretrained=True)
    with pytest.raises(UserError, match="does not fit"):
        create_model(NAME, pretrained=True, width_mult=WIDTH, in_channels=1)


def test_training_starts_from_published_weights(cache, served, digits, tmp_path):
    keys = {"model": NAME, "width_mult": WIDTH, "image_resize": SIZE, "pretrained": True, "data_dir": str(digits)}
    asked = {**PLAIN, **keys, "blocks": None, "stem": None, "head": None, "ckpt_save_dir": str(tmp_path)}
    with job.prepare(load_recipe(overrides=asked)) as prepared:
        assert any("started from" in note and "small.safetensors" in note for note in prepared.notes)


def test_published_weights_are_validated_by_name(cache, served, digits, tmp_path, capsys):
    words = ("--pretrained", "True", "--model", NAME, "--width_mult", WIDTH, "--image_resize", SIZE)
    data = ("--dataset", "digits", "--data_dir", digits, "--val_batch_size", "360", "--json", tmp_path / "rows.json")
    assert cli(*words, *data, program=validate) == 0
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert (row["images"], row["model"]) == (360, NAME)
    assert "contradict" in refused(capsys, *words, "--ckpt_path", "other.safetensors", program=validate)


def test_a_recipe_file_may_ask_for_published_weights(cache, served, tmp_path):
    path = write_recipe(tmp_path, {}, model=NAME, width_mult=WIDTH, pretrained=True)
    assert hub.pretrained_for(load_recipe(path)).is_file()
