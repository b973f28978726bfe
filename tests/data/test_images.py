"""Every kind of image file is read as a viewer shows it; broken ones are detected before the decoder sees them."""

from __future__ import annotations

import io
import random
import zlib

import numpy as np
import pytest
from image_files import encode, scene
from PIL import Image, ImageOps

from mindcv_mnasnet.data.decoder import check_image, decode_whole
from mindcv_mnasnet.data.images import BadImage, read_plain, upright_size
from mindcv_mnasnet.data.jpeg import exif_orientation, jpeg_orientation

RGB = scene()
GRAY = RGB.convert("L")
DEEP = Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 257)


def rotated(form: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(RGB, form, exif=exif.tobytes())


def with_segments(*segments: bytes) -> bytes:
    """A JPEG file with these as APP1, the first one first."""
    jpeg = encode(RGB, "JPEG")
    return jpeg[:2] + b"".join(b"\xff\xe1" + (len(one) + 2).to_bytes(2, "big") + one for one in segments) + jpeg[2:]


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    chunk = len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
    return png[:33] + chunk + png[33:]


def exif(order: str, value: int, kind: int = 3, count: int = 1) -> bytes:
    """A TIFF structure with an orientation of type SHORT (3) or LONG (4)."""
    mark = b"II" if order == "little" else b"MM"
    rest = [(value, 2), (0, 2)] if kind == 3 else [(value, 4)]
    numbers = [(42, 2), (8, 4), (count, 2), (0x0112, 2), (kind, 2), (1, 4), *rest, (0, 4)]
    return mark + b"".join(number.to_bytes(size, order) for number, size in numbers)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
APP1_XMP = b"http://ns.adobe.com/xap/1.0/\0" + XMP
APP1_EXIF = b"Exif\0\0"


def shown(data: bytes) -> np.ndarray:
    """What a viewer shows, RGB."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def decoded(data: bytes) -> np.ndarray:
    return decode_whole(data, "image")


KINDS = {
    "jpeg": encode(RGB, "JPEG"),
    "progressive": encode(RGB, "JPEG", progressive=True),
    "full_chroma": encode(RGB, "JPEG", subsampling=0, optimize=True),
    "restarts": encode(RGB, "JPEG", restart_marker_blocks=1),
    "gray_jpeg": encode(GRAY, "JPEG"),
    "cmyk": encode(RGB.convert("CMYK"), "JPEG"),
    "png": encode(RGB),
    "gray_png": encode(GRAY),
    "palette": encode(RGB.quantize(16)),
    "transparent_palette": encode(RGB.quantize(16), transparency=3),
    "rgba": encode(RGB.convert("RGBA")),
    "gray_alpha": encode(RGB.convert("LA")),
    "black_and_white": encode(RGB.convert("1")),
    "bmp": encode(RGB, "BMP"),
    "gif": encode(RGB, "GIF"),
    "webp": encode(RGB, "WEBP", lossless=True),
    "tiff": encode(RGB, "TIFF"),
    **{f"jpeg_turned_{n}": rotated("JPEG", n) for n in range(1, 9)},
    "png_turned": rotated("PNG", 6),
    **{f"tiff_turned_{n}": encode(RGB, "TIFF", tiffinfo={0x0112: n}) for n in (3, 5, 6, 8)},
    "webp_turned": rotated("WEBP", 8),
    "turned_by_a_long": with_segments(APP1_EXIF + exif("big", 6, kind=4)),
    "turned_by_xmp": with_segments(APP1_XMP),
    "exif_before_xmp": with_segments(APP1_XMP, APP1_EXIF + exif("little", 3)),
    "upright_exif_before_xmp": with_segments(APP1_EXIF + exif("little", 1), APP1_XMP),
    "first_of_two_exif": with_segments(APP1_EXIF + exif("little", 8), APP1_EXIF + exif("little", 1)),
    "png_turned_by_xmp": with_chunk(encode(RGB), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
}
PLAIN = {"jpeg", "progressive", "full_chroma", "restarts", "gray_jpeg", "png", "gray_png", "jpeg_turned_1"}
PLAIN |= {"upright_exif_before_xmp"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_decoded_as_a_viewer_shows_it_whatever_its_suffix(kind, tmp_path):
    path = tmp_path / "image.JPEG"
    path.write_bytes(KINDS[kind])
    assert np.array_equal(decoded(read_plain(str(path))), shown(KINDS[kind]))
    assert check_image(str(path)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_is_that_of_the_pixels_that_are_seen(kind, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(KINDS[kind])
    assert upright_size(str(path)) == shown(KINDS[kind]).shape[1::-1]


def test_an_exif_chunk_that_is_none_turns_nothing(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(with_chunk(encode(RGB.convert("RGBA")), b"eXIf", b"garbage.."))
    assert np.array_equal(decoded(read_plain(str(path))), np.asarray(RGB))
    assert upright_size(str(path)) == RGB.size


@pytest.mark.parametrize("header", [b"", b"\0\0\0\1\0\0\0\1\x08", bytes(14)], ids=len)
def test_a_png_header_of_another_length_is_a_bad_image(header, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(encode(RGB)[:8] + with_chunk(bytes(33), b"IHDR", header)[33:])
    assert check_image(str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_plain_images_pass_untouched_and_no_others(kind, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(KINDS[kind])
    converted = read_plain(str(path), lossless="PNG" if kind == "bmp" else "BMP")
    assert (converted == KINDS[kind]) == (kind in PLAIN)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_keep_the_upper_eight(form, tmp_path):
    path = tmp_path / "deep.png"
    path.write_bytes(encode(DEEP, form))
    assert np.array_equal(decoded(read_plain(str(path)))[..., 0], np.asarray(GRAY))


@pytest.mark.parametrize("form", ["BMP", "PNG"])
def test_a_converted_image_loses_nothing(form, tmp_path):
    path = tmp_path / "image.webp"
    path.write_bytes(KINDS["webp"])
    converted = read_plain(str(path), lossless=form)
    assert Image.open(io.BytesIO(converted)).format == form
    assert np.array_equal(decoded(converted), np.asarray(RGB))


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def wrong_bytes(data: bytes, start: bytes, offset: int, value: int) -> bytes:
    """``data`` with the byte ``offset`` after ``start`` replaced."""
    at = data.index(start) + offset
    return data[:at] + bytes([value]) + data[at + 1 :]


BROKEN = {
    "empty": b"",
    "text": b"<html>404 Not Found</html>",
    "cut_jpeg": cut(KINDS["jpeg"], 0.9),
    "cut_gray": cut(KINDS["gray_jpeg"], 0.7),
    "cut_progressive": cut(KINDS["progressive"], 0.9),
    "cut_png": cut(KINDS["png"], 0.8),
    "cut_webp": cut(KINDS["webp"], 0.5),
    "header_only": KINDS["jpeg"][:30],
    "huffman_table": wrong_bytes(KINDS["jpeg"], b"\xff\xc4", 5, 250),  # MindSpore 2.10 dies of it
    "quantization_table": wrong_bytes(KINDS["jpeg"], b"\xff\xdb", 4, 0x7F),  # and of this
    "png_checksum": wrong_bytes(KINDS["png"], b"IDAT", 30, 1),
    "float": encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_is_named_with_a_reason(kind, tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(BROKEN[kind])
    with pytest.raises(BadImage) as error:
        read_plain(str(path))
    assert str(path) in str(error.value)
    assert error.value.reason
    assert "object at 0x" not in error.value.reason
    assert check_image(str(path)) == error.value.reason


def test_a_file_that_cannot_be_read_is_a_bad_image(tmp_path):
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(BadImage, match="No such file"):
        read_plain(str(tmp_path / "link.jpg"))


def test_no_damage_in_a_jpeg_gets_past_the_check_to_kill_the_decoder(tmp_path):
    """The decoder's crash would take pytest with it; what it refuses it may only refuse by an error."""
    draw = random.Random(0)
    survivors = []
    for kind in ("jpeg", "progressive", "gray_jpeg", "full_chroma") * 100:
        damaged = bytearray(KINDS[kind])
        for _ in range(draw.choice((1, 2, 8))):
            damaged[draw.randrange(2, len(damaged))] = draw.randrange(256)
        if jpeg_orientation(bytes(damaged)) is not None:
            survivors.append(bytes(damaged))
    assert len(survivors) > 100
    for damaged in survivors:
        assert decoded(damaged).ndim == 3


def test_exif_in_either_byte_order_and_nonsense_in_it():
    assert [exif_orientation(exif(order, 6, kind)) for order in ("little", "big") for kind in (3, 4)] == [6] * 4
    assert exif_orientation(exif("little", 9)) == 1
    assert exif_orientation(exif("big", 3, count=60000)) == 3
    assert [exif_orientation(junk) for junk in (b"", b"MM", b"XX" + bytes(40), b"II" + b"\xff" * 40)] == [None] * 4
