"""The bridge of ZEN, between a fake ZEN that plays real images over TLS and a real daemon."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from typer.testing import CliRunner

from segmentctl import Client
from segmentctl.bridges.frames import Counts, FrameResult
from segmentctl.bridges.zen import stream
from segmentctl.bridges.zen.bridge import ZenBridge
from segmentctl.bridges.zen.stream import ZenConnection, ZenError
from segmentctl.cli import app

from ..certificates import Authority
from ..daemon import DaemonProcess, wait_until
from .fake_zen import TOKEN, FakeZen, Step, gap, message, mosaic

pytestmark = pytest.mark.e2e

Image = npt.NDArray[np.uint16]
Play = Callable[..., tuple[FakeZen, ZenConnection]]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("zen"), "zen-root")


@pytest.fixture
def play(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    """Start a ZEN that plays experiments; give it and how to reach it."""
    monkeypatch.setattr(stream, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(stream, "_NOTHING_RUNS_SECONDS", 0.05)
    pair = authority.issue("zen", "127.0.0.1")
    servers = []

    def start(*experiments: Sequence[Step], token: str = TOKEN) -> tuple[FakeZen, ZenConnection]:
        zen = FakeZen(list(experiments))
        servers.append(zen.serve(pair))
        return zen, ZenConnection(zen.address, token, authority.ca)

    yield start
    for server in servers:
        server.stop(None).wait()


def test_scenes_tiles_and_stacks_over_an_interruption(client: Client, nuclei: Image, play: Play) -> None:
    steps: list[Step] = [
        message(tile, number, s=scene, z=z, m=m, at=at)
        for number, (scene, z, (m, at, tile)) in enumerate(
            (scene, z, each) for scene in range(2) for z in range(2) for each in mosaic(nuclei >> z, 2, 2)
        )
    ]
    # 16 frames; the stream breaks after 7, and two are acquired before the bridge is back
    zen, connection = play([*steps[:7], gap], [], steps[9:])
    results: list[FrameResult] = []
    notes: list[str] = []
    with ZenBridge(connection, client, "nuclei", results.append, on_note=notes.append) as bridge:
        bridge.run(count=14)
        assert bridge.counts == Counts(received=14, segmented=14)
        assert (bridge.interruptions, bridge.missing, bridge.lost) == (1, 2, 2)
    assert len(zen.requests) >= 3, "nothing ran when it came back: it asked again"
    assert any("broke" in note and "restarted" in note for note in notes)
    assert any("2 frames were acquired while" in note for note in notes)

    found = {result.frame.name: result for result in results}
    assert len(found) == 14
    assert "s1_m3_t0_z1" in found
    for name, result in found.items():
        position = result.frame.source
        y, x = position.y, position.x
        expected, _ = client.segment((nuclei >> position.z)[y : y + 260, x : x + 348], "nuclei")
        assert np.array_equal(result.labels, expected), name
        assert position.stage == (pytest.approx(x * 1e-6), pytest.approx(y * 1e-6), None)
        assert position.pixel_size == (pytest.approx(5e-7), pytest.approx(5e-7))


@pytest.mark.parametrize("partial", [False, True])
def test_channels_come_together_in_whatever_order(
    client: Client, cells: Image, play: Play, partial: bool
) -> None:
    steps: list[Step] = [message(cells[c], 2 * t + c, t=t, c=c) for t, c in [(0, 0), (1, 1), (0, 1), (1, 0)]]
    steps += [message(cells[0], 9, t=0, c=7), message(cells[0], 10, t=2, c=0)]  # another one, and a lone one
    _, connection = play(steps)
    results: list[FrameResult] = []
    notes: list[str] = []
    options: dict[str, Any] = {"partial": partial, "on_note": notes.append}
    with ZenBridge(connection, client, "cells", results.append, **options) as bridge:
        bridge.run(idle_seconds=0.5)
        assert bridge.counts == Counts(received=2, segmented=2)
        assert bridge.unfinished == 1
    expected, _ = client.segment(cells, "cells")
    assert sorted(result.frame.name for result in results) == ["s0_m0_t0_z0", "s0_m0_t1_z0"]
    assert all(np.array_equal(result.labels, expected) for result in results)
    assert any("Channel 7 of ZEN is not used" in note for note in notes)


def test_one_experiment_and_one_channel(client: Client, cells: Image, play: Play) -> None:
    steps: list[Step] = [
        message(cells[c], c, c=c, experiment=experiment) for experiment in ("a", "b") for c in (0, 1)
    ]
    zen, connection = play(steps)
    results: list[FrameResult] = []
    with ZenBridge(connection, client, "nuclei", results.append, experiment="b", channels=(1,)) as bridge:
        bridge.run(count=1)
    (result,) = results
    assert result.frame.source.experiment == zen.requests[0].experiment_id == "b"
    assert zen.requests[0].channel_index.value == 1
    assert np.array_equal(result.labels, client.segment(cells[1], "nuclei")[0])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"token": "wrong"}, "refuses the control token"),
        ({"ca": None}, "does not pass for itself"),
        ({"name": "other.test"}, "does not pass for itself"),
        ({"address": "127.0.0.1:1"}, "No ZEN API answers"),
    ],
)
def test_zen_that_refuses_says_what_to_do(
    client: Client, play: Play, change: dict[str, Any], text: str
) -> None:
    _, right = play([])
    fields = {name: getattr(right, name) for name in ("address", "token", "ca", "name")}
    with (
        ZenBridge(ZenConnection(**fields | change), client, "nuclei", print) as bridge,
        pytest.raises(ZenError, match=text),
    ):
        bridge.run(count=1)


def test_the_command_saves_masks(
    daemon: DaemonProcess, nuclei: Image, play: Play, authority: Authority, tmp_path: Path
) -> None:
    steps = [message(tile, m, m=m, at=at, experiment="plate 1") for m, at, tile in mosaic(nuclei, 1, 2)]
    wrong = message((nuclei >> 4).astype(np.uint8), 5, t=5)
    zen, _ = play([*steps, wrong])
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    arguments = ["--address", daemon.address, "zen-bridge", "--model", "nuclei", "--zen", zen.address]
    arguments += [
        "--zen-token-file",
        str(token),
        "--zen-ca",
        str(authority.ca),
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(app, [*arguments, "--count", "3", "--json"])
    assert done.exit_code == 1, done.output
    assert "s0_m0_t5_z0 was not segmented: " in done.stderr
    assert "3 frames, 2 segmented, 1 failed." in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(line["name"] for line in lines) == ["s0_m0_t0_z0", "s0_m1_t0_z0"]
    for line in lines:
        labels, confidence = map(Path, line["files"])
        assert labels.parent == tmp_path / "out" / "plate_1"
        with tifffile.TiffFile(labels) as file, daemon.client() as client:
            pixels = file.asarray()
            x = line["x"]
            expected = client.segment(nuclei[:, x : x + 348], "nuclei")
            assert 'PhysicalSizeX="0.5"' in str(file.ome_metadata)
        assert np.array_equal(pixels, expected[0])
        assert np.array_equal(tifffile.imread(confidence), expected[1])


def test_a_daemon_that_falls_behind_is_told(client: Client, nuclei: Image, play: Play) -> None:
    begun = threading.Event()
    first, *others = (message(nuclei[:512, :512], t, t=t) for t in range(30))
    _, connection = play([first, lambda: begun.wait(60), *others])
    results: list[FrameResult] = []
    paces: list[tuple[bool, Counts]] = []

    def slowly(result: FrameResult) -> None:
        begun.set()
        wait_until(lambda: bridge.counts.received == 30, "all frames have come")
        results.append(result)

    options: dict[str, Any] = {"capacity": 1, "workers": 1, "on_pace": lambda *pace: paces.append(pace)}
    with ZenBridge(connection, client, "nuclei", slowly, **options) as bridge:
        bridge.run(count=30)
        assert bridge.counts == Counts(received=30, segmented=2, dropped=28)
        assert bridge.lost == 28
    assert [behind for behind, _ in paces] == [True, False]
    assert results[-1].frame.name == "s0_m0_t29_z0", "the newest frame is kept"


@pytest.mark.slow
def test_twenty_frames_a_second_fit_on_two_cores(
    client: Client, daemon: DaemonProcess, nuclei: Image, play: Play
) -> None:
    count = 100
    _, connection = play([message(nuclei[:512, :512], t, t=t) for t in range(count)])
    client.segment(nuclei[:512, :512], "nuclei")  # the model is loaded
    before = cpu_seconds(daemon.pid) + time.process_time()
    with ZenBridge(connection, client, "nuclei", lambda result: None, when_full="wait") as bridge:
        bridge.run(count=count)
        assert bridge.counts == Counts(received=count, segmented=count)
    used = cpu_seconds(daemon.pid) + time.process_time() - before
    print(f"{1000 * used / count:.1f} ms of CPU for a frame: bridge, daemon and the fake ZEN")
    assert used / count < 2 / 20


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_command_wants_a_token(daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZEN_CONTROL_TOKEN", raising=False)
    done = CliRunner().invoke(app, ["--address", daemon.address, "zen-bridge", "--model", "nuclei"])
    assert done.exit_code == 1
    assert "There is no control token" in done.stderr
