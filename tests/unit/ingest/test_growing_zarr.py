"""Planes of an OME-Zarr that is still being written."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from segmentd.ingest.growing_zarr import GrowingZarr
from segmentd.records import PlaneIndex

from .ome_zarr_files import five_dimensions, write_ome_zarr

STACK = five_dimensions()  # 2 times, 2 channels, 3 z


def complete(path: Path) -> dict[PlaneIndex, Any]:
    fd = os.open(path, os.O_RDONLY)
    try:
        image = GrowingZarr(fd)
        assert image.total == 6
        return {index: image.read(index) for _, index in image.complete()}
    finally:
        os.close(fd)


def empty(path: Path, version: str, **array: Any) -> Any:
    write_ome_zarr(path, np.zeros_like(STACK), version=version, config={"write_empty_chunks": False}, **array)
    return zarr.open_group(str(path), mode="r+")["0"]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plane_is_there_when_the_next_one_was_begun(version: str, tmp_path: Path) -> None:
    array = empty(tmp_path / "a.zarr", version)
    assert complete(tmp_path / "a.zarr") == {}
    order = product(range(2), range(3), range(2))
    for written, (time, z, channel) in enumerate(order, 1):
        array[time, channel, z] = STACK[time, channel, z]
        found = complete(tmp_path / "a.zarr")
        assert len(found) == max(0, (written - 1) // 2)
        for index, pixels in found.items():
            np.testing.assert_array_equal(pixels, STACK[index.time, :, index.z])
    assert list(found) == [PlaneIndex(0, 0, z) for z in range(3)] + [PlaneIndex(0, 1, z) for z in range(2)]


def test_planes_of_one_chunk_are_there_when_the_next_chunk_is(tmp_path: Path) -> None:
    array = empty(tmp_path / "a.zarr", "0.5", chunks=(1, 1, 2, 16, 16))
    for time, z in product(range(2), range(3)):
        array[time, :, z] = STACK[time, :, z]
        done = 3 * time + (2 if z == 2 else 0)  # z 0 and 1 share a chunk
        assert len(complete(tmp_path / "a.zarr")) == done


def test_a_plane_without_all_its_chunks_is_not_there(tmp_path: Path) -> None:
    array = empty(tmp_path / "a.zarr", "0.5")
    array[0, :, 0, :16] = STACK[0, :, 0, :16]
    array[0, :, 1] = STACK[0, :, 1]
    array[1] = STACK[1]
    assert PlaneIndex(0, 0, 0) not in complete(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "0" / "c" / "0" / "0" / "1" / "0" / "0").write_bytes(b"")
    assert list(complete(tmp_path / "a.zarr")) == [PlaneIndex(0, 1, 0), PlaneIndex(0, 1, 1)]
