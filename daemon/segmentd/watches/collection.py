"""All watches: those of the configuration file, and those made over the API, which the journal keeps."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from segmentd import telemetry
from segmentd.errors import ConfigurationError, Reason, SegmentdError
from segmentd.results.watch_store import WatchStore
from segmentd.settings import WatchSettings, check_watch, given_keys
from segmentd.settings.problems import line
from segmentd.watches.parts import Parts
from segmentd.watches.watch import Watch

DISK_SECONDS = 20.0

P = ParamSpec("P")
T = TypeVar("T")
_log = telemetry.get_logger(__name__)


class Watches:
    """All watches by id. Belongs to one event loop.

    Parameters
    ----------
    configured : sequence of WatchSettings
        Those of the configuration file: read-only but for pausing.
    roots : sequence of Path
        Folders that the folders of all others must lie in, if there are any.
    parts : Parts
        What they work with.
    store : WatchStore
        Where the others, and what is paused, are kept.
    """

    def __init__(
        self, configured: Sequence[WatchSettings], roots: Sequence[Path], parts: Parts, store: WatchStore
    ) -> None:
        self._roots = tuple(roots)
        self._parts = parts
        self._store = store
        self._watches: dict[str, Watch] = {}
        self._leaving: set[Watch] = set()
        self._tasks: dict[Watch, asyncio.Task[None]] = {}
        self._broken: asyncio.Future[None] | None = None
        self._changing = asyncio.Lock()
        paused = store.paused()
        for settings in configured:
            self._add(settings, configured=True, paused=settings.id in paused)
        for identity, raw in store.watches().items():
            self._restore(identity, raw, paused=identity in paused)

    async def run(self) -> None:
        """Run all watches, also those that are made meanwhile, until cancelled; raises what one raises."""
        self._broken = asyncio.get_running_loop().create_future()
        for watch in self._watches.values():
            self._start(watch)
        try:
            await self._broken
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def finish(self) -> None:
        """Wait for all files in hand."""
        await asyncio.gather(*(watch.finish() for watch in (*self._watches.values(), *self._leaving)))

    def let_go(self) -> None:
        """Give up files that wait for something to be mended; the next start does them again."""
        for watch in (*self._watches.values(), *self._leaving):
            watch.let_go()

    def abandon(self) -> None:
        """Give up all files in hand; the next start does them again."""
        for watch in (*self._watches.values(), *self._leaving):
            watch.abandon()

    def list(self) -> list[Watch]:
        """All watches, by id."""
        return [self._watches[key] for key in sorted(self._watches)]

    def get(self, watch_id: str) -> Watch:
        """Find a watch by its id; WATCH_NOT_FOUND where there is none."""
        watch = self._watches.get(watch_id)
        if watch is None:
            known = ", ".join(sorted(self._watches)) or "none"
            raise SegmentdError(
                Reason.WATCH_NOT_FOUND,
                f"there is no watch '{watch_id}' (watches: {known})",
                resource=f"watches/{watch_id}",
            )
        return watch

    async def create(self, raw: Mapping[str, Any], *, validate_only: bool = False) -> Watch:
        """Make a watch of the keys of `[[watch]]`, and keep it.

        Raises
        ------
        ConfigurationError
            With every rule that is broken, as `key = value: rule`.
        SegmentdError
            WATCH_EXISTS, FOLDER_OUTSIDE_ROOTS, FOLDER_UNREACHABLE, LOCKED, or what is wrong with the model.
        """
        async with self._changing:
            if raw.get("id") in self._watches:
                raise SegmentdError(
                    Reason.WATCH_EXISTS,
                    f"there is a watch '{raw['id']}' already; update that one or choose another id",
                    resource=f"watches/{raw['id']}",
                )
            settings = await self._checked(raw, load=not validate_only)
            await _in_time(_check_there, settings)
            async with self._claimed(settings):
                if validate_only:
                    return self._make(settings)
                await asyncio.to_thread(self._store.save, settings.id, given_keys(settings))
                watch = self._add(settings)
                await watch.claim()
            self._start(watch)
            _log.info("watch made", watch=settings.id, folder=settings.folder, model=settings.model)
            return watch

    async def update(
        self, watch_id: str, changes: Mapping[str, Any], etag: str = "", *, validate_only: bool = False
    ) -> Watch:
        """Change keys of a watch; None takes a key back to its default. Errors as those of `create`."""
        async with self._changing:
            watch = self._changeable(watch_id, etag)
            keys = {**given_keys(watch.settings), **changes}
            raw = {key: value for key, value in keys.items() if value is not None}
            settings = await self._checked(raw, load=not validate_only)
            if settings.folder != watch.settings.folder:
                rule = "cannot be changed; make another watch for another folder"
                raise ConfigurationError([line("folder", settings.folder, rule)])
            if validate_only:
                async with self._claimed(settings):
                    return self._make(settings, paused=watch.paused)
            if settings != watch.settings:
                async with self._claimed(settings):
                    await asyncio.to_thread(self._store.save, watch_id, given_keys(settings))
                    await watch.change(settings)
                _log.info("watch changed", watch=watch_id, keys=",".join(sorted(changes)))
            return watch

    async def set_paused(self, watch_id: str, paused: bool, etag: str = "") -> Watch:
        """Pause a watch or have it go on; also one of the configuration file."""
        async with self._changing:
            watch = self.get(watch_id)
            _check_etag(watch, etag)
            if watch.paused != paused:
                await asyncio.to_thread(self._store.set_paused, watch_id, paused)
                await watch.change(paused=paused)
                _log.info("watch paused" if paused else "watch resumed", watch=watch_id)
            return watch

    async def delete(self, watch_id: str, etag: str = "") -> None:
        """Forget a watch; what is being segmented is finished, and the journal keeps its history."""
        async with self._changing:
            watch = self._changeable(watch_id, etag)
            await asyncio.to_thread(self._store.delete, watch_id)
            del self._watches[watch_id]
            self._leaving.add(watch)
            task = self._tasks.pop(watch, None)
            if task is not None:
                task.cancel()
            await watch.retire()
            leaving = asyncio.create_task(watch.finish())
            leaving.add_done_callback(lambda _: self._left(watch))
            _log.info("watch deleted", watch=watch_id)

    def _left(self, watch: Watch) -> None:
        self._leaving.discard(watch)
        watch.release()

    @asynccontextmanager
    async def _claimed(self, settings: WatchSettings) -> AsyncIterator[None]:
        """Have the folders of a watch while it is made or changed; LOCKED where another daemon has one."""
        claim = self._parts.claim_of(settings.spec())
        await _in_time(claim.hold)
        try:
            yield
        finally:
            claim.release()

    def _restore(self, identity: str, raw: Mapping[str, Any], *, paused: bool) -> None:
        """Bring back a watch that was made over the API."""
        if identity in self._watches:
            _log.warning("a watch made over the API gives way to the configuration's", watch=identity)
            return
        try:
            settings = check_watch(raw, {}, ())
        except ConfigurationError as error:
            _log.error("a watch made over the API cannot be used", watch=identity, why=error.message)
            return
        self._add(settings, paused=paused)

    def _add(self, settings: WatchSettings, *, configured: bool = False, paused: bool = False) -> Watch:
        watch = self._make(settings, configured=configured, paused=paused)
        self._watches[settings.id] = watch
        return watch

    def _make(self, settings: WatchSettings, *, configured: bool = False, paused: bool = False) -> Watch:
        return Watch(settings, self._parts, configured=configured, paused=paused, admit=self._admit)

    def _start(self, watch: Watch) -> None:
        if self._broken is None or self._broken.done():
            return  # `run` starts it, or it is too late
        self._tasks[watch] = task = asyncio.create_task(watch.run(), name=f"watch-{watch.spec.id}")
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)

    def _changeable(self, watch_id: str, etag: str) -> Watch:
        watch = self.get(watch_id)
        if watch.configured:
            raise SegmentdError(
                Reason.WATCH_READ_ONLY,
                f"watch '{watch_id}' stands in the daemon's configuration file: change it there and restart "
                "the daemon. It can be paused and resumed here.",
                resource=f"watches/{watch_id}",
            )
        _check_etag(watch, etag)
        return watch

    async def _checked(self, raw: Mapping[str, Any], *, load: bool) -> WatchSettings:
        """Check the keys of a new or changed watch beside all others, and its model."""
        others = {
            f"watches/{watch.spec.id}": watch.settings
            for watch in self.list()
            if watch.spec.id != raw.get("id")
        }
        settings = await _in_time(check_watch, raw, others, self._roots)
        registry = self._parts.engine.registry
        entry = await (registry.load if load else registry.find)(settings.model)
        if entry.fault is not None and entry.card is None:
            raise SegmentdError(Reason.MODEL_UNUSABLE, entry.fault.message, **entry.fault.metadata)
        # The id, since a display name may become ambiguous.
        return settings.model_copy(update={"model": entry.id})

    async def _admit(self, watch: Watch) -> None:
        """Let a watch begin when those that had its folders have finished, and nothing forbids it."""
        await asyncio.gather(*(leaving.finish() for leaving in self._leaving))
        if not watch.configured:
            others = {f"watches/{other.spec.id}": other.settings for other in self.list() if other.configured}
            # The configuration, or where links lead to, may have changed since it was made.
            await _in_time(check_watch, given_keys(watch.settings), others, self._roots)


async def _in_time(function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Call what looks at folders: one on a dead share must not hold up the other watches."""
    try:
        async with asyncio.timeout(DISK_SECONDS):
            return await asyncio.to_thread(function, *args, **options)
    except TimeoutError:
        why = f"a folder of the watch does not answer for {DISK_SECONDS:g} seconds; is its share there?"
        raise SegmentdError(Reason.FOLDER_UNREACHABLE, why) from None


def _check_there(settings: WatchSettings) -> None:
    """Check that a new watch's folder can be read: a wrong name is told at once, a share may go later."""
    folder = settings.folder
    if not folder.is_dir():
        raise ConfigurationError([line("folder", folder, "must be a folder that exists")])
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ConfigurationError([line("folder", folder, "must be readable for the daemon")])


def _check_etag(watch: Watch, etag: str) -> None:
    if etag and etag != watch.etag:
        raise SegmentdError(
            Reason.WATCH_CHANGED,
            f"watch '{watch.spec.id}' has changed since it was read; get it again and repeat the change",
            resource=f"watches/{watch.spec.id}",
        )
