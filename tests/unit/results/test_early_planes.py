from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from segmentd.results import early_planes
from segmentd.results.early_planes import EarlyPlane, EarlyPlanes, EarlyStore

RANDOM = np.random.default_rng(1)


def plane(edge: int = 100) -> EarlyPlane:
    labels, confidence = RANDOM.integers(0, 255, (2, edge, edge + 1)).astype(np.uint8)
    return EarlyPlane(labels, confidence, 3, 0.5, "cpu", "no card")


def assert_kept(planes: EarlyPlanes, key: bytes, expected: EarlyPlane) -> None:
    found = planes.get(key)
    assert found is not None
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.confidence, expected.confidence)
    assert (found.masked_pixels, found.compute_seconds) == (3, 0.5)
    assert (found.device, found.device_reason) == ("cpu", "no card")


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_planes, "LEFT_FREE_BYTES", 0)


@pytest.mark.usefixtures("roomy")
def test_planes_come_back_from_memory_and_from_a_file_without_a_name(tmp_path: Path) -> None:
    store = EarlyStore(memory_bytes=50_000)  # two planes
    kept = {b"%d" % number: plane() for number in range(6)}
    planes = store.image(tmp_path)
    for key, one in kept.items():
        assert planes.put(key, one)
    assert planes.put(b"0", plane()), "what is there stays"
    assert list(tmp_path.iterdir()) == []
    for key, one in kept.items():
        assert key in planes
        assert_kept(planes, key, one)
    assert planes.get(b"x") is None
    planes.close()
    planes.close()
    assert planes.get(b"0") is None
    assert not planes.put(b"0", plane())
    assert store.take_memory(50_000), "all is given back"
    assert store.take_disk(early_planes.DISK_BYTES)


@pytest.mark.usefixtures("roomy")
def test_images_share_the_limits_and_what_does_not_fit_is_not_kept(tmp_path: Path) -> None:
    store = EarlyStore(memory_bytes=30_000, disk_bytes=30_000)  # a plane each
    first, second = store.image(tmp_path), store.image(tmp_path)
    assert first.put(b"a", plane())
    assert second.put(b"b", plane())
    assert not first.full
    assert not first.put(b"c", plane())
    assert first.full
    second.close()
    assert first.put(b"c", plane())
    first.close()


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_planes, "LEFT_FREE_BYTES", 1 << 62)
    planes = EarlyStore(memory_bytes=0).image(tmp_path)
    assert not planes.put(b"a", plane())
    monkeypatch.setattr(early_planes, "LEFT_FREE_BYTES", 0)
    (tmp_path / "file").touch()
    assert not EarlyStore(memory_bytes=0).image(tmp_path / "file").put(b"a", plane())
    planes = EarlyStore(memory_bytes=0).image(tmp_path / "new" / "results")
    assert planes.put(b"a", plane())
    planes.close()


@pytest.mark.usefixtures("roomy")
def test_a_plane_that_cannot_be_read_back_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planes = EarlyStore(memory_bytes=0).image(tmp_path)
    assert planes.put(b"a", plane())
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: read(*args)[:-4] + b"abcd")
    assert planes.get(b"a") is None
    planes.close()
