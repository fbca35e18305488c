"""The trainings of a daemon: made, labelled, run, looked at, saved as models. Belongs to one event loop."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle, versions
from segmentd.models.library import Library
from segmentd.models.registry import ModelEntry
from segmentd.records import PlaneIndex, Region
from segmentd.threads import to_its_end
from segmentd.training_jobs import labels as label_ops
from segmentd.training_jobs import packing, settings_of, taking_in
from segmentd.training_jobs.looking import Look, Looker
from segmentd.training_jobs.project import ImageRecord, Training, require_label_room
from segmentd.training_jobs.running import Runner
from segmentd.training_jobs.store import TrainingStore
from segmentd.workers import WorkerPool


class Trainings:
    """Everything that is done with trainings.

    Calls that change a training wait for one another, and are refused while it is being trained.

    Parameters
    ----------
    store, pool, looker, runner, library
        Where they are kept, what decodes, segments and trains, and where models go.
    """

    def __init__(
        self, store: TrainingStore, pool: WorkerPool, looker: Looker, runner: Runner, library: Library
    ) -> None:
        self.store = store
        self.runner = runner
        self._pool = pool
        self._looker = looker
        self.library = library
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def remove_leftovers(self) -> None:
        """Remove what a killed process left half written, of trainings and of models."""
        await asyncio.to_thread(self.store.remove_leftovers)
        await asyncio.to_thread(versions.remove_staged, self.library.registry.folder)

    async def close(self) -> None:
        """End the trainings that run."""
        await self.runner.close()

    # ------------------------------------------------------------ the training

    async def list(self) -> Sequence[Training]:
        """All trainings, by id."""
        return await asyncio.to_thread(self.store.list)

    async def get(self, training_id: str) -> Training:
        """A training by its id; TRAINING_NOT_FOUND."""
        return await asyncio.to_thread(self.store.get, training_id)

    async def of_model(self, model_id: str) -> Training | None:
        """The training that a model was saved from, if the daemon has it."""
        return next((training for training in await self.list() if training.model == model_id), None)

    async def create(self, training: Training, source: Training | None = None) -> Training:
        """Make a training, with a copy of the images and labels of `source` if that is given."""
        training = replace(training, created=time.time())
        settings_of.check(training)
        async with self._locks[training.id]:
            if source is None:
                return await asyncio.to_thread(self.store.create, training)
            async with self._locks[source.id]:
                return await asyncio.to_thread(self.store.copy, source, training)

    async def update(self, training_id: str, change: Callable[[Training], Training]) -> Training:
        """Change settings or classes' names and colours; a change of what is trained makes a new revision."""
        async with self._changing(training_id) as training:
            changed = change(training)
            settings_of.check(changed)
            if changed == training:
                return training
            return await asyncio.to_thread(self.store.save, changed)

    async def delete(self, training_id: str) -> None:
        """Delete a training with its images and labels."""
        async with self._changing(training_id):
            await asyncio.to_thread(self.store.delete, training_id)

    async def delete_class(self, training_id: str, value: int) -> Training:
        """Delete a class and its labels; higher labels move down by one in all images."""
        async with self._changing(training_id) as training:
            return await asyncio.to_thread(self._delete_class, training, value)

    def _delete_class(self, training: Training, value: int) -> Training:
        changed = settings_of.without_class(training, value)
        images = []
        for image in training.images:
            if image.labels:
                labels = label_ops.without_class(self.store.read_labels(training, image), value)
                images.append(self.store.write_labels(changed, image, labels))
            else:
                images.append(replace(image, label_pixel_counts=(0,) * len(changed.classes)))
        return self.store.save(replace(changed, images=tuple(images)))

    # ------------------------------------------------------------ images and labels

    async def add_image(self, training_id: str, staged: Path, name: str, plane: PlaneIndex) -> ImageRecord:
        """Make a staged file an image of a training."""
        async with self._changing(training_id) as training:
            new = await asyncio.to_thread(taking_in.look_at_image, self._pool, staged, name, plane, training)
            changed = await asyncio.to_thread(self.store.add_image, training, staged, new)
        return changed.images[-1]

    async def delete_image(self, training_id: str, image_id: str) -> None:
        """Delete an image and its labels."""
        async with self._changing(training_id) as training:
            await asyncio.to_thread(self.store.delete_image, training, training.image(image_id))

    async def draw(
        self, training_id: str, image_id: str, staged: Path, name: str, merge: bool
    ) -> ImageRecord:
        """Set the labels of an image from a staged label image, or draw them over those that are there."""
        async with self._changing(training_id) as training:
            image = training.image(image_id)
            drawn = await asyncio.to_thread(taking_in.read_label_image, self._pool, staged, name, image)
            taking_in.check_values(drawn, training, name)
            if merge:
                drawn = label_ops.merged(await self._labels(training, image), drawn)
            return await self._relabel(training, image, drawn)

    async def draw_mask(
        self, training_id: str, image_id: str, staged: Path, name: str, value: int, pixel_count: int
    ) -> ImageRecord:
        """Replace the labels of one class by a staged binary mask, or by some of its pixels."""
        async with self._changing(training_id) as training:
            image = training.image(image_id)
            training.class_of(value)
            mask = await asyncio.to_thread(taking_in.read_label_image, self._pool, staged, name, image)
            labels = label_ops.with_mask(await self._labels(training, image), value, mask > 0, pixel_count)
            return await self._relabel(training, image, labels)

    async def labels(self, training_id: str, image_id: str) -> label_ops.Labels:
        """The labels of an image, uint8 (Y, X)."""
        training = await self.get(training_id)
        return await self._labels(training, training.image(image_id))

    async def convert(
        self, training_id: str, image_id: str, value: int, min_confidence: int, region: Region | None
    ) -> ImageRecord:
        """Turn what the model in work makes of an image into labels where there are none yet."""
        async with self._changing(training_id) as training:
            if value:
                training.class_of(value)
            seen = await self._looker.look(training, training.image(image_id))
            chosen = seen.confidence >= min_confidence
            if region is not None:
                inside = np.zeros(chosen.shape, np.bool_)
                inside[region.y : region.y + region.height, region.x : region.x + region.width] = True
                chosen &= inside
            labels = label_ops.with_segmentation(seen.drawn, seen.labels, chosen, value)
            return await self._relabel(training, seen.image, labels)

    async def _labels(self, training: Training, image: ImageRecord) -> label_ops.Labels:
        return await asyncio.to_thread(self.store.read_labels, training, image)

    async def _relabel(self, training: Training, image: ImageRecord, labels: label_ops.Labels) -> ImageRecord:
        counted = replace(image, label_pixel_counts=label_ops.counts(labels, len(training.classes)))
        require_label_room(training.with_image(counted))
        changed = await asyncio.to_thread(self.store.write_labels, training, image, labels)
        await asyncio.to_thread(self.store.save, training.with_image(changed))
        return changed

    # ------------------------------------------------------------ the model

    async def run(
        self, training_id: str, report: Callable[[str, int, int], None], device: str = ""
    ) -> Training:
        """Train; see `Runner.run`."""
        async with self._locks[training_id]:
            training = await self.get(training_id)
            start = self.runner.claim(training)
        return await self.runner.run(training, start, report, device)

    async def look(self, training_id: str, image_id: str) -> Look:
        """Segment an image with the model in work."""
        async with self._locks[training_id]:
            training = await self.get(training_id)
            return await self._looker.look(training, training.image(image_id))

    async def suggest(
        self, training_id: str, count: int, box_px: int
    ) -> Sequence[tuple[ImageRecord, Region, float]]:
        """Where to label next, over all images: the least certain regions with few labels."""
        training = await self.get(training_id)
        found = []
        for image in training.images:
            seen = await self.look(training_id, image.id)
            found += [(image, region, mean) for region, mean in seen.uncertain(count, box_px)]
        return sorted(found, key=lambda each: each[2])[:count]

    async def save_model(self, training_id: str, model_id: str, overwrite: bool) -> ModelEntry:
        """Put the model in work into the models folder; see `Library.take_in`."""
        async with self._changing(training_id) as training:
            if training.result is None:
                raise SegmentdError(
                    Reason.NOT_TRAINED,
                    f"training '{training.id}' has no model yet; run it first",
                    resource=training.name,
                )
            model = await asyncio.to_thread(bundle.load, self.store.model_path(training))
            identity = model_id or training.model or bundle.slug(training.display_name)
            again = overwrite or identity == training.model
            entry = await self.library.take_in(model, identity, training.display_name, again)
            await self.claim_model(training, entry.id)
        return entry

    async def clone(self, source: Training, model_id: str, display_name: str) -> Training:
        """A copy of a training for the copy of its model."""
        target = replace(source, id=await self._free_id(model_id), display_name=display_name)
        training = await self.create(target, source)
        await self.claim_model(training, model_id)
        return training

    async def pack(self, training: Training, model: Path, out: Path) -> None:
        """Write a model file with the images and labels of a training."""
        async with self._locks[training.id]:
            await asyncio.to_thread(packing.pack, self.store, training, model, out)

    @asynccontextmanager
    async def unpacked(self, path: Path, source: str) -> AsyncIterator[Training | None]:
        """Make a training of what a model file brings, None if nothing; it goes again if the block fails."""
        if not await asyncio.to_thread(packing.has_training, path):
            yield None
            return
        training = await asyncio.to_thread(packing.unpack, self.store, self._pool, path, source)
        try:
            yield training
        except BaseException:
            await to_its_end(self.store.delete, training.id)
            raise

    async def _free_id(self, wanted: str) -> str:
        return await asyncio.to_thread(packing.free_id, self.store, wanted)

    async def claim_model(self, training: Training, model_id: str) -> None:
        """A model has one training: the last that it was saved from."""
        for other in await self.list():
            if other.model == model_id and other.id != training.id:
                await asyncio.to_thread(self.store.save, replace(other, model=""))
        await asyncio.to_thread(self.store.save, replace(training, model=model_id))

    @asynccontextmanager
    async def _changing(self, training_id: str) -> AsyncIterator[Training]:
        async with self._locks[training_id]:
            self.runner.require_idle(training_id)
            yield await self.get(training_id)
