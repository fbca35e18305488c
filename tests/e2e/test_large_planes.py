"""A plane larger than the memory it may take flows through by bands."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pylibCZIrw import czi

from segmentd.ingest.readers import open_image
from segmentd.records import PlaneIndex
from segmentd.workers import WorkerPool

from .daemon import environment
from .images import blobs

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

EDGE = 16_000
TILE = 256
MOST_GROWTH_MIB = 400


def write_plane(path: Path, edge: int) -> None:
    """A uint16 plane of blobs, written tile by tile."""
    kinds = [blobs(seed, (TILE, TILE)) for seed in (1, 2, 3)]
    across = -(-edge // TILE)

    def tiles() -> Iterator[np.ndarray]:
        for number in range(across * across):
            yield kinds[(number * 7 + number // across) % 3]

    tifffile.imwrite(
        path,
        tiles(),
        shape=(edge, edge),
        dtype="uint16",
        tile=(TILE, TILE),
        compression="zlib",
        photometric="minisblack",
    )


def write_mosaic(path: Path, edge: int, tile_edge: int = 2000) -> None:
    """A CZI of overlapping tiles of blobs, edge x edge pixels."""
    tile = np.tile(blobs(4, (500, 500)), (5, 5))[: tile_edge + 48, : tile_edge + 48, None]
    with czi.create_czi(str(path), compression_options="zstd1:ExplicitLevel=1") as writer:
        for top in range(0, edge, tile_edge):
            for left in range(0, edge, tile_edge):
                part = np.ascontiguousarray(tile[: edge - top, : edge - left])
                writer.write(
                    part, location=(left - 9000, top - 7000), plane={"C": 0, "T": 0, "Z": 0}, scene=0
                )


def anonymous_mib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon")), 0)


def peak_of_segmenting(image: Path, model: Path, out: Path) -> int:
    """Largest anonymous memory of `segmentd segment`, in MiB."""
    command = [
        sys.executable,
        "-m",
        "segmentd",
        "segment",
        str(image),
        "--model",
        str(model),
        "--out",
        str(out),
    ]
    process = subprocess.Popen(command, env=environment(out))
    peak = 0
    try:
        while process.poll() is None:
            peak = max(peak, anonymous_mib(process.pid))
            time.sleep(0.02)
    finally:
        process.kill()
    assert process.returncode == 0
    return peak


@pytest.mark.timeout(600)
def test_memory_does_not_grow_with_the_plane(blobs_model: Path, tmp_path: Path) -> None:
    small, large = tmp_path / "small.tif", tmp_path / "large.tif"
    write_plane(small, 512)
    write_plane(large, EDGE)
    base = peak_of_segmenting(small, blobs_model, tmp_path / "out")
    peak = peak_of_segmenting(large, blobs_model, tmp_path / "out")
    assert peak - base < MOST_GROWTH_MIB
    labels = tifffile.imread(tmp_path / "out" / "large.tif.labels.ome.tif")
    assert labels.shape == (EDGE, EDGE)
    assert (labels.min(), labels.max()) == (1, 2)
    # Where a band ends it looks as inside a band: the same pixels in memory have the same labels, but for
    # the last bits of features, since another part of the plane has another common grey level.
    with WorkerPool(1) as pool, open_image(pool, large) as image:
        part = image.read_rows(PlaneIndex(), 1024 - 300, 1024 + 300)[0, :, :600]
    tifffile.imwrite(tmp_path / "part.tif", part)
    assert peak_of_segmenting(tmp_path / "part.tif", blobs_model, tmp_path / "out") > 0
    alone = tifffile.imread(tmp_path / "out" / "part.tif.labels.ome.tif")
    inside = (slice(100, 500), slice(100, 500))
    assert np.mean(alone[inside] == labels[1024 - 300 : 1024 + 300, :600][inside]) > 0.999


@pytest.mark.timeout(600)
def test_memory_does_not_grow_with_a_mosaic(blobs_model: Path, tmp_path: Path) -> None:
    small, large = tmp_path / "small.czi", tmp_path / "large.czi"
    write_mosaic(small, 512)
    write_mosaic(large, EDGE)
    base = peak_of_segmenting(small, blobs_model, tmp_path / "out")
    peak = peak_of_segmenting(large, blobs_model, tmp_path / "out")
    assert peak - base < MOST_GROWTH_MIB
    labels = tifffile.imread(tmp_path / "out" / "large.czi.labels.ome.tif")
    assert labels.shape == (EDGE, EDGE)
    assert (labels.min(), labels.max()) == (1, 2)
