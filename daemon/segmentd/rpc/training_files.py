"""Images and labels for trainings, sent in a stream or named by their path on this host."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from segmentd.errors import Reason, SegmentdError
from segmentd.rpc import training_messages as messages
from segmentd.rpc import transfer
from segmentd.rpc.convert import printable
from segmentd.rpc.faults import bad_field
from segmentd.threads import to_its_end
from segmentd.training_jobs import taking_in
from segmentd.training_jobs.from_files import image_suffix
from segmentd.training_jobs.trainings import Trainings
from segmentd.v1 import training_service_pb2 as pb

_Request = pb.AddTrainingImageRequest | pb.ImportTrainingLabelsRequest
_Head = pb.AddTrainingImageRequest.Head | pb.ImportTrainingLabelsRequest.Head


class TrainingFiles:
    """Takes files for trainings; those named by path must lie in `roots`, if there are any."""

    def __init__(self, trainings: Trainings, roots: Sequence[Path]) -> None:
        self._trainings = trainings
        self._roots = roots

    async def add_image(self, requests: AsyncIterator[pb.AddTrainingImageRequest]) -> pb.TrainingImage:
        """Answer `AddTrainingImage`."""
        first = await anext(aiter(requests), None)
        head = _head(first)
        assert isinstance(head, pb.AddTrainingImageRequest.Head)
        identity = messages.training_id(head.parent, "head.parent")
        plane = messages.plane_record(head.plane)
        self._trainings.runner.require_idle(identity)
        await self._trainings.get(identity)
        async with self._staged(requests, head) as (staged, name):
            added = await self._trainings.add_image(identity, staged, name, plane)
        return messages.image_message(await self._trainings.get(identity), added)

    async def import_labels(
        self, requests: AsyncIterator[pb.ImportTrainingLabelsRequest]
    ) -> pb.TrainingImage:
        """Answer `ImportTrainingLabels`."""
        first = await anext(aiter(requests), None)
        head = _head(first)
        assert isinstance(head, pb.ImportTrainingLabelsRequest.Head)
        identity, image_id = messages.image_ids(head.name)
        if head.mask_class < 0 or head.mask_pixel_count < 0:
            raise bad_field("head.mask_class", "class and number of pixels must not be negative")
        training = await self._trainings.get(identity)
        training.image(image_id)
        async with self._staged(requests, head) as (staged, name):
            if head.mask_class:
                labelled = await self._trainings.draw_mask(
                    identity, image_id, staged, name, head.mask_class, head.mask_pixel_count
                )
            else:
                merge = head.mode == pb.ImportTrainingLabelsRequest.MODE_MERGE
                labelled = await self._trainings.draw(identity, image_id, staged, name, merge)
        return messages.image_message(training, labelled)

    @asynccontextmanager
    async def _staged(
        self, requests: AsyncIterator[_Request], head: _Head
    ) -> AsyncIterator[tuple[Path, str]]:
        """The file on disk, and its name."""
        name = head.file_name or os.path.basename(printable(head.path)) or "image.tif"  # noqa: PTH119
        name = name.replace("\\", "/").rpartition("/")[2][-200:]
        staged = await asyncio.to_thread(self._trainings.store.staged_path, image_suffix(name))
        try:
            if head.path:
                await asyncio.to_thread(taking_in.copy_named, head.path, self._roots, staged)
            else:
                limit = taking_in.MAX_FILE_BYTES
                size, _ = await transfer.receive_file(
                    requests, staged, limit, lambda size: _too_large(size, name)
                )
                if size == 0:
                    raise bad_field("data", "no bytes came and no path was given")
            yield staged, name
        finally:
            await to_its_end(staged.unlink, missing_ok=True)


def _head(first: _Request | None) -> _Head:
    if first is None or first.WhichOneof("part") != "head":
        raise bad_field("head", "the first message must hold the head of the file")
    return first.head


def _too_large(size: int, name: str) -> SegmentdError:
    return SegmentdError(
        Reason.IMAGE_TOO_LARGE,
        f"{name}: {size:,} bytes or more, at most {taking_in.MAX_FILE_BYTES >> 30} GiB are taken; train on "
        "a crop",
        file=name,
    )
