"""Many subscribers: each gets every event once and in order, whenever it joins and however slow it is."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import grpc.aio
import numpy as np
import pytest
import tifffile

from segmentctl import Client, Result
from segmentd.v1 import segmentation_service_pb2 as pb
from segmentd.v1 import segmentation_service_pb2_grpc as grpc_stubs

from .daemon import DaemonProcess, environment, wait_until
from .images import blobs, write_blobs
from .process import resident_mib

pytestmark = pytest.mark.e2e
CONNECTIONS = 10
LIMIT_SECONDS = 100.0


class Crowd:
    """Subscribers of one daemon over a few connections, each with the numbers that it got."""

    def __init__(self, address: str, last: int) -> None:
        self._address = address
        self._last = last
        self._stubs: list[grpc_stubs.SegmentationServiceStub] = []
        self._readers: list[asyncio.Task[None]] = []
        self.cursors: list[str] = []
        self.numbers: list[list[int]] = []

    async def connect(self, stack: AsyncExitStack) -> None:
        for number in range(CONNECTIONS):
            own = [
                ("grpc.use_local_subchannel_pool", 1),
                ("segmentd.test", number),
            ]  # a connection of its own
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(self._address, options=own))
            self._stubs.append(grpc_stubs.SegmentationServiceStub(channel))

    async def join(self, **where: str) -> None:
        """Add a subscriber; it is live when this returns."""
        place = len(self.numbers)
        request = pb.SubscribeSegmentationsRequest(parent="watches/hot", metadata_only=True, **where)
        call = self._stubs[place % CONNECTIONS].SubscribeSegmentations(request, timeout=LIMIT_SECONDS)
        first = await call.read()
        assert first.WhichOneof("part") is None
        self.numbers.append([])
        self.cursors.append(first.cursor)
        self._readers.append(asyncio.create_task(self._read(call, self.numbers[place])))

    def wait_for(self, number: int) -> None:
        wait_until(lambda: self.seen >= number, f"event {number}", LIMIT_SECONDS)

    @property
    def seen(self) -> int:
        """The last event that the first subscriber has seen."""
        return self.numbers[0][-1] if self.numbers[0] else 0

    async def finish(self) -> None:
        """Wait until each has seen the last event."""
        await asyncio.gather(*self._readers)

    async def _read(self, call: grpc.aio.UnaryStreamCall, numbers: list[int]) -> None:
        while not numbers or numbers[-1] < self._last:
            part = await call.read()
            if part.WhichOneof("part") == "head":
                numbers.append(part.head.number)
        call.cancel()


async def gather_a_crowd(daemon: DaemonProcess, count: int, events: int) -> None:
    """A tenth joins before the first event, the others at any time while events are published."""
    random, crowd, written = np.random.default_rng(count), Crowd(daemon.address, events), 0
    async with AsyncExitStack() as stack:
        await crowd.connect(stack)
        client = stack.enter_context(Client(daemon.address, timeout=5.0))
        for _ in range(count // 10):
            await crowd.join()
        while len(crowd.numbers) < count:
            due = events * len(crowd.numbers) // count
            for number in range(written, due):
                await asyncio.to_thread(write_blobs, daemon.hot / f"{number}.tif", number, (60, 70))
            written = due
            # A few images are under way all the time.
            await asyncio.to_thread(crowd.wait_for, written - 5)
            cursor = f"{crowd.cursors[0].rpartition('-')[0]}-{random.integers(0, crowd.seen + 1)}"
            await crowd.join(**[{"start": "START_OLDEST"}, {"cursor": cursor}, {}][len(crowd.numbers) % 3])
            if len(crowd.numbers) % 25 == 0:
                await asyncio.to_thread(client.server)  # answers within the client's 5 s, or raises
        await asyncio.to_thread(write_blobs, daemon.hot / "last.tif", 0)
        await crowd.finish()
        starts = [int(cursor.rpartition("-")[2]) for cursor in crowd.cursors]
        assert len(set(starts)) > 2, "nobody joined in between"
        for start, numbers in zip(starts, crowd.numbers, strict=True):
            assert numbers == list(range(start + 1, events + 1))
        await asyncio.to_thread(wait_until, lambda: client.server().subscriber_count == 0, "all are gone")


async def test_subscribers_that_join_at_any_time_see_each_event_once(
    place: Callable[..., DaemonProcess],
) -> None:
    with place() as daemon:
        await gather_a_crowd(daemon, 50, 20)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_thousand_subscribers(place: Callable[..., DaemonProcess]) -> None:
    with place() as daemon:
        await gather_a_crowd(daemon, 1000, 100)


@pytest.mark.slow
def test_a_stopped_subscriber_costs_little_delays_nobody_and_gets_all_later(
    place: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    """It is a process that is suspended; what it misses meanwhile is far more than it may cost."""
    # Enough before that what the daemon keeps of planes in memory is full.
    before, missed, image = 60, 60, tmp_path / "image.tif"
    tifffile.imwrite(image, np.tile(blobs(1, (250, 300)), (2, 2)))
    with (
        place() as daemon,
        daemon.client() as client,
        client.subscribe("hot", start="oldest", timeout=90, metadata_only=True) as results,
        tailing(daemon, before + missed, tmp_path) as tail,
    ):
        publish(daemon.hot, results, image, range(before))
        wait_until(lambda: len(list(tmp_path.glob("got/*labels*"))) == before, "the other one follows")
        tail.send_signal(signal.SIGSTOP)
        memory = resident_mib(daemon.pid)
        publish(daemon.hot, results, image, range(before, before + missed))
        assert resident_mib(daemon.pid) - memory < 20
        tail.send_signal(signal.SIGCONT)
        assert tail.wait(60) == 0
        # One that dies while it is sent something is no error of the daemon's.
        with tailing(daemon, before + missed, tmp_path / "dies") as dying:
            wait_until(lambda: any(tmp_path.glob("dies/got/*labels*")), "another one follows")
            dying.send_signal(signal.SIGSTOP)
            dying.kill()
            dying.wait()
        wait_until(lambda: client.server().subscriber_count == 1, "the dead one is gone")
        assert "level=error" not in daemon.log_path.read_text()
    lines = (tmp_path / "tail.json").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(1, before + missed + 1))
    assert len(list(tmp_path.glob("got/*labels*"))) == before + missed


def publish(hot: Path, results: Iterator[Result], image: Path, numbers: range) -> None:
    """Copy an image into the folder again and again, and wait for all results."""
    for number in numbers:
        shutil.copyfile(image, hot / f"{number}.tif")
    assert [next(results).number - 1 for _ in numbers] == list(numbers)


@contextmanager
def tailing(daemon: DaemonProcess, count: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `segmentctl tail`, which saves the pixels in `got` and the heads in `tail.json`."""
    arguments = ["tail", "--from", "oldest", "--count", str(count), "--json", "--save", "got"]
    folder.mkdir(exist_ok=True)
    with (folder / "tail.json").open("wb") as out:
        tail = subprocess.Popen(
            [sys.executable, "-m", "segmentctl", "--address", daemon.address, *arguments],
            stdout=out,
            cwd=folder,
            env=environment(folder),
        )
        try:
            yield tail
        finally:
            tail.kill()
            tail.wait()
