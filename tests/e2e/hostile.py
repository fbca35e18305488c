"""Odd and hostile files, always the same ones for one seed, and what must become of each."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import imagecodecs
import numpy as np
import tifffile

from .images import Pixels, blobs

DONE, IGNORED = "done", "ignored"
INCOMPLETE, CORRUPT, UNSUPPORTED = "IMAGE_INCOMPLETE", "IMAGE_CORRUPT", "IMAGE_UNSUPPORTED"
TOO_LARGE, OTHER_TYPE, OTHER_CHANNELS = "IMAGE_TOO_LARGE", "PIXEL_TYPE_MISMATCH", "CHANNEL_COUNT_MISMATCH"
ANY_END = frozenset({DONE, INCOMPLETE, CORRUPT, UNSUPPORTED, TOO_LARGE, OTHER_TYPE, OTHER_CHANNELS})

Tags = dict[int, tuple[str, list[int]] | None]
_TIFF_TYPES = {"B": 1, "H": 3, "I": 4, "Q": 16}
_SHAPE = (32, 48)
_OFFSET = 2048


@dataclass(frozen=True)
class Odd:
    """A file: its name, what it holds, and in which of several ways it may end."""

    name: bytes
    data: bytes
    ends: frozenset[str] = field(default_factory=frozenset)


def odd_files(seed: int, count: int) -> list[Odd]:
    """Make files of all kinds, filled up to `count` with damaged copies of good ones."""
    made = [*_tiffs(), *_rasters(), *_other_content(), *_names()]
    made += _damaged(Random(seed), count - len(made))
    assert len({odd.name for odd in made}) == len(made)
    return made


def special_files(folder: Path, outside: Path) -> list[bytes]:
    """Make what is no regular file, or lies elsewhere; none of it is an input. Returns the names."""
    secret = outside / "secret.tif"
    secret.write_bytes(_good())
    (folder / "folder.tif").mkdir()
    (folder / "link.tif").symlink_to(secret)
    (folder / "dangling.tif").symlink_to(folder / "nowhere.tif")
    (folder / "loop.tif").symlink_to(folder / "loop.tif")
    (folder / "elsewhere").symlink_to(outside)
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.tif")
    here = Path.cwd()
    os.chdir(folder)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.tif")
    finally:
        os.chdir(here)
    return [b"link.tif", b"dangling.tif", b"loop.tif", b"elsewhere/secret.tif", b"pipe.tif", b"socket.tif"]


def _odd(name: str, data: bytes, *ends: str) -> Odd:
    return Odd(name.encode(), data, frozenset(ends))


# ------------------------------------------------------------ TIFF


def _tiff(changes: Tags | None = None, following: int = 0, pixels: bytes | None = None) -> bytes:
    """A little-endian TIFF of one strip at a fixed place, with some tags changed (None: left out)."""
    height, width = _SHAPE
    size = 2 * height * width
    tags: Tags = {256: ("I", [width]), 257: ("I", [height]), 258: ("H", [16]), 259: ("H", [1])}
    tags |= {
        262: ("H", [1]),
        273: ("I", [_OFFSET]),
        277: ("H", [1]),
        278: ("I", [height]),
        279: ("I", [size]),
    }
    tags |= changes or {}
    kept = {code: value for code, value in sorted(tags.items()) if value is not None}
    entries, values = b"", b""
    values_at = 8 + 2 + 12 * len(kept) + 4
    for code, (kind, numbers) in kept.items():
        data = struct.pack(f"<{len(numbers)}{kind}", *numbers)
        if len(data) > 4:
            data, values = struct.pack("<I", values_at + len(values)), values + data
        entries += struct.pack("<HHI", code, _TIFF_TYPES[kind], len(numbers)) + data.ljust(4, b"\0")
    head = struct.pack("<2sHIH", b"II", 42, 8, len(kept)) + entries + struct.pack("<I", following) + values
    body = blobs(7, _SHAPE).tobytes() if pixels is None else pixels
    return head.ljust(_OFFSET, b"\0") + body


def _written(*planes: Pixels, **options: object) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=bool(options.pop("bigtiff", False))) as tiff:
        for plane in planes:
            tiff.write(plane, metadata=None, contiguous=False, **options)
    return file.getvalue()


def _good() -> bytes:
    return _written(blobs(8, _SHAPE))


def _ome(xml: str, planes: int = 1) -> bytes:
    return _written(*[blobs(9, _SHAPE)] * planes, description=xml.encode())


def _tiffs() -> Iterator[Odd]:
    yield from _cut_tiffs()
    yield from _impossible_tiffs()
    yield from _compressed_tiffs()
    yield from _ome_tiffs()
    yield from _pixel_types()


def _cut_tiffs() -> Iterator[Odd]:
    stack = _written(*[blobs(seed, _SHAPE) for seed in range(5)])
    last = _tiff(following=0)
    for percent in range(1, 100, 7):
        yield _odd(f"stack cut at {percent} percent.tif", stack[: len(stack) * percent // 100], INCOMPLETE)
    yield _odd(
        "directory not there yet.tif", struct.pack("<2sHI", b"II", 42, 90_000) + bytes(5000), INCOMPLETE
    )
    yield _odd("next directory outside.tif", _tiff(following=1 << 30), INCOMPLETE)
    yield _odd("no pixels.tif", last[:_OFFSET], INCOMPLETE)
    yield _odd("half of the pixels.tif", last[:-700], INCOMPLETE)
    yield _odd("offset zero.tif", _tiff({273: ("I", [0])}), INCOMPLETE)
    yield _odd("byte count zero.tif", _tiff({279: ("I", [0])}), INCOMPLETE)
    yield _odd("strip outside.tif", _tiff({273: ("I", [4_000_000_000])}), INCOMPLETE)
    yield _odd("header only.tif", b"II*\0", INCOMPLETE)
    yield _odd("header without directory.tif", b"II*\0" + bytes(4), INCOMPLETE)
    big = _written(blobs(1, _SHAPE), bigtiff=True)
    for size in (9, 16, 40, len(big) - 1):
        yield _odd(f"BigTIFF of {size} bytes.tif", big[:size], INCOMPLETE)


def _impossible_tiffs() -> Iterator[Odd]:
    for word, tag in (("width", 256), ("height", 257), ("samples", 277), ("rows of a strip", 278)):
        yield _odd(f"{word} 0.tif", _tiff({tag: ("I", [0])}), CORRUPT)
    yield _odd("no width.tif", _tiff({256: None}), CORRUPT)
    yield _odd("no strips.tif", _tiff({273: None, 279: None}), CORRUPT)
    yield _odd("two strips for one.tif", _tiff({273: ("I", [_OFFSET] * 2), 279: ("I", [9] * 2)}), CORRUPT)
    yield _odd("planar 7.tif", _tiff({284: ("H", [7])}), CORRUPT)
    yield _odd("directory in a circle.tif", _tiff(following=8), CORRUPT, UNSUPPORTED)
    yield _odd("directory in itself.tif", _tiff({330: ("I", [8])}), CORRUPT, UNSUPPORTED, DONE)
    for bits in (0, 3, 13, 64, 65_535):
        yield _odd(f"{bits} bits.tif", _tiff({258: ("H", [bits])}), UNSUPPORTED, CORRUPT)
    for kind in (5, 6, 9):
        yield _odd(f"sample format {kind}.tif", _tiff({339: ("H", [kind])}), UNSUPPORTED)
    for method in (2, 4, 34_661, 34_887, 50_001, 65_000):
        yield _odd(f"compression {method}.tif", _tiff({259: ("H", [method])}), UNSUPPORTED)
    for colours in (5, 8, 32_803, 34_892):
        yield _odd(f"photometric {colours}.tif", _tiff({262: ("H", [colours])}), UNSUPPORTED)
    for width in (1 << 20, 1 << 26, (1 << 32) - 1):
        huge = {256: ("I", [width]), 257: ("I", [width]), 278: ("I", [width])}
        yield _odd(f"width and height {width}.tif", _tiff(huge), TOO_LARGE, INCOMPLETE, CORRUPT)
    tile = {322: ("I", [1 << 20]), 323: ("I", [1 << 20]), 324: ("I", [_OFFSET]), 325: ("I", [100])}
    yield _odd("tile of a terapixel.tif", _tiff({**tile, 273: None, 279: None}), TOO_LARGE)
    many = {273: ("I", [_OFFSET] * 3000), 279: ("I", [1] * 3000), 257: ("I", [3000]), 278: ("I", [1])}
    yield _odd("strips of too few bytes.tif", _tiff(many, pixels=bytes(40_000)), CORRUPT, INCOMPLETE)
    tags = struct.pack("<2sHIH", b"II", 42, 8, 65_535) + bytes(12 * 65_535 + 4)
    yield _odd("65535 tags.tif", tags, CORRUPT, UNSUPPORTED, TOO_LARGE, INCOMPLETE)
    outside = bytearray(_tiff({270: ("B", [65] * 40)}))
    at = outside.index(struct.pack("<HHI", 270, 1, 40)) + 8
    outside[at : at + 4] = struct.pack("<I", 1 << 31)
    yield _odd("value of a tag outside.tif", bytes(outside), INCOMPLETE)
    endless = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) + struct.pack("<Q", 1 << 60) + bytes(99)
    yield _odd("BigTIFF of 2^60 tags.tif", endless, CORRUPT, TOO_LARGE, INCOMPLETE, UNSUPPORTED)
    beyond = struct.pack("<2sHHHQ", b"II", 43, 8, 0, (1 << 63) + 16) + bytes(99)
    yield _odd("BigTIFF with its directory beyond 2^63.tif", beyond, INCOMPLETE, CORRUPT)
    yield _odd(
        "BigTIFF of 4-byte offsets.tif",
        struct.pack("<2sHHHQ", b"II", 43, 4, 0, 16) + bytes(99),
        CORRUPT,
        UNSUPPORTED,
    )


def _compressed_tiffs() -> Iterator[Odd]:
    for method in ("zlib", "lzw", "zstd", "packbits", "jpeg2000"):
        data = bytearray(_written(blobs(3, _SHAPE), compression=method))
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            start, size = tiff.pages.first.dataoffsets[0], tiff.pages.first.databytecounts[0]
        yield _odd(f"good {method}.tif", bytes(data), DONE)
        for what, fill in (("zeros", b"\0"), ("ones", b"\xff"), ("rubbish", b"\x55\xaa\x13")):
            spoilt = data.copy()
            spoilt[start : start + size] = (fill * size)[:size]
            yield _odd(f"{method} of {what}.tif", bytes(spoilt), CORRUPT, INCOMPLETE, DONE)
        spoilt = data.copy()
        spoilt[start + size // 2 : start + size] = bytes(size - size // 2)
        yield _odd(f"{method}, half of it zeros.tif", bytes(spoilt), CORRUPT, DONE)
    bomb = zlib.compress(bytes(256 << 20), 1)
    size = {256: ("I", [48]), 259: ("H", [8]), 279: ("I", [len(bomb)])}
    yield _odd("more pixels than its size.tif", _tiff(size, pixels=bomb), CORRUPT, DONE)
    claims = {256: ("I", [30_000]), 257: ("I", [30_000]), 278: ("I", [30_000])} | {259: ("H", [8])}
    yield _odd(
        "1.8 GB of nothing.tif", _tiff({**claims, 279: ("I", [len(bomb)])}, pixels=bomb), TOO_LARGE, CORRUPT
    )


def _ome_tiffs() -> Iterator[Odd]:
    height, width = _SHAPE
    pixels = f'DimensionOrder="XYZCT" Type="uint16" SizeX="{width}" SizeY="{height}" SizeC="1" SizeT="1"'
    start = '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'

    def ome(body: str, size_z: int = 1, head: str = start) -> bytes:
        inside = f'<Image ID="Image:0"><Pixels ID="Pixels:0" {pixels} SizeZ="{size_z}">'
        inside += '<Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        return _ome(f"{head}{inside}{body}</Pixels></Image></OME>")

    def names(file: str) -> str:
        return f'<TiffData IFD="0" PlaneCount="1"><UUID FileName="{file}">urn:uuid:1</UUID></TiffData>'

    yield _odd("good.ome.tif", ome('<TiffData IFD="0" PlaneCount="1"/>'), DONE)
    yield _odd("promises 40 planes.ome.tif", ome("<TiffData/>", 40), INCOMPLETE)
    for number, file in enumerate(("../secret.tif", "/etc/passwd", "companion.ome.tif", "a/b.tif")):
        data = ome('<TiffData IFD="0" PlaneCount="1"/>' + names(file).replace('IFD="0"', 'FirstZ="1"'), 2)
        yield _odd(f"names another file {number}.ome.tif", data, INCOMPLETE, UNSUPPORTED, CORRUPT, DONE)
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY e0 "ha">{entities}]>'
    yield _odd("entities.ome.tif", ome("&e9;", head=bomb + start[21:]), CORRUPT, UNSUPPORTED)
    file = '<!DOCTYPE OME [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    yield _odd("outside entity.ome.tif", ome("&x;", head=file + start[21:]), CORRUPT, UNSUPPORTED)
    yield _odd("deep.ome.tif", ome("<a>" * 20_000 + "</a>" * 20_000), CORRUPT, UNSUPPORTED, DONE)
    yield _odd("broken.ome.tif", _ome(start + "<Image>"), CORRUPT, UNSUPPORTED, INCOMPLETE, DONE)
    yield _odd("large.ome.tif", ome("<!--" + " " * (17 << 20) + "-->"), TOO_LARGE, CORRUPT, UNSUPPORTED)


def _pixel_types() -> Iterator[Odd]:
    values = blobs(4, _SHAPE)
    for dtype in (np.uint8, np.int16, np.uint32, np.float16, np.float32, np.float64):
        yield _odd(f"{np.dtype(dtype).name}.tif", _written(values.astype(dtype)), OTHER_TYPE)
    yield _odd("complex.tif", _written(values.astype(np.complex64)), UNSUPPORTED)
    nothing = np.where(values > 100, np.nan, np.inf).astype(np.float32)
    yield _odd("no numbers.tif", _written(nothing), OTHER_TYPE)
    yield _odd("colour.tif", _written(np.zeros((*_SHAPE, 3), np.uint8), photometric="rgb"), OTHER_TYPE)
    yield _odd(
        "three channels.tif", _written(np.zeros((*_SHAPE, 3), np.uint16), photometric="rgb"), OTHER_CHANNELS
    )
    yield _odd("one pixel.tif", _written(np.full((1, 1), 9, np.uint16)), DONE)
    yield _odd("one row.tif", _written(np.full((1, 700), 9, np.uint16)), DONE)
    yield _odd("one column.tif", _written(np.full((700, 1), 9, np.uint16)), DONE)
    yield _odd("big-endian.tif", _written(values.astype(">u2")), DONE)


# ------------------------------------------------------------ others


def _rasters() -> Iterator[Odd]:
    png = imagecodecs.png_encode(blobs(5, _SHAPE))
    jpeg = imagecodecs.jpeg_encode(blobs(5, _SHAPE, np.uint8))
    yield _odd("good.png", png, DONE)
    yield _odd("grey.jpg", jpeg, OTHER_TYPE)
    for percent in (1, 20, 60, 95, 99):
        yield _odd(f"cut at {percent} percent.png", png[: len(png) * percent // 100], INCOMPLETE)
        yield _odd(f"cut at {percent} percent.jpg", jpeg[: len(jpeg) * percent // 100], INCOMPLETE)
    for width in (0, 1 << 28, (1 << 31) - 1, (1 << 32) - 1):
        head = struct.pack(">4sIIBBBBB", b"IHDR", width, width, 16, 0, 0, 0, 0)
        data = png[:8] + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + png[33:]
        yield _odd(f"width {width}.png", data, TOO_LARGE, CORRUPT, UNSUPPORTED)
    spoilt = bytearray(png)
    spoilt[60:90] = b"\x55" * 30
    yield _odd("rubbish.png", bytes(spoilt), CORRUPT)
    yield _odd("a PNG of the name.tif", png, DONE)
    yield _odd("a TIFF of the name.png", _good(), DONE)


def _other_content() -> Iterator[Odd]:
    yield _odd("empty.tif", b"", INCOMPLETE)
    yield _odd("empty.png", b"", INCOMPLETE)
    yield _odd("one byte.tif", b"I", INCOMPLETE)
    yield _odd("zeros.tif", bytes(9000), INCOMPLETE)
    kinds = {
        "text": b"this is a note and no image\n" * 9,
        "page": b"<!DOCTYPE html><html><script>alert(1)</script></html>",
        "archive": b"PK\x03\x04" + bytes(200),
        "program": b"\x7fELF\x02\x01\x01" + bytes(200),
        "pickle": b"\x80\x04\x95\x20\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(200),
        "GIF": b"GIF89a" + bytes(100),
        "script": b"#!/bin/sh\nrm -rf /\n",
    }
    for kind, data in kinds.items():
        yield _odd(f"{kind}.tif", data, UNSUPPORTED)
    yield _odd("rubbish.tif", Random(1).randbytes(5000), UNSUPPORTED)


def _names() -> Iterator[Odd]:
    good = _good()
    names = [b"\xff\xfe not text.tif", b"new\nline.tif", b"tab\t.tif", b"-rf.tif", b"'quotes' \"both\".tif"]
    names += [b"<b>markup<b>.tif", b"$(reboot).tif", b"%s%n.tif", b"back\\slash.tif", b"semi;colon|pipe.tif"]
    names += [
        "µ 顕微鏡 🔬.tif".encode(),
        "e\u0301.tif".encode(),
        "\u00e9.tif".encode(),
        b"UPPER.TIF",
        b"upper.tif",
    ]
    names += [b"a.tif.tif", b"a.tiff", b" leading.tif", b"\x1b[31mred.tif", b"x" * 251 + b".tif", b"con.tif"]
    names += ["\u202egnp.tif".encode(), b"n" * 120 + b".tif", b"dots...tif"]
    for name in names:
        yield Odd(name, good, frozenset({DONE}))
    for name in (
        b".hidden.tif",
        b"~$lock.tif",
        b"half.tif.part",
        b"a.tif.labels.ome.tif",
        b"notes.txt",
        b"x.tif~",
    ):
        yield Odd(name, good, frozenset({IGNORED}))


def _damaged(random: Random, count: int) -> Iterator[Odd]:
    """Good files with some bytes changed, mostly in front, where it hurts."""
    plain = [_good(), _written(blobs(6, _SHAPE), compression="zlib"), _written(*[blobs(2, _SHAPE)] * 3)]
    plain += [
        imagecodecs.png_encode(blobs(2, _SHAPE)),
        _written(blobs(6, _SHAPE), bigtiff=True, tile=(16, 16)),
    ]
    for number in range(count):
        data = bytearray(random.choice(plain))
        for _ in range(random.randint(1, 12)):
            data[random.randrange(random.choice([16, 200, len(data)]))] = random.randrange(256)
        yield _odd(f"damaged {number:03}.tif", bytes(data), *ANY_END)
