"""Puts the parts together: start, READY, drain."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from segmentd import crashpoints, telemetry
from segmentd.engine.choice import make_lane
from segmentd.engine.lanes import Lane
from segmentd.engine.scheduler import PLANES_PER_DEVICE, Scheduler
from segmentd.errors import ConfigurationError, Reason, SegmentdError
from segmentd.models.registry import Registry
from segmentd.pipeline import Engine
from segmentd.process.claims import Claims
from segmentd.process.freed_memory import keep_freed_memory
from segmentd.process.leave import Leaver
from segmentd.process.notify import Notifier
from segmentd.process.watchdog import keep_telling
from segmentd.results.check import check_results
from segmentd.results.durable import clean_temporaries
from segmentd.results.feed import Feed
from segmentd.results.journal import Journal
from segmentd.results.reserve import RESERVE_BYTES
from segmentd.results.watch_store import WatchStore
from segmentd.rpc.observing import observed
from segmentd.rpc.server import Server
from segmentd.settings import Settings
from segmentd.training_jobs.opening import open_trainings
from segmentd.watches import Parts, Watches
from segmentd.workers import WorkerPool

DECODERS = 2
# What blocks runs in these: images in work, also those that gave way, and calls to disks that may hang.
THREADS = 64
RETENTION_SECONDS = 600.0
HEALTH_SECONDS = 1.0
# The parts of a drain; together they stay below the 10 seconds that are promised.
FINISH_SECONDS = 6.0
ABANDON_SECONDS = 1.5
GRPC_GRACE_SECONDS = 1.0
LEAVE_SECONDS = 9.5
LEAVE_NOW_SECONDS = 3.0

T = TypeVar("T")
_log = telemetry.get_logger(__name__)


class _StoppedError(Exception):
    """Told to stop before everything was up."""


class Daemon:
    """One daemon process; `run` returns when it has been told to stop and has drained.

    Parameters
    ----------
    settings : Settings
        What to do.
    claims : Claims
        What this process has for itself already.
    """

    def __init__(self, settings: Settings, claims: Claims) -> None:
        self._settings = settings
        self._claims = claims
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._notifier = Notifier.from_environment()
        self._leaver = Leaver()
        self._phase = ""

    async def run(self, ready: Callable[[str], None]) -> None:
        """Start, call `ready(address)`, serve until a signal, drain.

        Where something hangs while the daemon stops, in the call to a dead share for instance, the process
        ends from here without waiting for it: as after a crash, the next start does again what was in hand.

        Raises
        ------
        ConfigurationError
            A model that a watch names cannot be used, or the address cannot be bound.
        SegmentdError
            LOCKED, JOURNAL_DAMAGED, JOURNAL_NEWER.
        """
        self._listen_to_signals()
        keep_freed_memory()
        try:
            await self._run(ready)
        except _StoppedError:
            _log.info("stopped while starting")
            self._leaver.leave()

    async def _run(self, ready: Callable[[str], None]) -> None:
        crashpoints.arm()
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        async with AsyncExitStack() as stack:
            self._enter("checking the journal")
            folder = self._settings.journal.folder
            opening = asyncio.to_thread(Journal.open, folder, reserve_bytes=RESERVE_BYTES)
            journal = stack.enter_context(closing(await self._unless_stopped(opening)))
            self._claims.claim(folder, subject="journal.folder").hold()  # it may have been made just now
            pool = stack.enter_context(WorkerPool(DECODERS))
            scheduler = Scheduler()
            lane = make_lane(self._settings.device, self._settings.models.vgg19_weights, scheduler.wanted)
            if len(lane.devices()) > 1:
                scheduler.slots, scheduler.shared = PLANES_PER_DEVICE * (len(lane.devices()) - 1), True
            scheduler.at_hand = lambda model: lane.at_hand(Path(model))
            stack.callback(lane.close)
            feed = Feed(journal)
            registry = Registry(self._settings.models.folder, lane.load, lane.unload)
            engine = Engine(registry, lane, scheduler)
            watches = Watches(
                self._settings.watch,
                self._settings.server.roots,
                Parts(engine, pool, journal, feed, self._claims),
                WatchStore(journal),
            )
            trainings = open_trainings(
                self._settings.training_folder,
                pool,
                lane,
                engine.scheduler,
                registry,
                self._settings.models.vgg19_weights,
                self._settings.training.device,
            )
            server = Server(engine, watches, journal, feed, trainings, self._settings)
            telling = keep_telling(self._notifier, lane.work_since, lambda: self._status(watches, journal))
            self._in_background(stack, telling)
            self._enter("loading models")
            await self._unless_stopped(self._load_models(registry))
            await self._unless_stopped(trainings.remove_leftovers())
            for watch in watches.list():
                await self._unless_stopped(asyncio.to_thread(clean_temporaries, watch.spec.results))
            address = await server.start()
            told = observed(self._settings, engine, watches, journal, server)
            await stack.enter_async_context(told)
            running = [
                asyncio.create_task(watches.run(), name="watches"),
                asyncio.create_task(self._look_after(journal), name="journal"),
            ]
            try:
                self._enter("looking at the folders")
                with suppress(_StoppedError):
                    await self._unless_stopped(self._first_scans(watches, running))
                    await server.set_serving(True)
                    telling_health = self._look_around(server, journal, watches, lane)
                    running.append(asyncio.create_task(telling_health, name="health"))
                    self._notifier.ready()
                    ready(address)
                    self._enter("")
                await self._until_stopped(running)
            finally:
                await trainings.close()
                await self._drain(server, feed, engine, pool, watches, running)
            stages = {name: total.seconds for name, total in telemetry.METER.stages().items()}
            _log.info("stopped", stages=stages)

    # ------------------------------------------------------------ signals

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._stop_now.set()
            self._leaver.leave_after(LEAVE_NOW_SECONDS)
        else:
            self._leaver.leave_after(LEAVE_SECONDS)
        self._stop.set()

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work; a signal is not kept waiting for it."""
        task = asyncio.ensure_future(work)
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            raise _StoppedError
        return task.result()

    # ------------------------------------------------------------ beside the work

    def _in_background(self, stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
        stack.callback(asyncio.create_task(work).cancel)

    def _enter(self, phase: str) -> None:
        """Begin a phase of the daemon's life; "" while it serves."""
        self._phase = phase
        if phase:
            self._notifier.status(phase)

    def _status(self, watches: Watches, journal: Journal) -> str:
        if self._phase:
            return self._phase
        held = [f"{watch.spec.id} waits: {watch.held}" for watch in watches.list() if watch.held]
        about = f"{len(watches.list())} watch(es), {journal.last_number()} results"
        return "; ".join([about, *held])

    async def _look_after(self, journal: Journal) -> None:
        """Check the results once; then delete events beyond the retention, now and then."""
        await check_results(journal)
        limits = self._settings.journal
        while True:
            try:
                await asyncio.to_thread(journal.retain, limits.retention_days, limits.retention_events)
            except SegmentdError as error:
                if error.reason is not Reason.DISK_FULL:
                    raise
                _log.warning("old events stay for now", why=error.message)
            await asyncio.sleep(RETENTION_SECONDS)

    async def _look_around(self, server: Server, journal: Journal, watches: Watches, lane: Lane) -> None:
        """Tell health checks while images wait for a disk, and give memory of devices back."""
        while True:
            if journal.short_of_room:
                await asyncio.to_thread(journal.regain_room)
            await asyncio.to_thread(lane.tidy)
            await server.set_healthy(not any(watch.waits_for_disk for watch in watches.list()))
            await asyncio.sleep(HEALTH_SECONDS)

    # ------------------------------------------------------------ start

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
            everything = asyncio.ensure_future(asyncio.gather(*scans))
            waiting: set[asyncio.Future[Any]] = {everything, *running}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)

    async def _until_stopped(self, running: list[asyncio.Task[None]]) -> None:
        stop = asyncio.create_task(self._stop.wait())
        waiting: set[asyncio.Future[Any]] = {stop, *running}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        for task in running:
            if task.done():
                task.result()  # a watch never ends by itself: what it raised ends the daemon

    # ------------------------------------------------------------ drain

    async def _drain(
        self,
        server: Server,
        feed: Feed,
        engine: Engine,
        pool: WorkerPool,
        watches: Watches,
        running: list[asyncio.Task[None]],
    ) -> None:
        """Stop intake, finish the planes in hand, end the streams so that clients can resume."""
        _log.info("draining")
        self._notifier.stopping()
        self._enter("finishing what is in hand")
        await server.refuse()
        broken = any(task.done() and task.exception() for task in running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        watches.let_go()
        finish = asyncio.ensure_future(asyncio.gather(watches.finish(), server.finish()))
        now = asyncio.create_task(self._stop_now.wait())
        waiting: set[asyncio.Future[Any]] = {finish, now}
        await asyncio.wait(waiting, timeout=FINISH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        now.cancel()
        if not finish.done():
            _log.warning("gave up the planes in hand; the next start does them again")
            engine.lane.abandon()
            watches.abandon()
            closing_pool = asyncio.create_task(asyncio.to_thread(pool.close))
            ending: set[asyncio.Future[Any]] = {finish, closing_pool}
            await asyncio.wait(ending, timeout=ABANDON_SECONDS)
        feed.close()
        await server.stop(GRPC_GRACE_SECONDS)
        if not finish.done():
            self._leaver.leave(1 if broken else 0)
