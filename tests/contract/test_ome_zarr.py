"""OME-Zarr: what is read equals what was written, and nothing is read that was not written yet."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest import confine, decode, structure
from segmentd.ingest.readers import OpenImage, open_image
from segmentd.ingest.verdict import Verdict
from segmentd.records import PixelSize, PlaneIndex
from segmentd.workers import WorkerPool

from ..unit.ingest.ome_zarr_files import (
    OMERO,
    change_document,
    five_dimensions,
    multiscales,
    write_ome_zarr,
)

GIB = 1 << 30


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1, memory_bytes=3 * GIB) as started:
        yield started


def check(path: Path) -> structure.Structure:
    fd = confine.open_image(path)
    try:
        return structure.check(fd, path.name)
    finally:
        os.close(fd)


def refusal(pool: WorkerPool, path: Path) -> tuple[Reason, str]:
    with pytest.raises(SegmentdError) as caught, open_image(pool, path) as image:
        image.read_plane(PlaneIndex())
    return caught.value.reason, caught.value.message


def planes(image: OpenImage) -> np.ndarray[Any, Any]:
    """All pixels of the first scene: T, Z, C, Y, X."""
    info = image.info
    found = [image.read_plane(index).pixels for index in info.planes() if index.scene == 0]
    return np.stack(found).reshape(info.size_t, info.size_z, info.channel_count, info.height, info.width)


@pytest.mark.parametrize(("version", "dtype"), [("0.4", ">u2"), ("0.5", "uint16")])
def test_five_dimensions(version: str, dtype: str, pool: WorkerPool, tmp_path: Path) -> None:
    pixels = five_dimensions(dtype)
    path = write_ome_zarr(tmp_path / "a.ome.zarr", pixels, version=version, omero=OMERO, levels=2)
    assert check(path).verdict is Verdict.CLOSED
    with open_image(pool, path) as image:
        info = image.info
        np.testing.assert_array_equal(planes(image), pixels.transpose(0, 2, 1, 3, 4).astype(info.pixel_type))
        rows = image.read_rows(PlaneIndex(0, 1, 2), 15, 23)
        np.testing.assert_array_equal(rows, pixels[1, :, 2, 15:23].astype(info.pixel_type))
        assert image.row_block == 16
        assert len(image.content_digest) == 64
        image.check_unchanged()
    assert info.format == f"OME-Zarr {version}"
    assert (info.size_t, info.size_z, info.scenes, info.height, info.width) == (2, 3, 1, 24, 30)
    assert info.channel_names == ("DAPI", "GFP")
    assert info.channel_colors == ("#0000FF", "#00FF00")
    assert info.pixel_size == PixelSize(0.2, 0.1, 0.5)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_types_of_pixels(version: str, pool: WorkerPool, tmp_path: Path) -> None:
    types = {"bool": "uint8", "int8": "int16", "float16": "float32", "float64": "float32"}
    for stored in (*types, "uint8", "int16", "uint32", "float32"):
        pixels = five_dimensions(stored, (9, 7))
        with open_image(pool, write_ome_zarr(tmp_path / f"{stored}.zarr", pixels, "yx", version)) as image:
            assert image.info.pixel_type.value == types.get(stored, stored)
            np.testing.assert_array_equal(image.read_plane(PlaneIndex()).pixels[0], pixels.astype(float))


@pytest.mark.parametrize("axes", ["yx", "zyx", "tzyx", "czyx"])
def test_fewer_axes(axes: str, pool: WorkerPool, tmp_path: Path) -> None:
    sizes = {"t": 2, "c": 3, "z": 4, "y": 20, "x": 30}
    pixels = five_dimensions("uint8", tuple(sizes[axis] for axis in axes))
    full = pixels.reshape([sizes[axis] if axis in axes else 1 for axis in "tczyx"])
    with open_image(pool, write_ome_zarr(tmp_path / "a.zarr", pixels, axes)) as image:
        np.testing.assert_array_equal(planes(image), full.transpose(0, 2, 1, 3, 4))
        assert image.info.channel_names[0] == "channel 1"


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": None},
        {"compressors": zarr.codecs.GzipCodec(), "chunk_key_encoding": {"name": "v2", "separator": "."}},
        {"compressors": [zarr.codecs.BloscCodec(cname="lz4"), zarr.codecs.Crc32cCodec()]},
        {"shards": (1, 2, 3, 32, 32)},
        {"serializer": zarr.codecs.BytesCodec(endian="big")},
        {"filters": zarr.codecs.TransposeCodec(order=(4, 3, 2, 1, 0))},
    ],
    ids=["plain", "gzip", "blosc", "shards", "big-endian", "transposed"],
)
def test_codecs_of_version_3(options: dict[str, Any], pool: WorkerPool, tmp_path: Path) -> None:
    pixels = five_dimensions()
    with open_image(pool, write_ome_zarr(tmp_path / "a.zarr", pixels, **options)) as image:
        np.testing.assert_array_equal(planes(image), pixels.transpose(0, 2, 1, 3, 4))
        assert image.row_block == 16


def test_a_large_plane_in_shards_is_read_by_region(pool: WorkerPool, tmp_path: Path) -> None:
    pixels = five_dimensions("uint8", (2048, 2048))
    path = write_ome_zarr(tmp_path / "a.zarr", pixels, "yx", chunk=128, shards=(1024, 2048))
    with open_image(pool, path) as image:
        assert image.row_block == 128
        np.testing.assert_array_equal(image.read_rows(PlaneIndex(), 900, 1100)[0], pixels[900:1100])


def test_images_of_bioformats2raw_are_scenes(pool: WorkerPool, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    zarr.open_group(str(path), mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    first, second = five_dimensions("uint8"), five_dimensions("uint8", (2, 2, 3, 20, 60))
    write_ome_zarr(path / "0", first, version="0.4")
    write_ome_zarr(path / "1", second, version="0.4")
    write_ome_zarr(
        path / "2", five_dimensions("uint8", (1, 3, 1, 9, 9)), version="0.4"
    )  # a label of the slide
    with open_image(pool, path) as image:
        assert image.info.scene_sizes == ((24, 30), (20, 60))
        np.testing.assert_array_equal(
            image.read_plane(PlaneIndex(0, 1, 1)).pixels[:, :24, :30], first[1, :, 1]
        )
        np.testing.assert_array_equal(image.read_plane(PlaneIndex(1, 1, 1)).pixels[:, :20], second[1, :, 1])


def test_old_axes(pool: WorkerPool, tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", five_dimensions(), version="0.4")
    scale = multiscales("tczyx", "0.3")
    for axes in (None, list("tczyx")):
        change_document(path / ".zattrs", multiscales=[scale | {"axes": axes}])
        with open_image(pool, path) as image:
            assert (image.info.size_t, image.info.channel_count, image.info.size_z) == (2, 2, 3)


def test_while_it_is_written(pool: WorkerPool, tmp_path: Path) -> None:
    """Metadata first, then plane by plane: until the last, it is not complete."""
    whole = write_ome_zarr(tmp_path / "whole.zarr", five_dimensions())
    path = tmp_path / "a.zarr"
    path.mkdir()
    assert "no metadata" in (check(path).fault or pytest.fail()).message
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_')
    assert check(path).verdict is Verdict.OPEN
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    assert "no OME metadata" in (check(path).fault or pytest.fail()).message
    shutil.copy(whole / "zarr.json", path)
    assert "array '0'" in (check(path).fault or pytest.fail()).message
    shutil.copytree(whole, path, ignore=shutil.ignore_patterns("c"), dirs_exist_ok=True)
    for number, chunks in enumerate(sorted((whole / "0" / "c").glob("*/*/*"))):
        found = check(path)
        assert found.verdict is Verdict.OPEN
        assert f"{number} of 12 planes" in (found.fault or pytest.fail()).message
        assert refusal(pool, path)[0] is Reason.IMAGE_INCOMPLETE
        shutil.copytree(chunks, path / chunks.relative_to(whole))
    assert check(path) == structure.CLOSED
    (path / "0" / "c" / "0" / "0" / "0" / "1" / "1").write_bytes(b"")
    assert "is empty" in (check(path).fault or pytest.fail()).message


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_missing_chunks_of_a_plane(version: str, pool: WorkerPool, tmp_path: Path) -> None:
    """They have the fill value, if there is one, but are waited for."""
    pixels = five_dimensions()
    pixels[0, 0, 0, :16, :16] = 7
    config = {"write_empty_chunks": False}
    path = write_ome_zarr(tmp_path / "a.zarr", pixels, version=version, fill_value=7, config=config)
    found = check(path)
    assert found.verdict is Verdict.CLOSED
    assert found.announced_changes
    with open_image(pool, path) as image:
        np.testing.assert_array_equal(image.read_plane(PlaneIndex()).pixels, pixels[0, :, 0])
    if version == "0.4":
        document = json.loads((path / "0" / ".zarray").read_text())
        (path / "0" / ".zarray").write_text(json.dumps(document | {"fill_value": None}))
        assert "no fill_value" in (check(path).fault or pytest.fail()).message


def test_what_is_refused(pool: WorkerPool, tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", five_dimensions(), version="0.4")
    array, attributes = path / "0" / ".zarray", path / ".zattrs"
    good_array, good = array.read_bytes(), json.loads(attributes.read_text())
    cases: list[tuple[dict[str, Any], Reason, str]] = [
        ({"dtype": "|O", "filters": [{"id": "pickle"}]}, Reason.IMAGE_UNSUPPORTED, "type |O"),
        ({"filters": [{"id": "pickle", "protocol": 5}]}, Reason.IMAGE_UNSUPPORTED, "filters"),
        ({"compressor": {"id": "evil"}}, Reason.IMAGE_UNSUPPORTED, "codec 'evil'"),
        ({"dtype": "<i8"}, Reason.IMAGE_UNSUPPORTED, "type int64"),
        ({"shape": [2, 2, 3, 0, 30]}, Reason.IMAGE_CORRUPT, "impossible lengths"),
        ({"chunks": [1, 1, 1, 1 << 20, 1 << 20]}, Reason.IMAGE_TOO_LARGE, "chunks of more than"),
        ({"shape": [2, 2, 3, 1 << 30, 1 << 30]}, Reason.IMAGE_INCOMPLETE, "lacks"),
    ]
    for changes, reason, words in cases:
        change_document(array, **{"fill_value": None, **changes})
        found, message = refusal(pool, path)
        assert (found, words in message) == (reason, True), message
        array.write_bytes(good_array)
    scale = good["multiscales"][0]
    for attribute, reason, words in (
        ({"plate": {}}, Reason.IMAGE_UNSUPPORTED, "plate"),
        ({"multiscales": [scale | {"datasets": [{"path": "../b.zarr/0"}]}]}, Reason.IMAGE_CORRUPT, "outside"),
        (
            {"multiscales": [scale | {"axes": [*scale["axes"][:4], scale["axes"][3]]}]},
            Reason.IMAGE_CORRUPT,
            "twice",
        ),
        (
            {"multiscales": [scale | {"axes": [{"name": "angle"}, *scale["axes"][1:]]}]},
            Reason.IMAGE_UNSUPPORTED,
            "angle",
        ),
    ):
        attributes.write_text(json.dumps(good | attribute))
        found, message = refusal(pool, path)
        assert (found, words in message) == (reason, True), message


def test_nothing_outside_is_read(pool: WorkerPool, tmp_path: Path) -> None:
    """Links in the folder count as missing."""
    path = write_ome_zarr(tmp_path / "a.zarr", five_dimensions())
    plane = path / "0" / "c" / "0" / "0" / "0"
    plane.rename(tmp_path / "outside")
    plane.symlink_to(tmp_path / "outside")
    assert "11 of 12 planes" in refusal(pool, path)[1]
    with pytest.raises(SegmentdError):
        open_image(pool, b"link.zarr", folder=tmp_path)
    (tmp_path / "link.zarr").symlink_to(path)
    with pytest.raises(SegmentdError) as caught:
        open_image(pool, b"link.zarr", folder=tmp_path)
    assert caught.value.reason is Reason.IMAGE_UNSUPPORTED


def test_a_change_is_noticed(pool: WorkerPool, tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", five_dimensions())
    with open_image(pool, path) as image:
        before = image.content_digest
        labels = path / "labels" / "nuclei"
        labels.mkdir(parents=True)
        (labels / "zarr.json").write_text("{}")
        image.check_unchanged()  # labels are no part of the image
        write_ome_zarr(path, five_dimensions()[::-1])
        with pytest.raises(SegmentdError) as caught:
            image.check_unchanged()
        assert caught.value.reason is Reason.IMAGE_CHANGED
    with open_image(pool, path) as image:
        np.testing.assert_array_equal(image.read_plane(PlaneIndex()).pixels, five_dimensions()[1, :, 0])
        assert image.content_digest != before


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", five_dimensions())
    monkeypatch.setitem(sys.modules, "zarr", None)
    fd = confine.open_image(path)
    args = {"name": "a.zarr", "content": [1, 1]}
    assert decode.inspect(args, [fd])[0]["height"] == 24
    with pytest.raises(SegmentdError) as caught:
        decode.read_plane({**args, "scene": 0, "time": 0, "z": 0}, [fd])
    assert caught.value.reason is Reason.IMAGE_NEEDS_EXTRA
    assert "segmentd[zarr]" in caught.value.message
