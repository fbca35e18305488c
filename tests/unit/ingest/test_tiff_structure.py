"""The structural check of TIFF: no truncated or damaged file is ever called closed."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from segmentd.errors import Reason
from segmentd.ingest import structure, tiff_directory, tiff_structure
from segmentd.ingest.tiff import TiffImage
from segmentd.ingest.tiff_structure import TiffSummary
from segmentd.ingest.verdict import CLOSED, Structure, Verdict

GIB = 1 << 30
CODES = {"B": 1, "H": 3, "I": 4, "Q": 16}
PIXELS = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) * 7


def build(
    changes: dict[int, tuple[str, list[int]] | None] | None = None,
    *,
    order: str = "<",
    big: bool = False,
    following: int = 0,
    tail: int = 16 * 12 * 2,
) -> bytes:
    """A TIFF of 12 x 16 uint16 in one strip at offset 1000, with some tags changed (None: left out)."""
    tags: dict[int, tuple[str, list[int]] | None] = {
        256: ("I", [16]),
        257: ("I", [12]),
        258: ("H", [16]),
        259: ("H", [1]),
        262: ("H", [1]),
        273: ("I", [1000]),
        277: ("H", [1]),
        278: ("I", [12]),
        279: ("I", [12 * 16 * 2]),
    }
    tags.update(changes or {})
    head = b"II" if order == "<" else b"MM"
    start = 16 if big else 8
    head += struct.pack(order + "HHHQ", 43, 8, 0, start) if big else struct.pack(order + "HI", 42, start)
    kept = {code: value for code, value in sorted(tags.items()) if value is not None}
    directory, values = struct.pack(order + ("Q" if big else "H"), len(kept)), b""
    width = 8 if big else 4
    values_at = start + len(directory) + len(kept) * (20 if big else 12) + width
    for code, (kind, numbers) in kept.items():
        data = struct.pack(order + str(len(numbers)) + kind, *numbers)
        if len(data) > width:
            data, values = struct.pack(order + "IQ"[big], values_at + len(values)), values + data
        directory += struct.pack(order + "HH" + "IQ"[big], code, CODES[kind], len(numbers))
        directory += data.ljust(width, b"\0")
    directory += struct.pack(order + "IQ"[big], following)
    return (head + directory + values).ljust(1000, b"\0") + PIXELS.astype(order + "u2").tobytes()[:tail]


def check(data: bytes) -> Structure:
    with io.FileIO(os.memfd_create("test"), "w+") as file:
        file.write(data)
        return structure.check(file.fileno(), "x.tif")


def fault(data: bytes) -> tuple[Verdict, str, str]:
    found = check(data)
    assert found.fault is not None
    assert found.fault.message.startswith("x.tif ")
    return found.verdict, found.fault.reason, found.fault.message


def planes(fd: int) -> list[np.ndarray[Any, Any]]:
    summary = structure.examine(fd, "x.tif")
    assert isinstance(summary, TiffSummary)
    image = TiffImage(fd, summary)
    return [image.read(index) for index in image.info.planes()]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_a_whole_file_is_closed_and_read(order: str, big: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(build(order=order, big=big))
    with path.open("rb") as file:
        assert structure.check(file.fileno(), "x.tif") == CLOSED
        np.testing.assert_array_equal(planes(file.fileno())[0], PIXELS[None])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_cut_anywhere_it_is_open(order: str, big: bool) -> None:
    data = build(order=order, big=big)
    for size in range(len(data)):
        verdict, reason, message = fault(data[:size])
        assert (verdict, reason) == (Verdict.OPEN, Reason.IMAGE_INCOMPLETE), size
        assert "incomplete" in message


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_written_from_front_to_back_it_is_open_until_its_directory_is_there(order: str, big: bool) -> None:
    """As in a file that had its full size from the start."""
    data = build(order=order, big=big)
    last_entry = (16 + 8 + 8 * 20) if big else (8 + 2 + 8 * 12)
    for size in range(16 if big else 8, last_entry):
        assert check(data[:size].ljust(len(data), b"\0")).verdict is Verdict.OPEN, size


def written(**options: Any) -> bytes:
    buffer = io.BytesIO()
    stack = np.random.default_rng(3).integers(0, 4000, (3, 40, 50), dtype=np.uint16)
    tifffile.imwrite(buffer, options.pop("data", stack), **options)
    return buffer.getvalue()


WRITERS: dict[str, dict[str, Any]] = {
    "plain": {"photometric": "minisblack", "metadata": None},
    "shaped": {"photometric": "minisblack", "metadata": {"axes": "ZYX"}},
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX", "Labels": ["a", "b", "c"]}},
    "ome": {"ome": True, "metadata": {"axes": "ZYX"}, "photometric": "minisblack"},
    "bigtiff tiles": {"bigtiff": True, "tile": (16, 16), "compression": "zlib", "photometric": "minisblack"},
    "odd strips": {"rowsperstrip": 7, "photometric": "minisblack"},
    "lzw strips": {"compression": "lzw", "rowsperstrip": 7, "predictor": True, "photometric": "minisblack"},
    "rgb planar": {"data": np.arange(3600, dtype=np.uint8).reshape(3, 40, 30), "photometric": "rgb"},
    "one bit": {"data": np.eye(40, 30, dtype=bool), "photometric": "minisblack"},
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_cut_file_is_open_or_lost_nothing(writer: str, tmp_path: Path) -> None:
    data = written(**WRITERS[writer])
    path = tmp_path / "x.tif"
    path.write_bytes(data)
    with path.open("r+b") as file:
        whole = planes(file.fileno())
        for size in [*range(len(data) - 1, len(data) - 40, -1), *range(len(data) - 40, -1, -97)]:
            file.truncate(size)
            found = structure.check(file.fileno(), "x.tif")
            assert found.verdict is not Verdict.BAD
            if found is CLOSED:
                np.testing.assert_array_equal(planes(file.fileno()), whole)


@pytest.mark.parametrize("imagej", [True, False])
def test_one_directory_for_many_planes(imagej: bool, tmp_path: Path) -> None:
    """ImageJ writes big stacks so: a single directory, and a number of planes in the description."""
    stack = np.arange(5 * 20 * 30, dtype=np.uint16).reshape(5, 20, 30)
    path = tmp_path / "x.tif"
    if imagej:
        first = io.BytesIO()
        text = "ImageJ=1.54f\nimages=5\nslices=5\nloop=false\n"
        tifffile.imwrite(first, stack[0], description=text, metadata=None)
        path.write_bytes(first.getvalue() + stack[1:].tobytes())
    else:
        tifffile.imwrite(path, stack, photometric="minisblack", truncate=True)
    with path.open("r+b") as file:
        assert tiff_structure.examine(file.fileno()).page_count == 1
        np.testing.assert_array_equal(np.stack(planes(file.fileno()))[:, 0], stack)
        size = path.stat().st_size
        for missing in (1, 30 * 20 * 2, 30 * 20 * 2 * 3):
            file.truncate(size - missing)
            assert structure.check(file.fileno(), "x.tif").verdict is Verdict.OPEN


@pytest.mark.parametrize("kind", ["ome", "shaped"])
def test_a_stack_that_is_written_plane_by_plane_is_open_until_the_last(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    verdicts = []

    def slowly() -> Any:
        for number in range(4):
            if number:
                with path.open("rb") as file:
                    verdicts.append(structure.check(file.fileno(), "x.tif").verdict)
            yield np.full((20, 30), number, np.uint8)

    with tifffile.TiffWriter(path, ome=kind == "ome", shaped=kind == "shaped") as writer:
        metadata = {"axes": "ZYX"}
        writer.write(slowly(), shape=(4, 20, 30), dtype=np.uint8, metadata=metadata, photometric="minisblack")
    assert set(verdicts) == {Verdict.OPEN}
    with path.open("rb") as file:
        assert structure.check(file.fileno(), "x.tif") == CLOSED


STORED = {273: ("I", [1000, 1100]), 279: ("I", [100, 284]), 278: ("I", [6])}
BAD_FILES: dict[str, tuple[bytes, Reason, str]] = {
    "text": (b"Filter: DAPI\nExposure: 20 ms\n" * 9, Reason.IMAGE_UNSUPPORTED, "not an image that this"),
    "another image format": (b"GIF89a" + bytes(300), Reason.IMAGE_UNSUPPORTED, "it reads TIFF"),
    "damaged BigTIFF header": (
        build(big=True)[:4] + b"\4\0" + build(big=True)[6:],
        Reason.IMAGE_CORRUPT,
        "damaged BigTIFF header",
    ),
    "loop": (build(following=8), Reason.IMAGE_CORRUPT, "in a loop"),
    "too many tags": (b"II*\0\x08\0\0\0" + b"\x01\x10" * 40000, Reason.IMAGE_CORRUPT, "4097 tags"),
    "no width": (build({256: None}), Reason.IMAGE_CORRUPT, "no width"),
    "width 0": (build({256: ("I", [0])}), Reason.IMAGE_CORRUPT, "no width"),
    "width of a wrong type": (
        build().replace(b"\x00\x01\x04", b"\x00\x01\x0b", 1),
        Reason.IMAGE_CORRUPT,
        "tag 256 of type 11",
    ),
    "no samples": (build({277: ("H", [0])}), Reason.IMAGE_CORRUPT, "samples"),
    "planes of no known kind": (build({284: ("H", [3])}), Reason.IMAGE_CORRUPT, "samples"),
    "0 bits": (build({258: ("H", [0])}), Reason.IMAGE_UNSUPPORTED, "0-bit unsigned integers"),
    "mixed bits": (
        build({277: ("H", [3]), 258: ("H", [5, 6, 5])}),
        Reason.IMAGE_UNSUPPORTED,
        "mixes pixel types",
    ),
    "int32": (
        build({258: ("H", [32]), 339: ("H", [2])}),
        Reason.IMAGE_UNSUPPORTED,
        "32-bit signed integers",
    ),
    "complex": (
        build({258: ("H", [64]), 339: ("H", [6])}),
        Reason.IMAGE_UNSUPPORTED,
        "64-bit complex numbers",
    ),
    "uint64": (build({258: ("H", [64])}), Reason.IMAGE_UNSUPPORTED, "64-bit unsigned integers"),
    "fax": (build({259: ("H", [4])}), Reason.IMAGE_UNSUPPORTED, "method 4"),
    "old JPEG": (build({259: ("H", [6])}), Reason.IMAGE_UNSUPPORTED, "method 6"),
    "LERC": (build({259: ("H", [34887])}), Reason.IMAGE_UNSUPPORTED, "Zstandard"),
    "unknown predictor": (build({317: ("H", [34892])}), Reason.IMAGE_UNSUPPORTED, "compressed"),
    "CMYK": (build({262: ("H", [5])}), Reason.IMAGE_UNSUPPORTED, "colours of kind 5"),
    "YCbCr without JPEG": (build({262: ("H", [6])}), Reason.IMAGE_UNSUPPORTED, "colours of kind 6"),
    "volume": (build({32997: ("I", [2])}), Reason.IMAGE_UNSUPPORTED, "volumes"),
    "no strips": (build({273: None}), Reason.IMAGE_CORRUPT, "no strips"),
    "no sizes of strips": (build({279: None}), Reason.IMAGE_CORRUPT, "no strips"),
    "too few strips": (build({278: ("I", [6])}), Reason.IMAGE_CORRUPT, "1 strips in image 0, its size needs"),
    "too many strips": (build({**STORED, 278: ("I", [12])}), Reason.IMAGE_CORRUPT, "its size needs 1"),
    "strips of 0 rows": (build({278: ("I", [0])}), Reason.IMAGE_CORRUPT, "0 rows"),
    "a strip that is too small": (build(STORED), Reason.IMAGE_CORRUPT, "100 bytes in strip 0"),
    "tiles without a size": (
        build({322: ("I", [0]), 323: ("I", [16]), 324: ("I", [1000]), 325: ("I", [384])}),
        Reason.IMAGE_CORRUPT,
        "tiles without a size",
    ),
    "tiles of a square metre": (
        build({322: ("I", [1 << 20]), 323: ("I", [1 << 20]), 324: ("I", [1000]), 325: ("I", [384])}),
        Reason.IMAGE_TOO_LARGE,
        "tiles of 1048576 x 1048576",
    ),
    "a number of tiles that nobody can count": (
        build({256: ("I", [2**31]), 257: ("I", [2**31]), **dict.fromkeys((322, 323, 324), ("I", [1]))}),
        Reason.IMAGE_TOO_LARGE,
        "split it",
    ),
    "2 GB of pixels in 384 bytes": (
        build({256: ("I", [32000]), 257: ("I", [32000]), 278: ("I", [32000]), 259: ("H", [8])}),
        Reason.IMAGE_TOO_LARGE,
        "unpacks 384 bytes",
    ),
    "500 GB of pixels": (
        build({256: ("I", [500_000]), 257: ("I", [500_000]), 278: ("I", [500_000])}),
        Reason.IMAGE_TOO_LARGE,
        "500000000000 bytes",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_with_a_reason(name: str) -> None:
    data, reason, text = BAD_FILES[name]
    verdict, found, message = fault(data)
    assert (verdict, found) == (Verdict.BAD, reason)
    assert text in message


OPEN_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "one letter": (b"I", "1 bytes"),
    "zeros": (bytes(5000), "not been written"),
    "no directory yet": (b"II*\0" + bytes(500), "does not point"),
    "directory beyond the end": (b"II*\0\0\1\0\0", "directory of image 0 ends"),
    "empty directory": (b"II*\0\x08\0\0\0" + bytes(500), "still empty"),
    "directory without entries yet": (b"II*\0\x08\0\0\0\x0a\0" + bytes(500), "still empty"),
    "directory half written": (build()[:60] + bytes(1000), "not filled in"),
    "next directory beyond the end": (build(following=100_000), "image 1 ends"),
    "strip at 0": (build({273: ("I", [0])}), "missing"),
    "strip of 0 bytes": (build({279: ("I", [0])}), "missing"),
    "strip beyond the end": (build({273: ("I", [1001])}), "byte 1385, the file at byte 1384"),
    "strip beyond the end, whatever its size says": (build({279: ("I", [1])}, tail=300), "byte 1384"),
    "strip far beyond the end": (build({273: ("I", [2**32 - 1])}), "strip 0"),
    "strips that overflow": (
        build({273: ("Q", [2**64 - 1]), 259: ("H", [8])}, big=True),
        "the file at byte 1384",
    ),
    "a compressed strip beyond the end": (build({259: ("H", [8]), 279: ("I", [385])}), "byte 1385"),
    "values beyond the end": (build().replace(b"\x12\1", b"\x12\1", 1)[:-1], "strip 0"),
}


@pytest.mark.parametrize("name", OPEN_FILES)
def test_files_that_may_grow_are_open(name: str) -> None:
    data, text = OPEN_FILES[name]
    verdict, reason, message = fault(data)
    assert (verdict, reason) == (Verdict.OPEN, Reason.IMAGE_INCOMPLETE)
    assert text in message


def test_values_of_any_tag_must_lie_inside() -> None:
    data = bytearray(build({33550: ("Q", [1, 2, 3])}, big=True))
    at = data.index(struct.pack("<HHQ", 33550, 16, 3)) + 12
    struct.pack_into("<Q", data, at, 1 << 40)
    assert fault(bytes(data))[0] is Verdict.OPEN
    struct.pack_into("<Q", data, at - 8, 1 << 60)
    assert fault(bytes(data))[0] is Verdict.OPEN


def test_sparse_files_are_not_written_yet(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    side = 16384
    header = build({279: ("I", [side * side * 2]), **dict.fromkeys((256, 257, 278), ("I", [side]))})[:1000]
    with path.open("w+b") as file:
        file.write(header)
        file.truncate(4096 + 2 * side * side)
        found = structure.check(file.fileno(), "sparse.tif")
        assert found.verdict is Verdict.OPEN
        assert found.fault is not None
        assert "not been written" in found.fault.message
        os.pwrite(file.fileno(), b"x", 5000)
        assert structure.check(file.fileno(), "sparse.tif") == CLOSED


def test_headers_have_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_directory, "MAX_HEADER_BYTES", 100)
    assert fault(build())[:2] == (Verdict.BAD, Reason.IMAGE_TOO_LARGE)


def test_the_number_of_images_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_directory, "MAX_DIRECTORIES", 2)
    data = written(photometric="minisblack", metadata=None)
    assert fault(data)[:2] == (Verdict.BAD, Reason.IMAGE_TOO_LARGE)


def test_files_beyond_all_measure_are_not_looked_into(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    with path.open("w+b") as file:
        file.truncate(65 * GIB)
        found = structure.check(file.fileno(), "huge.tif")
    assert found.fault is not None
    assert found.fault.reason == Reason.IMAGE_TOO_LARGE


@pytest.mark.parametrize("subifds", [1, 3])
def test_smaller_copies_are_walked_once(subifds: int, tmp_path: Path) -> None:
    path = tmp_path / "pyramid.ome.tif"
    full = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(full, subifds=subifds, tile=(16, 16))
        for level in range(1, subifds + 1):
            writer.write(full[:: 2**level, :: 2**level], subfiletype=1, tile=(16, 16))
    with path.open("rb") as file:
        assert tiff_structure.examine(file.fileno()).page_count == 1
        np.testing.assert_array_equal(planes(file.fileno())[0][0], full)
    with tifffile.TiffFile(path) as tiff:
        smallest = max(tiff.series[0].levels[-1].keyframe.dataoffsets)
    assert check(path.read_bytes()[:smallest]).verdict is Verdict.OPEN


@given(st.data())
def test_no_damage_makes_the_check_raise_anything_else(data: st.DataObject) -> None:
    original = build(big=data.draw(st.booleans()), order=data.draw(st.sampled_from("<>")))
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 330))
        damaged[at] = data.draw(st.sampled_from([0, 1, 2, 4, 16, 127, 128, 254, 255]))
    found = check(bytes(damaged))
    assert (found.fault is None) == (found.verdict is Verdict.CLOSED)
