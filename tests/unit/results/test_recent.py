"""Planes kept in memory after they were published."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import pytest

from segmentd.results.recent import FreshPlane, RecentPlanes

DIGESTS = {"labels": "a", "confidence": "b"}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Result files; what they hold does not matter here."""
    paths = {kind: tmp_path / kind for kind in DIGESTS}
    for path in paths.values():
        path.write_bytes(b"result")
    return {kind: str(path) for kind, path in paths.items()}


def plane(page: int, rows: int = 4, with_confidence: bool = True) -> FreshPlane:
    made = FreshPlane(page, with_confidence=with_confidence)
    for first in range(0, rows, 2):
        made.add(np.full((2, 5), page + first, np.uint8), np.full((2, 5), 100 - first, np.uint8))
    return made


def test_a_plane_comes_back_whole(files: dict[str, str]) -> None:
    recent = RecentPlanes()
    recent.keep(files, DIGESTS, [plane(0), plane(1)])

    found = recent.get(files, DIGESTS, 1)

    assert found is not None
    labels, confidence = found
    assert confidence is not None
    np.testing.assert_array_equal(labels[:, 0], [1, 1, 3, 3])
    np.testing.assert_array_equal(confidence[:, 4], [100, 100, 98, 98])


def test_confidence_that_is_not_published_is_not_kept(files: dict[str, str]) -> None:
    recent = RecentPlanes()
    recent.keep({"labels": files["labels"]}, {"labels": "a"}, [plane(0, with_confidence=False)])

    found = recent.get({"labels": files["labels"]}, {"labels": "a"}, 0)

    assert found is not None and found[1] is None


def test_only_the_very_same_files_are_found(files: dict[str, str]) -> None:
    recent = RecentPlanes()
    recent.keep(files, DIGESTS, [plane(0)])

    assert recent.get(files, DIGESTS, 1) is None
    assert recent.get(files, {"labels": "a", "confidence": "c"}, 0) is None
    assert recent.get(files, {"labels": "x", "confidence": "b"}, 0) is None


@pytest.mark.parametrize("kind", ["labels", "confidence"])
def test_what_happened_to_the_files_is_not_hidden(files: dict[str, str], kind: str) -> None:
    recent = RecentPlanes()
    recent.keep(files, DIGESTS, [plane(0)])
    assert recent.get(files, DIGESTS, 0) is not None

    Path(files[kind]).write_bytes(b"damaged")
    assert recent.get(files, DIGESTS, 0) is None

    Path(files[kind]).unlink()
    assert recent.get(files, DIGESTS, 0) is None


def test_the_oldest_go_first(files: dict[str, str]) -> None:
    recent = RecentPlanes(limit_bytes=100)  # a plane here has 40

    recent.keep(files, DIGESTS, [plane(0), plane(1), plane(2)])
    recent.keep(files, DIGESTS, [plane(2)])  # the same once more takes no more room

    assert [recent.get(files, DIGESTS, page) is not None for page in range(3)] == [False, True, True]
    assert recent.fits(50) and not recent.fits(51)


def test_small_planes_do_not_pile_up(files: dict[str, str]) -> None:
    recent = RecentPlanes(limit_planes=2)

    recent.keep(files, DIGESTS, [plane(0), plane(1), plane(2)])

    assert [recent.get(files, DIGESTS, page) is not None for page in range(3)] == [False, True, True]


def test_a_long_stack_does_not_pile_up_before_it_is_published() -> None:
    recent = RecentPlanes(limit_bytes=100)
    fresh: deque[FreshPlane] = deque()

    for page in range(10):
        fresh.append(plane(page))
        recent.trim(fresh)

    assert [kept.page for kept in fresh] == [8, 9]
