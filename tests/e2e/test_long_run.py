"""Thousands of files in a row: nothing lost, nothing twice, memory and descriptors as at the beginning."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from segmentctl import Result

from .daemon import DaemonProcess
from .images import write_blobs
from .process import descriptors, resident_mib, threads

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]
IMAGES = 20
SHAPE = (48, 64)


def write_images(folder: Path) -> list[Path]:
    """Write a few small images, to be copied again and again."""
    return [write_blobs(folder / f"image-{seed}", seed, SHAPE) for seed in range(IMAGES)]


def assert_each_once(results: list[Result], count: int) -> None:
    """Check that all images are done, each once, numbered on without a gap."""
    first = results[0].number
    assert [result.number for result in results] == list(range(first, first + count))
    assert len({result.segmentation.source for result in results}) == count
    assert {result.segmentation.state for result in results} == {results[0].segmentation.STATE_SUCCEEDED}


def test_memory_descriptors_and_threads_stay_as_they_are(
    place: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    daemon, images, count, portion = place(), write_images(tmp_path), 3000, 100
    memory: list[float] = []
    with (
        daemon,
        daemon.client() as client,
        client.subscribe("hot", start="oldest", timeout=300, metadata_only=True) as results,
    ):
        got: list[Result] = []
        for start in range(0, count, portion):
            for number in range(start, start + portion):
                shutil.copyfile(images[number % IMAGES], daemon.hot / f"{number:05d}.tif")
            got += islice(results, portion)
            memory.append(resident_mib(daemon.pid))
            if start == 500:
                before = descriptors(daemon.pid), threads(daemon.pid)
        assert_each_once(got, count)
        after = descriptors(daemon.pid), threads(daemon.pid)
    assert after[0] <= before[0] + 3
    assert after[1] <= before[1] + 3
    settled = np.array(memory[len(memory) // 3 :])
    slope = np.polynomial.polynomial.polyfit(np.arange(settled.size) * portion, settled, 1)[1]
    assert slope * 1024 < 5, f"KiB a file; MiB: {memory}"
