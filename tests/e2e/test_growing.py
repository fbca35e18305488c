"""Stacks written plane by plane, with `as_it_grows`: previews early, the same result, no plane done twice."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest

from segmentctl import Client, Result

from .daemon import DaemonProcess
from .images import Pixels, blobs

pytestmark = pytest.mark.e2e

COUNT = 4
REPOSITORY = Path(__file__).parents[2]


class SlowWriter:
    """The program `slow_stack.py`, step by step."""

    def __init__(self, kind: str, path: Path, planes: Pixels) -> None:
        pixels = path.parent.parent / f"{path.name}.npy"
        np.save(pixels, planes)
        script = str(Path(__file__).with_name("slow_stack.py"))
        self._process = subprocess.Popen(
            [sys.executable, script, kind, str(path), str(pixels)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={"PYTHONPATH": str(REPOSITORY)},
        )

    def step(self, count: int = 1) -> None:
        """Have the next planes written, or the file closed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        for _ in range(count):
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            assert self._process.stdout.readline(), "the writer has ended"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=30)


@pytest.fixture(scope="module")
def daemon(blobs_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One daemon whose files settle quickly and are waited for as long as the tests may take."""
    folder = tmp_path_factory.mktemp("growing")
    made = DaemonProcess(
        folder, blobs_model.parent, model="blobs", settle_seconds=0.3, give_up_seconds=120.0, as_it_grows=True
    )
    made.metrics = {"listen": "127.0.0.1:0"}
    with made:
        yield made


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[Client]:
    with daemon.client() as made:
        yield made


def computed(daemon: DaemonProcess) -> int:
    """How many planes were computed so far."""
    with urllib.request.urlopen(daemon.metrics_url(), timeout=30) as page:
        text = page.read().decode()
    found = re.search(r'^segmentd_stage_seconds_count{stage="compute"} (\S+)', text, re.MULTILINE)
    return 0 if found is None else int(float(found[1]))


def stack(seed: int) -> Pixels:
    return np.stack([blobs(seed + number) for number in range(COUNT)])


def published(results: Iterator[Result]) -> list[Result]:
    """The planes of the next image; what is computed at the end is shown before, too."""
    return list(islice((result for result in results if not result.preview), COUNT))


def files_of(result: Result) -> dict[str, list[bytes]]:
    """Contents of the result files by kind."""
    return {
        kind: [path.read_bytes() for path in ([Path(file.local_path)])]
        for kind, file in result.segmentation.files.items()
    }


@pytest.mark.parametrize(
    ("kind", "name", "again"),
    [
        ("tiff", "a.tif", 0),
        pytest.param("zarr", "b.zarr", 0, marks=pytest.mark.slow),
        pytest.param("comes-back", "c.tif", 1, marks=pytest.mark.slow),
    ],
)
def test_planes_are_seen_early_and_the_result_is_that_of_a_file_at_once(
    daemon: DaemonProcess, client: Client, kind: str, name: str, again: int
) -> None:
    planes = stack(10 * len(kind))
    before = computed(daemon)
    early: list[Result] = []
    with (
        SlowWriter(kind, daemon.hot / name, planes) as writer,
        client.subscribe(previews=True, timeout=90) as results,
    ):
        for number in range(COUNT):
            writer.step()
            if number:  # the plane before is complete now
                early.append(next(results))
        writer.step()
        finished = published(results)
    assert [result.preview for result in early] == [True] * (COUNT - 1)
    assert [result.segmentation.plane.z for result in early] == list(range(COUNT - 1))
    assert computed(daemon) - before == COUNT + again
    for preview, result in list(zip(early, finished, strict=False))[again:]:
        np.testing.assert_array_equal(preview.labels, result.labels)
        np.testing.assert_array_equal(preview.confidence, result.confidence)
    # The same content, there at once.
    copy = daemon.hot / "at-once" / name
    with client.subscribe(timeout=90) as results:
        shutil.copytree(daemon.hot / name, copy) if kind == "zarr" else _copy(daemon.hot / name, copy)
        at_once = [next(results) for _ in range(COUNT)]
    for result, expected in zip(finished, at_once, strict=True):
        np.testing.assert_array_equal(result.labels, expected.labels)
        assert result.segmentation.label_pixel_counts == expected.segmentation.label_pixel_counts
    assert files_of(finished[0]) == files_of(at_once[0])


@pytest.mark.slow
def test_after_a_crash_a_stop_or_a_pause_in_the_middle_the_result_is_whole(
    blobs_model: Path, tmp_path: Path
) -> None:
    made = DaemonProcess(
        tmp_path,
        blobs_model.parent,
        model="blobs",
        settle_seconds=0.3,
        give_up_seconds=120.0,
        as_it_grows=True,
    )
    planes = stack(70)
    with made, made.client() as client, SlowWriter("tiff", made.hot / "a.tif", planes) as writer:
        with client.subscribe(previews=True, timeout=90) as results:
            writer.step(2)
            assert next(results).preview
        made.kill()
        made.start()
        with client.subscribe(previews=True, start="oldest", timeout=90) as results:
            writer.step()
            assert next(results).preview
        made.stop()
        made.start()
        with client.subscribe(start="oldest", timeout=90) as results:
            client.pause_watch("hot")
            client.resume_watch("hot")
            writer.step(2)
            finished = published(results)
        assert [result.segmentation.plane.z for result in finished] == list(range(COUNT))
        for plane, result in zip(planes, finished, strict=True):
            np.testing.assert_array_equal(result.labels, client.segment(plane, "blobs")[0])


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target)
