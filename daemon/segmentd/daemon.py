"""Puts the parts together: start, READY, drain."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from typing import Any

from segmentd import telemetry
from segmentd.engine.lane import CpuLane
from segmentd.engine.scheduler import Scheduler
from segmentd.errors import ConfigurationError, SegmentdError
from segmentd.models.registry import Registry
from segmentd.pipeline import Engine
from segmentd.results.durable import clean_temporaries
from segmentd.results.feed import Feed
from segmentd.results.journal import Journal
from segmentd.results.watch_store import WatchStore
from segmentd.rpc.server import Server
from segmentd.settings import Settings
from segmentd.training_jobs.opening import open_trainings
from segmentd.watches import Parts, Watches
from segmentd.workers import WorkerPool

DECODERS = 2
DRAIN_SECONDS = 8.0
GRPC_GRACE_SECONDS = 1.0
RETENTION_SECONDS = 600.0

_log = telemetry.get_logger(__name__)


class Daemon:
    """One daemon process; `run` returns when it has been told to stop and has drained."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()

    async def run(self, ready: Callable[[str], None]) -> None:
        """Start, call `ready(address)`, serve until a signal, drain.

        Raises
        ------
        ConfigurationError
            A model that a watch names cannot be used, or the address cannot be bound.
        SegmentdError
            LOCKED, JOURNAL_DAMAGED, JOURNAL_NEWER.
        """
        self._listen_to_signals()
        async with AsyncExitStack() as stack:
            journal = stack.enter_context(closing(Journal.open(self._settings.journal.folder)))
            pool = stack.enter_context(WorkerPool(DECODERS))
            lane = CpuLane(self._settings.device.threads, self._why_cpu())
            stack.callback(lane.close)
            feed = Feed(journal)
            registry = Registry(self._settings.models.folder, lane.load, lane.unload)
            engine = Engine(registry, lane, Scheduler())
            watches = Watches(
                self._settings.watch,
                self._settings.server.roots,
                Parts(engine, pool, journal, feed),
                WatchStore(journal),
            )
            trainings = open_trainings(self._settings.training_folder, pool, lane, engine.scheduler, registry)
            server = Server(engine, watches, journal, feed, trainings, self._settings.server)
            await self._load_models(registry)
            await trainings.remove_leftovers()
            for watch in watches.list():
                await asyncio.to_thread(clean_temporaries, watch.spec.results)
            address = await server.start(self._settings.server.listen)
            forgetting = asyncio.create_task(self._forget(journal))
            stack.callback(forgetting.cancel)
            running = [asyncio.create_task(watches.run(), name="watches")]
            await self._first_scans(watches, running)
            await server.set_serving(True)
            ready(address)
            await self._until_stopped(running)
            await trainings.close()
            await self._drain(server, feed, watches, running)
            stages = {name: total.seconds for name, total in telemetry.METER.stages().items()}
            _log.info("stopped", stages=stages)

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    def _why_cpu(self) -> str:
        if self._settings.device.prefer != "cuda":
            return ""
        return "device.prefer is cuda, but this version computes on the CPU only"

    async def _forget(self, journal: Journal) -> None:
        """Delete events beyond the retention, now and then."""
        limits = self._settings.journal
        while limits.retention_days or limits.retention_events:
            await asyncio.to_thread(journal.retain, limits.retention_days, limits.retention_events)
            await asyncio.sleep(RETENTION_SECONDS)

    async def _load_models(self, registry: Registry) -> None:
        problems = []
        for number, watch in enumerate(self._settings.watch):
            try:
                await registry.load(watch.model)
            except SegmentdError as error:
                problems.append(f"watch[{number}].model = {watch.model!r}: {error.message}")
        if problems:
            raise ConfigurationError(problems)

    async def _first_scans(self, watches: Watches, running: list[asyncio.Task[None]]) -> None:
        scans = [asyncio.create_task(watch.first_scan()) for watch in watches.list()]
        if scans:
            stop = asyncio.create_task(self._stop.wait())
            everything = asyncio.ensure_future(asyncio.gather(*scans))
            waiting: set[asyncio.Future[Any]] = {everything, stop, *running}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()

    async def _until_stopped(self, running: list[asyncio.Task[None]]) -> None:
        stop = asyncio.create_task(self._stop.wait())
        waiting: set[asyncio.Future[Any]] = {stop, *running}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        for task in running:
            if task.done():
                task.result()  # a watch never ends by itself: what it raised ends the daemon

    async def _drain(
        self, server: Server, feed: Feed, watches: Watches, running: list[asyncio.Task[None]]
    ) -> None:
        """Stop intake, finish the planes in hand, end the streams so that clients can resume."""
        _log.info("draining")
        await server.set_serving(False)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        finish = asyncio.ensure_future(watches.finish())
        now = asyncio.create_task(self._stop_now.wait())
        waiting: set[asyncio.Future[Any]] = {finish, now}
        await asyncio.wait(waiting, timeout=DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        now.cancel()
        if not finish.done():
            _log.warning("gave up the planes in hand; the next start does them again")
            watches.abandon()
        feed.close()
        await server.stop(GRPC_GRACE_SECONDS)
