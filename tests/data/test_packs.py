"""A pack is the folder it was made from: names, order, labels, bytes; packing survives kill -9."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import mindspore.dataset as ds
import numpy as np
import pytest
from image_files import encode, flat, make_folder, numbered_folder, scene

from mindcv_mnasnet.commands import pack as pack_dataset
from mindcv_mnasnet.data.images import read_plain
from mindcv_mnasnet.data.index import list_folder
from mindcv_mnasnet.data.pack_check import differences
from mindcv_mnasnet.data.pack_writer import write_pack
from mindcv_mnasnet.data.packs import open_pack
from mindcv_mnasnet.data.sets import open_val
from mindcv_mnasnet.errors import JobError, UserError, run_cli
from mindcv_mnasnet.recipe.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    """Plain, converted, equal and oddly named images."""
    numbered_folder(tmp_path / "src", 20)
    odd = {
        "class0/ünï code.jpg": encode(scene(), "JPEG"),
        "class1/cmyk.jpg": encode(scene().convert("CMYK"), "JPEG"),
        "class2/copy_a.png": flat(77),
        "class2/copy_b.png": flat(77),
    }
    return make_folder(tmp_path / "src", odd)


def test_a_pack_equals_its_folder(folder, tmp_path):
    image_index = list_folder(folder)
    write_pack(image_index, tmp_path / "pack", shards=3)
    packed = open_pack(tmp_path / "pack")
    assert packed.kind == "mindrecord"
    assert packed.paths == image_index.paths
    assert packed.class_names == image_index.class_names
    assert np.array_equal(packed.labels, image_index.labels)
    for index in range(len(image_index)):
        assert packed.read(index) == read_plain(image_index.name(index), lossless="PNG")
    assert list(differences(image_index, open_pack(tmp_path / "pack"))) == []


def test_mindspore_reads_the_shards_too(folder, tmp_path):
    image_index = list_folder(folder)
    write_pack(image_index, tmp_path / "pack", shards=2)
    shards = sorted(str(path) for path in (tmp_path / "pack").glob("*.mindrecord"))
    assert len(shards) == 2
    rows = list(ds.MindDataset(shards, shuffle=False).create_dict_iterator(num_epochs=1, output_numpy=True))
    assert [str(row["name"]) for row in rows] == list(image_index.paths)
    assert [int(row["label"]) for row in rows] == image_index.labels.tolist()
    packed = open_pack(tmp_path / "pack")
    assert [row["image"].tobytes() for row in rows] == [packed.read(index) for index in range(len(image_index))]


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("dataset.json", {"classes": None}),
        ("dataset.json", {"shards": ["../pack/shard.mindrecord"]}),
        ("dataset.json", {"scaled": {"side": 3}}),
        ("*.index.json", {"names": None}),
        ("*.index.json", {"lengths": [1]}),
        ("*.index.json", {"offsets": [-5] * 24}),
        ("*.index.json", {"offsets": [1 << 70] * 24}),
        ("*.index.json", {"labels": [3] * 24}),
    ],
)
def test_damaged_descriptions_of_a_pack_are_named(file, changes, folder, tmp_path):
    write_pack(list_folder(folder), tmp_path / "pack", shards=1)
    (path,) = (tmp_path / "pack").glob(file)
    for content in (json.loads(path.read_text()) | changes, [1, 2]):
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=f"{path.name} is damaged"):
            open_pack(tmp_path / "pack")


def test_a_png_that_cannot_be_decoded_is_not_packed(folder, tmp_path):
    whole = flat(5)
    start = whole.index(b"IDAT") - 4
    chunk = b"IDAT" + bytes(8)
    bad = whole[:start] + (8).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + whole[-12:]
    (folder / "class0" / "bad.png").write_bytes(bad)
    with pytest.raises(JobError, match=r"bad\.png"):
        write_pack(list_folder(folder), tmp_path / "pack", shards=1)


def test_a_pack_takes_the_class_order_of_a_run(folder, tmp_path):
    write_pack(list_folder(folder), tmp_path / "pack", shards=1)
    names = ["class2", "other", "class1", "class0"]
    by_path = dict(zip(list_folder(folder, names).paths, list_folder(folder, names).labels.tolist(), strict=True))
    packed = open_pack(tmp_path / "pack", names)
    assert [by_path[path] for path in packed.paths] == packed.labels.tolist()
    with pytest.raises(UserError, match="'class2'"):
        open_pack(tmp_path / "pack", ["class0", "class1"])


def test_whoever_may_read_the_folder_may_read_the_pack(folder, tmp_path):
    write_pack(list_folder(folder), tmp_path / "pack", shards=1)
    allowed = (tmp_path / "pack").stat().st_mode & 0o444
    assert all(path.stat().st_mode & 0o444 == allowed for path in (tmp_path / "pack").iterdir())


def test_a_subset_of_a_pack_reads_its_own_images(folder, tmp_path):
    write_pack(list_folder(folder), tmp_path / "pack", shards=3)
    packed = open_pack(tmp_path / "pack")
    part = packed.subset([20, 3])
    assert [part.read(0), part.read(1)] == [packed.read(20), packed.read(3)]


def test_packing_killed_at_any_moment_goes_on_and_ends_equal(tmp_path):
    source = make_folder(tmp_path / "src", {f"c{n % 2}/{n:03d}.png": encode(scene(200, 150, n)) for n in range(60)})
    target = tmp_path / "pack"
    command = [sys.executable, str(ROOT / "tools" / "pack_dataset.py"), str(source), str(target), "--shards", "12"]
    packing = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while packing.poll() is None and len(list(target.glob("*.index.json"))) < 3:
        pass
    packing.send_signal(signal.SIGKILL)
    packing.wait()
    finished = {path: path.stat().st_mtime_ns for path in target.glob("shard-*.mindrecord")}
    (target / ".partial-shard-00011-of-00012.mindrecord").mkdir(exist_ok=True)  # a leftover at the worst place
    assert subprocess.run([*command, "--verify"], check=False, capture_output=True).returncode == 0
    kept = [path for path, written in finished.items() if path.stat().st_mtime_ns == written]
    assert len(kept) >= 3
    assert not list(target.glob(".partial-*"))


def test_every_difference_is_found(folder, tmp_path):
    write_pack(list_folder(folder), tmp_path / "pack", shards=2)
    (folder / "class0" / "0000.png").write_bytes(flat(99))
    (folder / "class0" / "0001.png").unlink()
    (folder / "class1" / "new.png").write_bytes(flat(1))
    found = list(differences(list_folder(folder), open_pack(tmp_path / "pack")))
    assert len(found) == 3
    for name in ("class0/0000.png", "class0/0001.png", "class1/new.png"):
        assert any(name in difference for difference in found)


def test_a_damaged_shard_is_found(folder, tmp_path):
    image_index = list_folder(folder)
    write_pack(image_index, tmp_path / "pack", shards=1)
    packed = open_pack(tmp_path / "pack")
    with (tmp_path / "pack" / packed.shards[0]).open("r+b") as shard:
        shard.seek(int(packed.spans[5, 1]) + 20)
        shard.write(b"\x00\x01\x02")
    assert len(list(differences(image_index, open_pack(tmp_path / "pack")))) == 1
    (tmp_path / "pack" / packed.shards[0]).unlink()
    with pytest.raises(UserError, match="lacks its shard"):
        open_pack(tmp_path / "pack")


def test_other_images_or_other_shards_are_not_mixed_into_a_pack(folder, tmp_path):
    write_pack(list_folder(folder), tmp_path / "pack", shards=2)
    with pytest.raises(UserError, match="another packing"):
        write_pack(list_folder(folder), tmp_path / "pack", shards=3)
    (folder / "class0" / "0000.png").unlink()
    with pytest.raises(UserError, match="other images"):
        write_pack(list_folder(folder), tmp_path / "pack", shards=2)


def test_packing_again_makes_the_shards_of_changed_images_again(folder, tmp_path):
    index, pack = list_folder(folder), tmp_path / "pack"
    assert write_pack(index, pack, shards=4) == 0
    shards = sorted(pack.glob("*.mindrecord"))
    written = [shard.stat().st_mtime_ns for shard in shards]
    image = folder / "class2" / "copy_b.png"  # the last one; of equal size
    before = image.stat()
    image.write_bytes(flat(78))
    assert image.stat().st_size == before.st_size
    assert write_pack(index, pack, shards=4) == 1
    assert [shard.stat().st_mtime_ns == then for shard, then in zip(shards, written, strict=True)] == [True] * 3 + [
        False
    ]
    assert list(differences(index, open_pack(pack))) == []


def test_a_shard_is_kept_where_only_the_times_of_its_images_changed(folder, tmp_path):
    index, pack = list_folder(folder), tmp_path / "pack"
    write_pack(index, pack, shards=1)
    (shard,) = pack.glob("*.mindrecord")
    written = shard.stat().st_mtime_ns
    for name in index.paths:
        (folder / name).touch()
    contents = next(pack.glob("*.index.json"))
    for drop in (False, True):  # a pack of before stamps were kept is looked into, too
        if drop:
            stored = json.loads(contents.read_text())
            contents.write_text(json.dumps({key: value for key, value in stored.items() if key != "sources"}))
        assert write_pack(index, pack, shards=1) == 0
        assert shard.stat().st_mtime_ns == written
        assert "sources" in json.loads(contents.read_text())


def test_another_programs_dataset_json_makes_no_pack_and_half_a_pack_is_named(folder, tmp_path):
    for stray in ('{"title": "flowers"}', "[1]", "no JSON"):
        (folder / "dataset.json").write_text(stray)
        assert open_val(load_recipe(overrides={"data_dir": str(folder)})).kind == "folder"
    write_pack(list_folder(folder), tmp_path / "pack", shards=2)
    (tmp_path / "pack" / "dataset.json").unlink()
    with pytest.raises(UserError, match="not finished"):
        open_val(load_recipe(overrides={"data_dir": str(tmp_path / "pack")}))


def test_a_broken_image_stops_packing_by_name_and_leaves_no_pack(folder, tmp_path):
    (folder / "class1" / "broken.jpg").write_bytes(b"\xff\xd8 no")
    with pytest.raises(JobError, match=r"broken\.jpg.*check_dataset"):
        write_pack(list_folder(folder), tmp_path / "pack", shards=2)
    with pytest.raises(UserError):
        open_pack(tmp_path / "pack")


def test_the_tool_packs_train_and_val_with_the_same_classes(tmp_path, capsys):
    source = tmp_path / "src"
    numbered_folder(source / "train", 9)
    make_folder(source / "val", {"class2/1.png": flat(5)})
    arguments = [str(source), str(tmp_path / "pack"), "--verify"]
    assert run_cli(lambda: pack_dataset.main(arguments)) == 0
    assert open_pack(tmp_path / "pack" / "val").labels.tolist() == [2]
    assert len(open_pack(tmp_path / "pack" / "train")) == 9
    assert run_cli(lambda: pack_dataset.main([str(tmp_path / "nowhere"), str(tmp_path / "pack")])) == 2
    assert run_cli(lambda: pack_dataset.main([*arguments, "--shards", "0"])) == 2
    capsys.readouterr()
    words = [str(source / "train"), str(tmp_path / "other"), "--val_labels", str(tmp_path / "nowhere.txt")]
    assert run_cli(lambda: pack_dataset.main(words)) == 2
    assert "no folder" in capsys.readouterr().err


def test_the_tool_fails_when_the_pack_differs(tmp_path, capsys):
    source = numbered_folder(tmp_path / "src", 6)
    arguments = [str(source), str(tmp_path / "pack"), "--verify"]
    assert run_cli(lambda: pack_dataset.main(arguments)) == 0
    packed = open_pack(tmp_path / "pack")
    with (tmp_path / "pack" / packed.shards[0]).open("r+b") as shard:
        shard.seek(int(packed.spans[0, 1]) + 20)
        shard.write(b"\x00\x01\x02")
    assert run_cli(lambda: pack_dataset.main(arguments)) == 1
    assert "class0/0000.png" in capsys.readouterr().out


def test_a_folder_that_mindrecord_cannot_write_into_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="UTF-8"):
        write_pack(list_folder(folder), tmp_path / "gr\udcf6\udcdfe", shards=1)


def test_the_contents_name_the_classes(folder, tmp_path):
    write_pack(list_folder(folder), tmp_path / "pack", shards=1)
    contents = json.loads((tmp_path / "pack" / "dataset.json").read_text())
    assert contents["classes"] == ["class0", "class1", "class2"]
    assert contents["images"] == 24
