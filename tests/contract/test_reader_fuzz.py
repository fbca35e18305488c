"""Damaged files of formats with a library behind them: a fault of the file, not of worker or daemon."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest import structure
from segmentd.ingest.readers import open_image
from segmentd.workers import WorkerPool

SEEDS = {
    "czi": ("generated/mosaic_S2_T2_Z3_C2.czi", "generated/pixel_bgr24.czi", "real/nuc_small_new_red.czi"),
    "txm": ("generated/volume_f32_5x33x70.txm", "generated/projections_u8_3x20x31.txrm"),
}
FAULTS_OF_A_FILE = frozenset(
    {Reason.IMAGE_INCOMPLETE, Reason.IMAGE_CORRUPT, Reason.IMAGE_UNSUPPORTED, Reason.IMAGE_TOO_LARGE}
)
EXTREMES = (0, 1, -1, 2**31 - 1, -(2**31), 0xFFFE, 1 << 20)
MEMORY_BYTES = 1 << 30


def places_of_numbers(data: bytes, kind: str) -> list[range]:
    """Where a file has its structure: there damage does most."""
    if kind == "txm":
        return [range(512), range(len(data) - 8192, len(data)), range(0, len(data), 512)]
    [directory] = struct.unpack_from("<q", data, 84)
    segments = []
    at = data.find(b"ZISRAW")
    while at >= 0:
        segments.append(range(at, min(at + 400, len(data))))
        at = data.find(b"ZISRAW", at + 1)
    return [range(112), range(directory, min(directory + 6000, len(data))), *segments]


def damaged(data: bytes, kind: str, random: Random) -> bytes:
    """Change numbers and bytes, mostly of the structure; sometimes cut, or copy a piece over another."""
    changed = bytearray(data)
    places = places_of_numbers(data, kind)
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        if random.random() < 0.8:
            offset = random.choice(random.choice(places))
        else:
            offset = random.randrange(len(data))
        if random.random() < 0.5:
            number = random.choice(EXTREMES) & 0xFFFFFFFF
            changed[offset : offset + 4] = struct.pack("<I", number)
        else:
            changed[offset : offset + 1] = bytes([random.randrange(256)])
    if random.random() < 0.1:
        del changed[random.randrange(len(changed)) :]
    elif random.random() < 0.1:
        source, target, length = random.randrange(len(data)), random.randrange(len(data)), 600
        changed[target : target + length] = data[source : source + length]
    return bytes(changed)


def survives(path: Path, pool: WorkerPool) -> bool:
    """Check the structure and read the first and last plane; whether the file was read."""
    with path.open("rb") as file:
        structure.check(file.fileno(), path.name)
    try:
        with open_image(pool, path) as image:
            planes = list(image.info.planes())
            for index in {planes[0], planes[-1]}:
                image.read_plane(index)
            image.read_rows(planes[0], 0, 1)
    except SegmentdError as error:
        assert error.reason in FAULTS_OF_A_FILE, error.message
        return False
    return True


def fuzz(kind: str, count: int, seed: int, shared_data: Path, folder: Path) -> None:
    random = Random(seed)
    originals = [(shared_data / "zeiss" / name).read_bytes() for name in SEEDS[kind]]
    read = 0
    with WorkerPool(1, memory_bytes=MEMORY_BYTES) as pool:
        for number in range(count):
            path = folder / f"{number}.{kind}"
            path.write_bytes(damaged(random.choice(originals), kind, random))
            read += survives(path, pool)
            path.unlink()
    assert 0 < read < count  # damage that shows, and damage that does not


@pytest.mark.parametrize("kind", SEEDS)
def test_thirty_damaged_files(kind: str, shared_data: Path, tmp_path: Path) -> None:
    fuzz(kind, 30, 1, shared_data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEEDS)
def test_five_hundred_damaged_files(kind: str, shared_data: Path, tmp_path: Path) -> None:
    fuzz(kind, 500, 2, shared_data, tmp_path)
