"""What `segmentctl top` works out and draws."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from segmentctl.cli.top_numbers import Answer, History, quantile
from segmentctl.cli.top_view import curve, time_text, view
from segmentd.v1 import server_service_pb2, watch_service_pb2

BOUNDS = (0.1, 1.0)
Server = server_service_pb2.Server


def answer(seconds: int, counts: tuple[int, int, int], work: int = 0, **fields: Any) -> Answer:
    stage = Server.Stage(name="read", count=sum(counts), bucket_counts=counts)
    stage.duration.FromMilliseconds(100 * sum(counts))
    server = Server(
        version="1.2.3",
        uptime=Duration(seconds=seconds),
        stages=[stage],
        stage_bounds_seconds=BOUNDS,
        devices=[Server.Device(name="cpu", display_name="a processor", work_duration=Duration(seconds=work))],
        slot_count=2,
        **fields,
    )
    watch = watch_service_pb2.Watch(
        name="watches/plate", state="STATE_ACTIVE", waiting_count=1234, warnings=["the lamp fades"]
    )
    return Answer(server, [watch])


def history(*answers: Answer) -> History:
    made = History()
    for one in answers:
        made.add(one)
    return made


@pytest.mark.parametrize(
    ("share", "buckets", "expected"),
    [
        (0.5, (4, 0, 0), 0.05),
        (1.0, (4, 4, 0), 1.0),
        (0.75, (4, 4, 0), 0.55),
        (0.99, (0, 0, 5), 1.0),
        (0.5, (0, 0, 0), 0.0),
    ],
)
def test_quantiles_are_estimated_within_their_bucket(
    share: float, buckets: tuple[int, ...], expected: float
) -> None:
    assert quantile(share, buckets, BOUNDS) == pytest.approx(expected)


def test_the_first_answer_tells_of_all_the_time_so_far() -> None:
    seen = history(answer(100, (10, 0, 0)))
    (timing,) = seen.timings()
    assert (timing.count, timing.rate, timing.mean) == (10, 0.0, pytest.approx(0.1))
    assert seen.load("cpu") is None


def test_later_answers_tell_of_the_last_minute() -> None:
    steps = [answer(second, (second, 10, 0), work=second // 2) for second in range(0, 200, 10)]
    seen = history(*steps)
    assert seen.window == 60
    (timing,) = seen.timings()
    assert (timing.count, timing.rate) == (60, pytest.approx(1.0))
    assert timing.p99 <= 0.1  # the ten slow ones are long ago
    assert seen.load("cpu") == pytest.approx(0.5)


def test_a_daemon_that_started_anew_begins_anew() -> None:
    seen = history(answer(100, (10, 0, 0)), answer(160, (70, 0, 0)), answer(2, (3, 0, 0)))
    assert seen.window == 0
    assert seen.timings()[0].count == 3


def test_the_view_shows_what_was_told() -> None:
    failure = Server.Failure(
        segmentation="watches/plate/segmentations/s1",
        source_display="a\x1b[2Jb.tif",
        reason="IMAGE_CORRUPT",
        message="it is damaged",
    )
    fields = {"planes_in_flight": 1, "waiting_count": 1234, "recent_failures": [failure]}
    console = Console(width=120, record=True, file=io.StringIO())
    seen = history(answer(0, (0, 0, 0)), answer(60, (6, 0, 0), 30, **fields))
    console.print(view("127.0.0.1:50051", seen, trouble="it went away", hint="q leaves"))
    text = console.export_text()
    for expected in (
        "1.2.3",
        "1 of 2 in work",
        "1,234",
        "plate",
        "active",
        "read",
        "0.50",
        "it went away",
        "plate: the lamp fades",
    ):
        assert expected in text
    assert "a?[2Jb.tif" in text and "IMAGE_CORRUPT" in text


def test_a_curve_is_as_high_as_its_largest_value() -> None:
    assert curve([0, 1, 2]) == " ▄█"
    assert curve([0, 0]) == "  "


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 µs"), (0.00025, "250 µs"), (0.0042, "4.2 ms"), (0.042, "42 ms"), (4.2, "4.2 s")],
)
def test_times_keep_two_digits(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_printed_once_in_a_pipe(run: Any) -> None:
    text = run("top").stdout
    assert "1.2.3" in text and "plate" in text and "IMAGE_CORRUPT" in text
    assert run("top", "--once").stdout


def test_on_a_terminal_it_stays_until_q(daemon: Any) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "segmentctl", "--address", daemon.address, "top", "--interval", "0.2"]
    size = {"COLUMNS": "120", "LINES": "40", "TERM": "xterm-256color"}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | size
    ) as process:
        os.close(theirs)
        screen = b""
        while screen.count(b"q leaves") < 2:  # drawn, and drawn again
            assert select.select([ours], [], [], 60)[0], screen
            screen += os.read(ours, 65536)
        os.write(ours, b"xq")
        while _read(ours):
            pass
        assert process.wait(60) == 0
    os.close(ours)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""
