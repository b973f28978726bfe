"""Packs of smaller images: what is scaled, that it is remembered, and what is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from image_files import encode, make_folder, scene
from PIL import Image

from mindcv_mnasnet.commands import pack as pack_dataset
from mindcv_mnasnet.data.decoder import decode_whole
from mindcv_mnasnet.data.index import list_folder
from mindcv_mnasnet.data.pack_check import differences
from mindcv_mnasnet.data.pack_writer import write_pack
from mindcv_mnasnet.data.packs import open_pack
from mindcv_mnasnet.data.scaling import Scaling
from mindcv_mnasnet.data.sets import open_val
from mindcv_mnasnet.errors import JobError, UserError, run_cli
from mindcv_mnasnet.recipe.recipe import load_recipe

SCALED = Scaling(24, 90)


@pytest.fixture
def photographs(tmp_path):
    """JPEG and PNG images above and below 24 pixels, gray, CMYK and turned by EXIF."""
    turned = scene(60, 40)
    exif = turned.getexif()
    exif[0x0112] = 6
    return make_folder(
        tmp_path / "photographs",
        {
            "a/large.jpg": encode(scene(90, 60), "JPEG"),
            "a/tall.png": encode(scene(30, 100)),
            "a/small.jpg": encode(scene(40, 20), "JPEG"),
            "b/gray.jpg": encode(scene(64, 48).convert("L"), "JPEG"),
            "b/cmyk.jpg": encode(scene(64, 48).convert("CMYK"), "JPEG"),
            "b/turned.jpg": encode(turned, "JPEG", exif=exif),
        },
    )


def sizes(packed):
    return {name: Image.open(io.BytesIO(packed.read(at))).size for at, name in enumerate(packed.paths)}


def test_a_scaled_pack_shrinks_what_is_larger_and_nothing_else(photographs, tmp_path):
    image_index = list_folder(photographs)
    write_pack(image_index, tmp_path / "pack", shards=1, scaling=SCALED)
    packed = open_pack(tmp_path / "pack")
    assert sizes(packed) == {
        "a/large.jpg": (36, 24),
        "a/small.jpg": (40, 20),
        "a/tall.png": (24, 80),
        "b/cmyk.jpg": (32, 24),
        "b/gray.jpg": (32, 24),
        "b/turned.jpg": (24, 36),
    }
    small = image_index.paths.index("a/small.jpg")
    assert packed.read(small) == (photographs / "a" / "small.jpg").read_bytes()
    large = decode_whole(packed.read(image_index.paths.index("a/large.jpg")), "large").mean(2)
    wanted = np.asarray(scene(90, 60).resize((36, 24), Image.Resampling.BICUBIC), float).mean(2)
    assert np.abs(large - wanted).mean() < 5, "within what two JPEG encodings change"


def test_a_pack_remembers_its_scaling_and_says_it(photographs, tmp_path):
    write_pack(list_folder(photographs), tmp_path / "pack", shards=1, scaling=SCALED)
    packed = open_pack(tmp_path / "pack")
    assert packed.scaling == SCALED
    (note,) = packed.notes
    assert "24 pixels" in note
    assert packed.subset([0]).scaling == SCALED
    assert list(differences(list_folder(photographs), packed)) == []


@pytest.mark.parametrize("other", [None, Scaling(25, 90), Scaling(24, 95)])
def test_shards_of_another_scaling_are_not_mixed_into_a_pack(photographs, tmp_path, other):
    write_pack(list_folder(photographs), tmp_path / "pack", shards=2, scaling=SCALED)
    with pytest.raises(UserError, match="scaled to short side 24"):
        write_pack(list_folder(photographs), tmp_path / "pack", shards=2, scaling=other)


def test_a_scaled_pack_is_verified_by_scaling_the_folder_again(photographs, tmp_path, capsys):
    words = [str(photographs), str(tmp_path / "pack"), "--verify", "--short_side", "24"]
    assert run_cli(lambda: pack_dataset.main(words)) == 0
    index = list_folder(photographs)
    (photographs / "a" / "large.jpg").write_bytes(encode(scene(90, 60, seed=3), "JPEG"))
    (found,) = differences(index, open_pack(tmp_path / "pack"))
    assert "a/large.jpg" in found
    assert run_cli(lambda: pack_dataset.main(words)) == 0
    assert "1 shards were made again" in capsys.readouterr().out
    assert run_cli(lambda: pack_dataset.main(words[:3])) == 2


@pytest.mark.parametrize(
    "words", [["--short_side", "8"], ["--short_side", "64", "--quality", "10"], ["--quality", "90"]]
)
def test_impossible_scalings_are_refused(photographs, tmp_path, words):
    assert run_cli(lambda: pack_dataset.main([str(photographs), str(tmp_path / "pack"), *words])) == 2
    assert not (tmp_path / "pack").exists()


def test_an_image_that_is_too_long_for_a_jpeg_is_named(tmp_path):
    make_folder(tmp_path / "src", {"a/long.png": encode(Image.new("L", (20, 90_000))), "b/1.png": encode(scene())})
    with pytest.raises(JobError, match=r"long\.png: its 16 x 72000 pixels"):
        write_pack(list_folder(tmp_path / "src"), tmp_path / "pack", 1, scaling=Scaling(16))


@pytest.mark.parametrize(("crop_pct", "enlarged"), [(1.0, False), (0.5, True)])
def test_validation_says_where_a_pack_is_smaller_than_it_needs(photographs, tmp_path, crop_pct, enlarged):
    write_pack(list_folder(photographs), tmp_path / "val", shards=1, scaling=SCALED)
    recipe = load_recipe(overrides={"data_dir": str(tmp_path), "image_resize": 24, "crop_pct": crop_pct})
    assert any("enlarges" in note for note in open_val(recipe).notes) == enlarged
