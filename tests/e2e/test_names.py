"""Names of any bytes, times of any century, and results below the inputs: each file is one input, once."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from segmentd.v1.watch_service_pb2 import Watch

from .daemon import DaemonProcess, run, wait_until
from .images import blobs, write_blobs

pytestmark = pytest.mark.e2e
NAMES = [
    b"a.tif",
    b"a.tiff",
    b"A.tif",
    b"a.TIF",
    b"sub/a.tif",
    b"sub folder/deep\xff\xfe/a.tif",
    b"\xff\xfe.tif",
    b"latin-\xb5m.tif",
    "µm.tif".encode(),
    "u\N{COMBINING DIAERESIS}.tif".encode(),
    "ü.tif".encode(),
    "\N{RIGHT-TO-LEFT OVERRIDE}fit.tif".encode(),
    "\N{MICROSCOPE}.tif".encode(),
    b"line\nbreak\r\t\x1b[31mred\x07.tif",
    b"-rf *?[x]$HOME`id`;'\"\\.tif",
    b"%s%n{0}.tif",
    b" spaces around .tif",
    b"two..dots.tif",
    b"n" * 251 + b".tif",
    b"n" * 250 + b"m.tif",
    b"\xff" * 251 + b".tif",
    "µ".encode() * 125 + b".tif",
]
TIMES = (-2177452800, -1, 0, 4070908800)  # 1901, 1969, 1970, 2099; seconds since the epoch


def put(hot: Path, name: bytes, seed: int, seconds: int) -> None:
    """Write an image under a name, with a time of last change."""
    target = os.path.join(os.fsencode(hot), name)  # noqa: PTH118  bytes
    os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
    image = write_blobs(hot.parent / "image", seed)
    os.utime(image, (seconds, seconds))
    os.replace(image, target)  # noqa: PTH105


@pytest.mark.parametrize("poll", ["auto", pytest.param("always", marks=pytest.mark.slow)])
def test_each_name_is_one_input(place: Callable[..., DaemonProcess], poll: str) -> None:
    """Also: results below the watched folder are scanned all the time, and none of them is an input."""
    daemon = place(poll=poll, poll_seconds=0.3, rescan_seconds=0.3, settle_seconds=0.2)
    with daemon, daemon.client() as client:
        for seed, name in enumerate(NAMES):
            put(daemon.hot, name, seed, TIMES[seed % len(TIMES)])
        with client.subscribe("hot", start="oldest", timeout=40) as results:
            got = list(islice(results, len(NAMES)))
        sources = [result.segmentation.source for result in got]
        assert sorted(sources) == sorted(NAMES)
        files = {result.segmentation.files["labels"].path for result in got}
        assert len(files) == len(NAMES)
        for result in got:
            segmentation = result.segmentation
            assert segmentation.state == segmentation.STATE_SUCCEEDED, result.error
            assert segmentation.source_path == os.fsencode(daemon.hot) + b"/" + segmentation.source
            assert segmentation.source_display.isprintable()
            expected, _ = client.segment(blobs(NAMES.index(segmentation.source)), "blobs")
            np.testing.assert_array_equal(result.labels, expected)
            file = segmentation.files["labels"]
            with open(file.path, "rb") as labels:  # noqa: PTH123  bytes
                assert hashlib.file_digest(labels, "sha256").hexdigest() == file.digest
            assert file.local_path.isprintable()
        if poll == "always":
            daemon.stop()
            daemon.start()
        write_blobs(daemon.hot / "afterwards.tif", 1)
        wait_until(lambda: client.server().last_event_number > len(NAMES), "the last file is done")
        assert client.server().last_event_number == len(NAMES) + 1
        watch = client.watch("hot")
        assert (watch.state, watch.failed_count, watch.waiting_count) == (Watch.STATE_ACTIVE, 0, 0)
        assert_nothing_raw(daemon)


def assert_nothing_raw(daemon: DaemonProcess) -> None:
    """Check that no control characters of names come out: not in the log, and not on a terminal."""
    arguments = ("--address", daemon.address, "tail", "--from", "oldest", "--count", str(len(NAMES)))
    shown = run(*arguments, module="segmentctl").stdout
    for text in (shown, daemon.log_path.read_text(errors="replace")):
        assert re.search(r"[^\n -~\x80-\U0010ffff]|\u202e", text) is None
