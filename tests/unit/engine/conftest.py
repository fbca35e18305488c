"""Fixtures for tests of lanes and devices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from segmentd.engine.lane import CpuLane


@pytest.fixture(scope="module")
def cpu() -> Iterator[CpuLane]:
    """A lane of two threads."""
    lane = CpuLane(2)
    yield lane
    lane.close()
