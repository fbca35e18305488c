"""Which models there are, which are loaded, and who is using them."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle, files
from segmentd.records import Fault, ModelCard
from segmentd.settings.values import MODEL_SUFFIXES


class ModelState(StrEnum):
    """Life of a model in the daemon."""

    UNLOADED = "UNLOADED"
    LOADING = "LOADING"
    ACTIVE = "ACTIVE"
    FAILED = "FAILED"


@dataclass(eq=False)
class ModelEntry:
    """One model file, as the daemon knows it; `card` is None while it could never be read.

    `id` is the model's id in the API, which no other model of the registry has.
    """

    path: Path
    id: str = ""
    card: ModelCard | None = None
    state: ModelState = ModelState.UNLOADED
    fault: Fault | None = None
    leases: int = 0
    stamp: tuple[int, ...] | None = None
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def own_id(self) -> str:
        """The card's id; while there is no card, what the file name makes of it."""
        return self.card.id if self.card else bundle.slug(self.path.stem)

    @property
    def content(self) -> str:
        """The model's digest; while there is no card, a digest of the path."""
        return self.card.digest if self.card else sha256(os.fsencode(self.path)).hexdigest()


@dataclass(frozen=True)
class Lease:
    """The right to use a loaded model until the lease ends."""

    path: Path
    card: ModelCard


class Registry:
    """Models of one folder, and those that were named by path. Belongs to one event loop.

    Parameters
    ----------
    folder : Path
        Where model files lie; may be missing.
    load, unload
        Bring a model file to the device (returns its card, raises SegmentdError), take it off. They
        block and are called in a thread.
    """

    def __init__(
        self, folder: Path, load: Callable[[Path], ModelCard], unload: Callable[[Path], None]
    ) -> None:
        self.folder = folder
        self._load = load
        self._unload = unload
        self._entries: dict[Path, ModelEntry] = {}

    @property
    def loaded_count(self) -> int:
        """How many models are loaded."""
        return sum(entry.state is ModelState.ACTIVE for entry in self._entries.values())

    async def list(self) -> Sequence[ModelEntry]:
        """All models, read anew from the folder, by id; each id is there once."""
        for path in await asyncio.to_thread(self._files):
            self._entries.setdefault(path, ModelEntry(path))
        for entry in list(self._entries.values()):
            await asyncio.to_thread(_refresh, entry)
            if entry.stamp is None and entry.state is not ModelState.ACTIVE and not entry.leases:
                self._entries.pop(entry.path, None)
        return self._distinct()

    async def find(self, reference: str) -> ModelEntry:
        """The model of that id, display name or path.

        Raises
        ------
        SegmentdError
            MODEL_NOT_FOUND, or MODEL_AMBIGUOUS where several bear the name.
        """
        if reference.endswith(MODEL_SUFFIXES) or "/" in reference:
            path = Path(reference).expanduser().absolute()  # noqa: ASYNC240 (no disk for an absolute path)
            entry = self._entries.setdefault(path, ModelEntry(path))
            if entry.state not in (ModelState.ACTIVE, ModelState.LOADING):
                await asyncio.to_thread(_refresh, entry)
            if entry.card is None and entry.stamp is None:
                del self._entries[path]
                raise SegmentdError(
                    Reason.MODEL_NOT_FOUND, f"{path}: there is no such model file", resource=reference
                )
            self._distinct()
            return entry
        entries = await self.list()
        named = [entry for entry in entries if entry.id == reference]
        named = named or [e for e in entries if e.card and reference in (e.own_id, e.card.display_name)]
        if len(named) == 1:
            return named[0]
        if named:
            choice = ", ".join(f"{entry.id} ({entry.path})" for entry in named)
            raise SegmentdError(
                Reason.MODEL_AMBIGUOUS,
                f"model '{reference}' is ambiguous: {choice}; name one of them by its id or path",
                resource=reference,
            )
        known = ", ".join(entry.id for entry in entries) or "none"
        raise SegmentdError(
            Reason.MODEL_NOT_FOUND,
            f"there is no model '{reference}' in {self.folder} (known: {known}); train one with "
            "'segmentd train' and put it there",
            resource=reference,
        )

    async def load(self, reference: str) -> ModelEntry:
        """Load a model, or load it anew if its file has changed; nothing to do if it is loaded."""
        entry = await self.find(reference)
        async with entry.loading:
            await self._ensure(entry)
        return entry

    async def unload(self, reference: str) -> ModelEntry:
        """Take a model off the device. MODEL_IN_USE while a plane or a watch is using it."""
        entry = await self.find(reference)
        async with entry.loading:
            if entry.leases:
                raise SegmentdError(
                    Reason.MODEL_IN_USE,
                    f"model '{entry.id}' is in use by {entry.leases} plane(s) or watch(es); try again later",
                    resource=entry.id,
                )
            if entry.state is ModelState.ACTIVE:
                await asyncio.to_thread(self._unload, entry.path)
                entry.state = ModelState.UNLOADED
        return entry

    async def try_out(self, path: Path) -> None:
        """Load a file that is no model yet, and take it off again; MODEL_UNUSABLE where that fails."""
        await asyncio.to_thread(self._load, path)
        await asyncio.to_thread(self._unload, path)

    async def renew(self, path: Path) -> None:
        """Load a model anew whose file was exchanged, if it is loaded."""
        entry = self._entries.get(path)
        if entry is not None and entry.state is ModelState.ACTIVE:
            async with entry.loading:
                await self._ensure(entry)

    async def forget(self, entry: ModelEntry) -> None:
        """Take a model whose file was deleted off the device and out of the list."""
        async with entry.loading:
            if entry.state is ModelState.ACTIVE:
                await asyncio.to_thread(self._unload, entry.path)
            entry.state = ModelState.UNLOADED
            self._entries.pop(entry.path, None)

    @asynccontextmanager
    async def lease(self, reference: str) -> AsyncIterator[Lease]:
        """Use a model: loaded if need be, and not unloaded while the lease is held."""
        entry = await self.load(reference)
        if entry.card is None:
            raise SegmentdError(Reason.MODEL_UNUSABLE, f"{entry.path}: the model could not be read")
        entry.leases += 1
        try:
            yield Lease(entry.path, entry.card)
        finally:
            entry.leases -= 1

    async def _ensure(self, entry: ModelEntry) -> None:
        stamp = _stamp(entry.path)
        if entry.state is ModelState.ACTIVE and (stamp == entry.stamp or stamp is None):
            return
        was_active = entry.state is ModelState.ACTIVE
        entry.state = ModelState.LOADING
        try:
            entry.card = await asyncio.to_thread(self._load, entry.path)
        except SegmentdError as error:
            entry.fault = Fault(error.reason, error.message, error.metadata)
            if was_active:
                # A bad new file does not disturb the model in use.
                entry.state, entry.stamp = ModelState.ACTIVE, stamp
                return
            entry.state = ModelState.FAILED
            raise
        entry.state, entry.stamp, entry.fault = ModelState.ACTIVE, stamp, None

    def _distinct(self) -> Sequence[ModelEntry]:
        """Give every model an id of its own; returns one entry for each model, by id.

        Files with the same model are one, that in use if there is one. Different models that claim one id
        are told apart by the start of their digest; a file that cannot be read takes no id from others.
        """
        models: dict[tuple[str, str], ModelEntry] = {}
        for entry in sorted(self._entries.values(), key=lambda e: (e.state is not ModelState.ACTIVE, e.path)):
            models.setdefault((entry.own_id, entry.content), entry)
        claims = Counter(entry.own_id for entry in models.values())
        sound_claims = Counter(entry.own_id for entry in models.values() if entry.card)
        for entry in self._entries.values():
            claimed = sound_claims if entry.card else claims
            alone = claimed[entry.own_id] == 1
            entry.id = entry.own_id if alone else f"{entry.own_id}-{entry.content[:8]}"
        return sorted(models.values(), key=lambda entry: entry.id)

    def _files(self) -> Sequence[Path]:
        found = self.folder.iterdir() if self.folder.is_dir() else []
        return sorted(
            path.absolute()
            for path in found
            if path.suffix in MODEL_SUFFIXES and not path.name.startswith(".")
        )


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    sidecar = files.sidecar_of(path)
    beside = _stamp(sidecar) if sidecar else None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino, *(beside or ())


def _refresh(entry: ModelEntry) -> None:
    """Read the card of a model that is not loaded, if its file is new or has changed."""
    stamp = _stamp(entry.path)
    if entry.state in (ModelState.ACTIVE, ModelState.LOADING) or stamp == entry.stamp:
        return
    entry.stamp = stamp
    try:
        entry.card = files.load(entry.path).card
    except SegmentdError as error:
        entry.state, entry.fault = ModelState.FAILED, Fault(error.reason, error.message, error.metadata)
    else:
        entry.state, entry.fault = ModelState.UNLOADED, None
