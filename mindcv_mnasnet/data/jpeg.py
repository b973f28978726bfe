"""Whether a JPEG file is whole, sound and upright, without decoding it, in some 40 to 60 microseconds.

Everything that libjpeg could find fatally wrong is looked at; what only garbles pixels is not. Packs hold nothing else,
so that MindSpore's own decoder may read them: a wrong Huffman table in a header kills its process (SIGSEGV, 2.10).
Section numbers are those of ITU-T T.81.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

JPEG = b"\xff\xd8"  # how such files begin (B.1.1.3)
# A marker inside entropy-coded data: 0xFF followed by neither the stuffed zero nor a restart number (B.1.1.2).
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]", re.DOTALL)
_SOF_BASELINE, _SOF_EXTENDED, _SOF_PROGRESSIVE = 0xC0, 0xC1, 0xC2
_DHT, _EOI, _SOS, _DQT, _DRI, _APP0, _APP1, _APP15, _COM = 0xC4, 0xD9, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xEF, 0xFE

_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_INTEGERS = {1: 1, 3: 2, 4: 4}  # bytes of EXIF's types BYTE, SHORT (which orientations have) and LONG


@dataclass
class _Header:
    progressive: bool = False
    components: dict[int, int] = field(default_factory=dict)  # identifier -> number of its quantization table
    quantization: set[int] = field(default_factory=set)
    huffman: set[int] = field(default_factory=set)  # class << 4 | number
    scans: int = 0
    exif: int | None = None  # orientation in the first EXIF block
    xmp: int | None = None  # and in XMP, which counts where EXIF has none, as in Pillow


class _Doubt(Exception):  # noqa: N818 - not an error, a question
    """Something that libjpeg may not survive, or that is rare enough not to be trusted."""


def jpeg_orientation(data: bytes) -> int | None:
    """EXIF orientation (1 is upright) of a sound 8-bit gray or color JPEG; None for any doubt about it.

    None also means CMYK, 12 bits, arithmetic or lossless coding, and a file that ends before its end marker.
    """
    try:
        header = _walk(data)
    except (_Doubt, IndexError):
        return None
    return header.exif or header.xmp or 1


def _walk(data: bytes) -> _Header:
    _require(data.startswith(JPEG))
    header = _Header()
    at = 2
    while True:
        _require(data[at] == 0xFF)
        marker = data[at + 1]
        if marker == _EOI:
            _require(header.scans > 0)
            return header
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at + 4 : at + 2 + length]
        _require(length >= 2 and len(segment) == length - 2)
        at += 2 + length
        _read_segment(header, marker, segment)
        if marker == _SOS:
            end = _MARKER.search(data, at)
            if end is None:
                raise _Doubt
            at = end.start()


def _read_segment(header: _Header, marker: int, segment: bytes) -> None:
    if marker == _DQT:
        header.quantization.update(_quantization_tables(segment))
    elif marker == _DHT:
        header.huffman.update(_huffman_tables(segment))
    elif marker in (_SOF_BASELINE, _SOF_EXTENDED, _SOF_PROGRESSIVE):
        _read_frame(header, marker, segment)
    elif marker == _SOS:
        _read_scan(header, segment)
    elif marker == _DRI:
        _require(len(segment) == 2)
    elif marker == _APP1 and segment.startswith(b"Exif\0\0"):
        header.exif = header.exif or exif_orientation(segment[6:])
    elif marker == _APP1 and segment.startswith(_XMP):
        found = _XMP_ORIENTATION.search(segment)
        header.xmp = int(found[1]) if found else None
    else:
        _require(_APP0 <= marker <= _APP15 or marker == _COM)


def _read_frame(header: _Header, marker: int, segment: bytes) -> None:
    """B.2.2: precision, height, width, and sampling and quantization table of each component."""
    count = segment[5]
    _require(not header.components and count in (1, 3) and len(segment) == 6 + 3 * count)
    _require(segment[0] == 8 and segment[1:3] != b"\0\0" and segment[3:5] != b"\0\0")
    parts = [segment[at : at + 3] for at in range(6, len(segment), 3)]
    across, down = [part[1] >> 4 for part in parts], [part[1] & 15 for part in parts]
    _require(all(n in (1, 2, 4) for n in across + down))
    _require(sum(h * v for h, v in zip(across, down, strict=True)) <= 10)
    header.components = {part[0]: part[2] for part in parts}
    header.progressive = marker == _SOF_PROGRESSIVE
    _require(len(header.components) == count)


def _read_scan(header: _Header, segment: bytes) -> None:
    """B.2.3: the components of a scan with their tables, spectral selection, successive approximation."""
    count = segment[0]
    _require(1 <= count <= len(header.components) and len(segment) == 4 + 2 * count)
    identifiers = segment[1 : 1 + 2 * count : 2]
    _require(len(set(identifiers)) == count and all(one in header.components for one in identifiers))
    _require(all(header.components[one] in header.quantization for one in identifiers))
    first, last, high, low = segment[-3], segment[-2], segment[-1] >> 4, segment[-1] & 15
    if header.progressive:
        _require(low <= 13 and high in (0, low + 1))
        _require((last == 0) if first == 0 else (first <= last <= 63 and count == 1))
    else:
        _require((first, last, high, low) == (0, 63, 0, 0))
    for tables in segment[2 : 2 + 2 * count : 2]:
        needs_dc = first == 0 and high == 0
        needs_ac = last > 0
        _require(not needs_dc or tables >> 4 in header.huffman)
        _require(not needs_ac or 0x10 | (tables & 15) in header.huffman)
    header.scans += 1


@lru_cache(maxsize=1024)  # most files carry one of a few tables
def _quantization_tables(segment: bytes) -> frozenset[int]:
    """B.2.4.1: 64 values of one or two bytes each."""
    numbers, at = set(), 0
    while at < len(segment):
        precision, number = segment[at] >> 4, segment[at] & 15
        at += 1 + 64 * (1 + precision)
        _require(precision <= 1 and number <= 3 and at <= len(segment))
        numbers.add(number)
    return frozenset(numbers)


@lru_cache(maxsize=1024)
def _huffman_tables(segment: bytes) -> frozenset[int]:
    """B.2.4.2: how many codes there are of each length 1..16, then their symbols; C.2: the codes must fit."""
    numbers, at = set(), 0
    while at < len(segment):
        number, counts = segment[at], segment[at + 1 : at + 17]
        symbols = segment[at + 17 : at + 17 + sum(counts)]
        at += 17 + sum(counts)
        _require(len(counts) == 16 and at <= len(segment) and number in (0, 1, 2, 3, 16, 17, 18, 19))
        _require(number >= 16 or all(symbol <= 15 for symbol in symbols))
        code = 0
        for length, count in enumerate(counts, start=1):
            code += count
            _require(count == 0 or code < 1 << length)
            code <<= 1
        numbers.add(number)
    return frozenset(numbers)


def exif_orientation(tiff: bytes) -> int | None:
    """Orientation in an EXIF block (TIFF structure, tag 0x0112); 1 where it is nonsense, None where there is none."""
    if tiff[:2] not in (b"II", b"MM"):
        return None
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"
    start = int.from_bytes(tiff[4:8], order)
    count = int.from_bytes(tiff[start : start + 2], order)
    for at in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        if int.from_bytes(tiff[at : at + 2], order) == 0x0112:
            size = _INTEGERS.get(int.from_bytes(tiff[at + 2 : at + 4], order), 0)
            value = int.from_bytes(tiff[at + 8 : at + 8 + size], order)
            return value if 1 <= value <= 8 else 1
    return None


def _require(condition: bool) -> None:
    if not condition:
        raise _Doubt
