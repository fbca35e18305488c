"""`ModelService`: which models there are, which are loaded, and every change of them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

from google.protobuf import empty_pb2

from segmentd.engine.lanes import Lane
from segmentd.errors import Reason, SegmentdError
from segmentd.models import packages, versions
from segmentd.models.border import with_border
from segmentd.models.library import Library, VersionInfo
from segmentd.models.registry import ModelEntry
from segmentd.records import ModelCard
from segmentd.rpc import transfer
from segmentd.rpc.convert import (
    classes_record,
    model_message,
    model_reference,
    page_size,
    page_start,
    timestamp,
)
from segmentd.rpc.faults import Context, bad_field
from segmentd.threads import to_its_end
from segmentd.training_jobs.trainings import Trainings
from segmentd.v1 import model_service_pb2 as pb
from segmentd.v1 import model_service_pb2_grpc
from segmentd.watches import Watches

_CHANGES: dict[str, Callable[[ModelCard, pb.Model], ModelCard]] = {
    "display_name": lambda card, model: replace(card, display_name=model.display_name),
    "description": lambda card, model: replace(card, description=model.description),
    "classes": lambda card, model: replace(card, classes=classes_record(model.classes)),
    "border_pixels": lambda card, model: with_border(card, model.border_pixels),
    "postprocessing": lambda card, model: replace(card, postprocessing=model.postprocessing),
}


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Serves the models; `lane` is where loaded ones are."""

    def __init__(self, library: Library, lane: Lane, watches: Watches, trainings: Trainings) -> None:
        self._library = library
        self._registry = library.registry
        self._lane = lane
        self._watches = watches
        self._trainings = trainings

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.Model:
        return await self.message(await self._registry.find(model_reference(request.name)))

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        entries = await self._registry.list()
        start, size = page_start(request.page_token), page_size(request.page_size)
        more = start + size < len(entries)
        trainings = await self._training_names()
        return pb.ListModelsResponse(
            models=[await self.message(entry, trainings) for entry in entries[start : start + size]],
            next_page_token=str(start + size) if more else "",
        )

    async def LoadModel(self, request: pb.LoadModelRequest, context: Context) -> pb.Model:
        entry = await self._registry.load(model_reference(request.name))
        await asyncio.to_thread(self._lane.pin, entry.path)
        return await self.message(entry)

    async def UnloadModel(self, request: pb.UnloadModelRequest, context: Context) -> pb.Model:
        return await self.message(await self._registry.unload(model_reference(request.name)))

    async def ImportModel(self, requests: AsyncIterator[pb.ImportModelRequest], context: Context) -> pb.Model:
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("part") != "head":
            raise bad_field("head", "the first message must hold the head of the file")
        head = first.head
        if not head.sha256:
            raise bad_field("head.sha256", "must be given: the SHA-256 of the file, in hex")
        if head.size_bytes > packages.MAX_PACKAGE_BYTES:
            raise packages.too_large(head.size_bytes)
        staged = await asyncio.to_thread(versions.staged_path, self._registry.folder)
        try:
            limit = packages.MAX_PACKAGE_BYTES
            came = await transfer.receive_file(requests, staged, limit, packages.too_large)
            transfer.check_received(*came, head.size_bytes, head.sha256)
            name = Path(head.file_name.replace("\\", "/")).name or "model"
            model = await asyncio.to_thread(packages.read, staged, name, head.sidecar or None)
            # The images first: where they are bad, nothing is changed.
            async with self._trainings.unpacked(staged, name) as training:
                entry = await self._library.take_in(
                    model, head.model_id, head.display_name, head.allow_overwrite
                )
                if training is not None:
                    await self._trainings.claim_model(training, entry.id)
        finally:
            await to_its_end(staged.unlink, missing_ok=True)
        return await self.message(entry)

    async def ExportModel(
        self, request: pb.ExportModelRequest, context: Context
    ) -> AsyncIterator[pb.ExportModelResponse]:
        entry = await self._registry.find(model_reference(request.name))
        path = entry.path
        if request.version:
            path = await asyncio.to_thread(versions.find, path, request.version)
        # A copy: what is sent stays the same whatever happens to the model meanwhile.
        staged = await asyncio.to_thread(self._trainings.store.staged_path, entry.path.suffix)
        try:
            if request.with_images:
                await self._pack(entry, path, staged)
            else:
                await asyncio.to_thread(shutil.copyfile, path, staged)
            size, sha256 = await asyncio.to_thread(transfer.describe, staged)
            head = pb.ExportModelResponse.Head(
                file_name=f"{entry.id}{entry.path.suffix}", size_bytes=size, sha256=sha256
            )
            yield pb.ExportModelResponse(head=head)
            async for chunk in transfer.chunks(staged):
                yield pb.ExportModelResponse(data=chunk)
        finally:
            await to_its_end(staged.unlink, missing_ok=True)

    async def _pack(self, entry: ModelEntry, path: Path, staged: Path) -> None:
        training = await self._trainings.of_model(entry.id)
        if training is None:
            raise SegmentdError(
                Reason.TRAINING_NOT_FOUND,
                f"the daemon has no images of model '{entry.id}': it was not trained here, or came without "
                "them; export it without images",
                resource=f"models/{entry.id}",
            )
        await self._trainings.pack(training, path, staged)

    async def UpdateModel(self, request: pb.UpdateModelRequest, context: Context) -> pb.Model:
        unknown = sorted(set(request.update_mask.paths) - set(_CHANGES))
        if unknown or not request.update_mask.paths:
            raise bad_field(
                "update_mask", f"{', '.join(unknown) or 'nothing'}: name any of {', '.join(_CHANGES)}"
            )

        def change(card: ModelCard) -> ModelCard:
            for path in request.update_mask.paths:
                card = _CHANGES[path](card, request.model)
            return card

        reference = model_reference(request.model.name, "model.name")
        return await self.message(await self._library.update(reference, change))

    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Context) -> empty_pb2.Empty:
        reference = model_reference(request.name)
        entry = await self._registry.find(reference)
        await self._library.delete(reference, self._used_by(entry), request.force, request.purge)
        return empty_pb2.Empty()

    async def CloneModel(self, request: pb.CloneModelRequest, context: Context) -> pb.Model:
        entry = await self._registry.find(model_reference(request.name))
        copy = await self._library.clone(entry.id, request.display_name, request.model_id)
        training = await self._trainings.of_model(entry.id)
        if training is not None and copy.card is not None:
            await self._trainings.clone(training, copy.id, copy.card.display_name)
        return await self.message(copy)

    async def ListModelVersions(
        self, request: pb.ListModelVersionsRequest, context: Context
    ) -> pb.ListModelVersionsResponse:
        infos = await self._library.list_versions(model_reference(request.parent, "parent"))
        return pb.ListModelVersionsResponse(versions=[_version_message(info) for info in infos])

    async def RollbackModel(self, request: pb.RollbackModelRequest, context: Context) -> pb.Model:
        if request.version < 0:
            raise bad_field("version", f"{request.version} must not be negative")
        entry = await self._library.roll_back(model_reference(request.name), request.version)
        return await self.message(entry)

    async def _training_names(self) -> dict[str, str]:
        return {training.model: training.name for training in await self._trainings.list() if training.model}

    async def model_id(self, reference: str) -> str:
        """The id of the model of that id or display name."""
        return (await self._registry.find(reference)).id

    async def message(self, entry: ModelEntry, trainings: dict[str, str] | None = None) -> pb.Model:
        """A model with everything that is known of it."""
        message = model_message(entry, self._lane.device_of(entry.path))
        names = await self._training_names() if trainings is None else trainings
        message.training = names.get(entry.id, "")
        message.watches.extend(f"watches/{watch}" for watch in self._used_by(entry))
        message.version, message.size_bytes = await asyncio.to_thread(_on_disk, entry.path)
        return message

    def _used_by(self, entry: ModelEntry) -> list[str]:
        """Ids of the watches that name the model, by its id, name or file."""
        names = {entry.id, entry.own_id, str(entry.path)}
        if entry.card is not None:
            names.add(entry.card.display_name)
        return [watch.spec.id for watch in self._watches.list() if watch.spec.model in names]


def _on_disk(path: Path) -> tuple[int, int]:
    """Number of the current version, and size of its file."""
    return versions.current_number(path), path.stat().st_size if path.exists() else 0


def _version_message(info: VersionInfo) -> pb.ModelVersion:
    message = pb.ModelVersion(
        version=info.number,
        current=info.current,
        size_bytes=info.size_bytes,
        create_time=timestamp(info.time),
    )
    if info.card is not None:
        message.digest = info.card.digest
        message.display_name = info.card.display_name
        message.description = info.card.description
        message.border_pixels = info.card.border_px
    return message
