"""Where events are lost or cannot be had, and shares that go and return: every file is done."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from segmentctl import Client
from segmentd.v1.watch_service_pb2 import Watch

from .daemon import DaemonProcess, wait_until
from .images import write_blobs

pytestmark = pytest.mark.e2e

QUEUE_LENGTH = Path("/proc/sys/fs/inotify/max_queued_events")
NO_WATCHES = ["unshare", "-Ur", "sh", "-c", 'echo 0 > /proc/sys/user/max_inotify_watches && exec "$@"', "sh"]


def settled(client: Client, done: int) -> None:
    """Wait until so many files are done and none waits; none may have failed."""

    def is_so() -> bool:
        watch = client.watch("hot")
        assert watch.failed_count == 0
        return (watch.done_count, watch.waiting_count) == (done, 0)

    wait_until(is_so, f"{done} files are done", 60)


@pytest.mark.slow
def test_an_overflow_of_the_queue_of_events_loses_nothing(place: Callable[..., DaemonProcess]) -> None:
    """Also not in folders that were made meanwhile."""
    daemon = place(poll="never", rescan_seconds=3000.0)
    scratch = write_blobs(daemon.folder / "scratch" / "0.tif", 0).parent
    for number in range(1, 6):
        shutil.copy(scratch / "0.tif", scratch / f"{number}.tif")
    with daemon, daemon.client() as client:
        assert (client.watch("hot").mode, client.watch("hot").mode_reason) == (Watch.MODE_EVENTS, "")
        daemon.signal(signal.SIGSTOP)
        (daemon.hot / "x").touch()
        for _ in range(int(QUEUE_LENGTH.read_text()) // 2):  # four events each: twice what fits
            (daemon.hot / "x").rename(daemon.hot / "y").rename(daemon.hot / "x")
        for number in range(3):
            (scratch / f"{number}.tif").rename(daemon.hot / f"{number}.tif")
        (daemon.hot / "meanwhile").mkdir()
        daemon.signal(signal.SIGCONT)
        settled(client, 3)
        assert "events were lost" in client.watch("hot").mode_reason
        shutil.copy(scratch / "3.tif", daemon.hot / "meanwhile")
        (scratch / "4.tif").rename(daemon.hot / "meanwhile" / "4.tif")
        settled(client, 5)
        assert client.watch("hot").mode == Watch.MODE_EVENTS


def test_without_watches_of_inotify_a_folder_is_polled(place: Callable[..., DaemonProcess]) -> None:
    if subprocess.run([*NO_WATCHES, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs user namespaces, to be left without inotify watches")
    daemon = place(poll_seconds=0.2)
    daemon.prefix = NO_WATCHES
    with daemon, daemon.client() as client:
        watch = client.watch("hot")
        assert watch.mode == Watch.MODE_POLL
        assert "fs.inotify.max_user_watches" in watch.mode_reason
        for number in range(3):
            write_blobs(daemon.hot / "sub" / f"{number}.tif", number)
        settled(client, 3)


@contextmanager
def mounted(source: Path, at: Path) -> Iterator[Callable[[], None]]:
    """Mount `source` through FUSE; the function that is given kills the file system's server."""
    if shutil.which("bindfs") is None or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("needs bindfs and /dev/fuse")
    server = subprocess.Popen(["bindfs", "-f", source, at], stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: server.poll() is not None or at.is_mount(), "the mount")
        if server.poll() is not None:
            assert server.stderr is not None
            pytest.skip(f"bindfs cannot mount here: {server.stderr.read()}")

        def kill() -> None:
            server.kill()
            server.wait()

        yield kill
    finally:
        subprocess.run(["fusermount", "-uz", at], check=False, capture_output=True)
        server.kill()
        server.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["unmounted", "its server dies"])
def test_a_share_that_goes_and_returns(place: Callable[..., DaemonProcess], end: str) -> None:
    daemon = place(results=str(place("results").folder), poll_seconds=0.2, marker_file=".share")
    share = daemon.folder / "share"
    share.mkdir()
    (share / ".share").touch()
    with mounted(share, daemon.hot) as kill:
        daemon.start()
        client = daemon.client()
        watch = client.watch("hot")
        assert watch.mode == Watch.MODE_POLL
        assert "fuse" in watch.mode_reason
        for number in range(3):
            write_blobs(share / f"{number}.tif", number)
        settled(client, 3)
        if end == "its server dies":
            kill()
            wait_until(lambda: client.watch("hot").state == Watch.STATE_UNREACHABLE, "its end is noticed")
    wait_until(lambda: client.watch("hot").state == Watch.STATE_UNREACHABLE, "it is missed")
    for number in range(3, 6):
        write_blobs(share / f"{number}.tif", number)
    with mounted(share, daemon.hot):
        wait_until(lambda: client.watch("hot").state == Watch.STATE_ACTIVE, "it is back", 60)
        settled(client, 6)
        daemon.stop()
    client.close()
