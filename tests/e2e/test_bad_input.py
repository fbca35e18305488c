"""Bad input: each file fails once, with a reason that says what to do, and delays nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segmentctl import Result

from .daemon import DaemonProcess, wait_until
from .images import blobs, write_blobs, write_corrupt, write_truncated, write_two_channels

pytestmark = pytest.mark.e2e

# Name, reason, and what the message must advise.
BAD = {
    "truncated.tif": ("IMAGE_INCOMPLETE", "copy it again"),
    "empty.tif": ("IMAGE_INCOMPLETE", "copy it again"),
    "never-completes.tif": ("IMAGE_INCOMPLETE", "copy it again"),
    "half.png": ("IMAGE_INCOMPLETE", "copy it again"),
    "corrupt.tif": ("IMAGE_CORRUPT", "(copy|save|export) it again"),
    "text.tif": ("IMAGE_UNSUPPORTED", "reads TIFF"),
    "text.png": ("IMAGE_UNSUPPORTED", "reads TIFF"),
    "complex.tif": ("IMAGE_UNSUPPORTED", "save it as"),
    "two-channels.ome.tif": ("CHANNEL_COUNT_MISMATCH", "model trained on such images"),
    "colour.tif": ("PIXEL_TYPE_MISMATCH", "convert to uint16"),
    "bytes.tif": ("PIXEL_TYPE_MISMATCH", "convert to uint16"),
    "sub/floats.tif": ("PIXEL_TYPE_MISMATCH", "convert to uint16"),
}
GOOD = ("a.tif", "m.tif", "sub/z.tif", "z.tif")
IGNORED = (
    "a.txt",
    "notes",
    "x.tif.part",
    ".hidden.tif",
    "~$y.tif",
    "z.tif.tmp",
    "x.tif~",
    "a.tif.labels.ome.tif",
)


@dataclass(frozen=True)
class Harvest:
    daemon: DaemonProcess
    results: dict[str, Result]


def drop(hot: Path, name: str) -> None:
    """Put one of the bad files into the folder."""
    path = hot / name
    path.parent.mkdir(exist_ok=True)
    writers: dict[str, Callable[[Path], object]] = {
        "truncated.tif": write_truncated,
        "empty.tif": Path.touch,
        "half.png": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        "corrupt.tif": write_corrupt,
        "text.tif": lambda path: path.write_text("this is a note, not an image\n"),
        "text.png": lambda path: path.write_text("neither is this\n"),
        "complex.tif": lambda path: tifffile.imwrite(path, np.zeros((64, 64), np.complex64)),
        "two-channels.ome.tif": write_two_channels,
        "colour.tif": lambda path: tifffile.imwrite(
            path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", compression="zlib"
        ),
        "bytes.tif": lambda path: tifffile.imwrite(path, blobs(93, dtype=np.uint8)),
        "sub/floats.tif": lambda path: tifffile.imwrite(path, blobs(94, dtype=np.float32)),
    }
    writers[name](path)


@pytest.fixture(scope="module")
def harvest(blobs_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harvest]:
    """Bad and good files, mixed; one file is opened and its writer never goes on."""
    daemon = DaemonProcess(
        tmp_path_factory.mktemp("bad"),
        blobs_model.parent,
        model="blobs",
        settle_seconds=0.2,
        give_up_seconds=1.0,
    )
    hot = daemon.hot
    data = write_blobs(daemon.folder / "whole.tif", 95).read_bytes()
    good = iter(enumerate(GOOD))
    with (
        daemon,
        daemon.client() as client,
        client.subscribe("hot", start="oldest", timeout=60) as results,
        (hot / "never-completes.tif").open("wb") as growing,
    ):
        for name in IGNORED:
            (hot / name).write_bytes(data)
        growing.write(data[: len(data) // 3])
        growing.flush()
        for number, name in enumerate(sorted(BAD.keys() - {"never-completes.tif"})):
            drop(hot, name)
            if number % 3 == 0:
                seed, name = next(good)
                write_blobs(hot / name, seed)
        got = [next(results) for _ in range(len(BAD) + len(GOOD))]
        by_source = {result.segmentation.source_display: result for result in got}
        assert len(by_source) == len(got), "a file came twice"
        yield Harvest(daemon, by_source)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_fails_with_a_reason_that_says_what_to_do(harvest: Harvest, name: str) -> None:
    reason, advice = BAD[name]
    result = harvest.results[name]
    segmentation = result.segmentation
    assert segmentation.state == segmentation.STATE_FAILED
    assert result.error is not None
    assert result.error.reason == reason, result.error.message
    assert Path(name).name in result.error.message
    assert re.search(advice, result.error.message), result.error.message
    assert result.labels is None
    assert result.confidence is None
    assert not segmentation.files
    assert (segmentation.version, segmentation.plane_count) == (1, 1)


def test_good_files_between_them_are_done(harvest: Harvest) -> None:
    for name in GOOD:
        segmentation = harvest.results[name].segmentation
        assert segmentation.state == segmentation.STATE_SUCCEEDED
    assert harvest.results.keys() == BAD.keys() | set(GOOD)


def test_other_names_are_no_failures(harvest: Harvest) -> None:
    with harvest.daemon.client() as client:
        watch = client.watch("hot")
        assert (watch.done_count, watch.failed_count, watch.waiting_count) == (len(GOOD), len(BAD), 0)
        assert client.server().last_event_number == len(GOOD) + len(BAD)


def test_failures_leave_no_files(harvest: Harvest) -> None:
    files = {path.relative_to(harvest.daemon.results) for path in harvest.daemon.results.rglob("*.*")}
    wanted = {Path(f"{name}.{kind}.ome.tif") for name in GOOD for kind in ("labels", "confidence")}
    assert files == wanted


def test_a_failed_file_that_is_replaced_is_tried_again(harvest: Harvest) -> None:
    with harvest.daemon.client() as client, client.subscribe("hot", timeout=30) as results:
        first = next_after_start(results, lambda: write_blobs(harvest.daemon.hot / "truncated.tif", 96))
    assert first.segmentation.source_display == "truncated.tif"
    assert first.segmentation.state == first.segmentation.STATE_SUCCEEDED
    assert first.segmentation.version == 2


def next_after_start(results: Iterator[Result], act: Callable[[], object]) -> Result:
    """Act once the subscription is open: it has a cursor then."""
    import threading

    box: list[Result] = []
    reader = threading.Thread(target=lambda: box.append(next(results)))
    reader.start()
    wait_until(lambda: results.cursor != "", "the first heartbeat")  # type: ignore[attr-defined]
    act()
    reader.join(30)
    assert box, "no result"
    return box[0]


def test_a_file_that_is_still_written_delays_nothing_else(place: Callable[..., DaemonProcess]) -> None:
    with place(give_up_seconds=600.0) as daemon, daemon.client() as client:
        data = write_blobs(daemon.folder / "whole.tif", 97).read_bytes()
        with (daemon.hot / "growing.tif").open("wb") as growing:
            growing.write(data[: len(data) // 2])
            growing.flush()
            wait_until(lambda: client.watch("hot").waiting_count == 1, "the growing file is seen")
            with client.subscribe("hot", start="oldest", timeout=60) as results:
                for seed in range(3):
                    write_blobs(daemon.hot / f"{seed}.tif", seed)
                assert {next(results).segmentation.source_display for _ in range(3)} == {
                    "0.tif",
                    "1.tif",
                    "2.tif",
                }
                assert client.watch("hot").waiting_count == 1
                growing.write(data[len(data) // 2 :])
                growing.close()
                whole = next(results).segmentation
        assert (whole.source_display, whole.state) == ("growing.tif", whole.STATE_SUCCEEDED)
