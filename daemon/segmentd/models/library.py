"""Changes of the models folder: take in, change, copy, delete, go back. One at a time; each can be undone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from segmentd.errors import Reason, SegmentdError, write_errors
from segmentd.models import bundle, files, packages, versions
from segmentd.models.files import AnyModel
from segmentd.models.registry import ModelEntry, Registry
from segmentd.records import ModelCard
from segmentd.threads import to_its_end


@dataclass(frozen=True)
class VersionInfo:
    """A version of a model; `card` is None where its file cannot be read any more."""

    number: int
    current: bool
    size_bytes: int
    time: float
    card: ModelCard | None


class Library:
    """The models of a registry, to be changed. Belongs to one event loop.

    A change writes the new file beside the models, tries it on the device, and then gives it its name;
    whoever uses the model goes on with the version that was leased, and gets the new one at the next image.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._one_at_a_time = asyncio.Lock()

    async def take_in(
        self,
        model: AnyModel,
        model_id: str = "",
        display_name: str = "",
        overwrite: bool = False,
    ) -> ModelEntry:
        """Make a model part of the folder: a new one, or with `overwrite` a new version of that with its id.

        Parameters
        ----------
        model : Model or NetworkModel
            The model; its card is changed as the next two say.
        model_id, display_name : str
            Id and name that it gets here; its own where empty. A new name without an id makes the id.
        overwrite : bool
            Whether a model of this id may be there already.

        Raises
        ------
        SegmentdError
            MODEL_EXISTS, BAD_FIELD, MODEL_UNUSABLE; what was there stays as it is.
        """
        name = display_name or model.card.display_name
        identity = model_id or (bundle.slug(display_name) if display_name else model.card.id)
        if identity != bundle.slug(identity):
            raise packages.bad_field(
                "model_id", f"'{identity}' must be an id such as '{bundle.slug(identity)}'"
            )
        async with self._one_at_a_time:
            there = await self._with_id(identity)
            if there is not None and not overwrite:
                raise SegmentdError(
                    Reason.MODEL_EXISTS,
                    f"there is a model '{identity}' already; allow to overwrite it, which keeps it as an "
                    "older version, or give the new one another id",
                    resource=identity,
                )
            created = model.card.created or datetime.now(UTC).isoformat(timespec="seconds")
            card = replace(model.card, id=identity, display_name=name, created=created)
            path = there.path if there else self.registry.folder.absolute() / f"{identity}{bundle.SUFFIX}"
            if there is not None:
                self._own_file(there)
            await self._publish(packages.with_card(model, card), path)
            return await self._settled(path)

    async def update(self, reference: str, change: Callable[[ModelCard], ModelCard]) -> ModelEntry:
        """Give a model another card; a new version where that changes what it computes or shows.

        Raises
        ------
        SegmentdError
            MODEL_NOT_FOUND, MODEL_AMBIGUOUS, BAD_FIELD.
        """
        async with self._one_at_a_time:
            entry = await self.registry.find(reference)
            self._own_file(entry)
            model = await asyncio.to_thread(packages.read, entry.path, entry.path.name)
            changed = packages.with_card(model, change(model.card))
            if changed.card != model.card:
                await self._publish(changed, entry.path, same=changed.card.digest == model.card.digest)
            return await self._settled(entry.path)

    async def clone(self, reference: str, display_name: str, model_id: str = "") -> ModelEntry:
        """A second model with the content of the first, under another id.

        Raises
        ------
        SegmentdError
            MODEL_EXISTS, and what finding the first one raises.
        """
        entry = await self.registry.find(reference)
        model = await asyncio.to_thread(packages.read, entry.path, entry.path.name)
        name = display_name or f"{model.card.display_name} copy"
        return await self.take_in(model, model_id or bundle.slug(name), name)

    async def delete(self, reference: str, watches: Sequence[str], force: bool, purge: bool) -> None:
        """Take a model out of the folder; its versions stay, for `roll_back`, unless `purge`.

        Parameters
        ----------
        reference : str
            The model.
        watches : sequence of str
            Ids of the watches that use it.
        force : bool
            Delete it all the same: they go on with what is in memory, but not after a restart.

        Raises
        ------
        SegmentdError
            MODEL_IN_USE, MODEL_NOT_FOUND.
        """
        async with self._one_at_a_time:
            entry = await self.registry.find(reference)
            self._inside(entry)
            if watches and not force:
                raise SegmentdError(
                    Reason.MODEL_IN_USE,
                    f"model '{entry.id}' is used by watch {', '.join(watches)}; give them another model "
                    "first, or force it",
                    resource=entry.id,
                )
            with write_errors("models", self.registry.folder):
                await asyncio.to_thread(versions.delete, entry.path, purge)
            if not entry.leases:
                await self.registry.forget(entry)

    async def roll_back(self, reference: str, number: int = 0) -> ModelEntry:
        """Make an older version the current one, as a new version; brings back a deleted model, too.

        `number` 0 means the version before the current one, or the last one of a deleted model.
        """
        async with self._one_at_a_time:
            path = await self._path_even_deleted(reference)
            source = await asyncio.to_thread(_version_file, path, number)
            with write_errors("models", self.registry.folder):
                staged = await asyncio.to_thread(versions.copy_of, source, self.registry.folder)
            await self._exchange(staged, path, same=False)
            return await self._settled(path)

    async def list_versions(self, reference: str) -> list[VersionInfo]:
        """All versions of a model, the current one first."""
        path = await self._path_even_deleted(reference)
        return await asyncio.to_thread(_version_infos, path)

    async def _with_id(self, identity: str) -> ModelEntry | None:
        entries = await self.registry.list()
        return next((entry for entry in entries if entry.id == identity), None)

    async def _path_even_deleted(self, reference: str) -> Path:
        try:
            entry = await self.registry.find(reference)
        except SegmentdError as error:
            if error.reason is not Reason.MODEL_NOT_FOUND:
                raise
            path = await asyncio.to_thread(versions.deleted, self.registry.folder, reference)
            if path is None:
                raise
            return path
        self._inside(entry)
        return entry.path

    def _inside(self, entry: ModelEntry) -> None:
        if entry.path.parent != self.registry.folder.absolute():
            raise SegmentdError(
                Reason.MODEL_UNUSABLE,
                f"model '{entry.id}' is the file {entry.path}, outside of the models folder; import it to "
                "change it",
                resource=entry.id,
            )

    def _own_file(self, entry: ModelEntry) -> None:
        self._inside(entry)
        if entry.path.suffix != bundle.SUFFIX:
            raise SegmentdError(
                Reason.MODEL_UNUSABLE,
                f"model '{entry.id}' is the package {entry.path.name} as it came, which is left as it is; "
                "import it with 'segmentctl models import' under another id and change that",
                resource=entry.id,
            )

    async def _publish(self, model: AnyModel, path: Path, same: bool = False) -> None:
        staged = await asyncio.to_thread(versions.staged_path, self.registry.folder)
        with write_errors("models", self.registry.folder):
            await asyncio.to_thread(files.save, model, staged)
        await self._exchange(staged, path, same)

    async def _exchange(self, staged: Path, path: Path, same: bool) -> None:
        """Try a staged file and give it its name; `same` where it computes what the current version does."""
        try:
            await self.registry.try_out(staged)
            with write_errors("models", self.registry.folder):
                await asyncio.to_thread(versions.replace if same else versions.publish, staged, path)
        finally:
            await to_its_end(staged.unlink, missing_ok=True)

    async def _settled(self, path: Path) -> ModelEntry:
        """The entry of a file that was just exchanged, loaded anew where it was loaded before."""
        await self.registry.renew(path)
        await self.registry.list()
        return await self.registry.find(str(path))


def _version_file(path: Path, number: int) -> Path:
    before = versions.older(path)
    if number == 0:
        if not before:
            raise packages.bad_field("version", f"{path.name} has no older version to go back to")
        return before[-1].path
    return versions.find(path, number)


def _version_infos(path: Path) -> list[VersionInfo]:
    listed = [(version.number, False, version.path) for version in versions.older(path)]
    if path.exists():
        listed.append((versions.current_number(path), True, path))
    infos = []
    for number, current, file in reversed(listed):
        stat = file.stat()
        try:
            card = packages.read(file, path.name).card
        except SegmentdError:
            card = None
        infos.append(VersionInfo(number, current, stat.st_size, stat.st_mtime, card))
    return infos
