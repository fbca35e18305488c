"""What the model in work of a training makes of its images, and where it is least sure."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segmentd.compute.uncertainty import least_certain
from segmentd.engine.lanes import Lane, whole_plane
from segmentd.engine.scene_bands import filled_up
from segmentd.engine.scheduler import Scheduler
from segmentd.engine.source import ArraySource
from segmentd.errors import Reason, SegmentdError
from segmentd.ingest.readers import open_image
from segmentd.models.fit import used_channels
from segmentd.records import ModelCard, Region, SegmentOptions
from segmentd.training_jobs.labels import Labels
from segmentd.training_jobs.project import ImageRecord, Training
from segmentd.training_jobs.store import TrainingStore
from segmentd.workers import WorkerPool

DEFAULT_BOX_PX = 64
DEFAULT_REGIONS = 5
SOURCE = "trainings"


@dataclass(frozen=True)
class Look:
    """An image as the model in work sees it: uint8 (Y, X) each, `drawn` are the labels of the user.

    `scene` is the height and width of what is image; beyond it, to the right and below, all is 0.
    """

    image: ImageRecord
    card: ModelCard
    labels: Labels
    confidence: npt.NDArray[np.uint8]
    drawn: Labels
    scene: tuple[int, int]

    def uncertain(
        self, count: int = DEFAULT_REGIONS, box_px: int = DEFAULT_BOX_PX
    ) -> list[tuple[Region, float]]:
        """Where the model is least sure, with the mean confidence there."""
        confidence, drawn = self._in_scene(self.confidence), self._in_scene(self.drawn)
        return least_certain(confidence, drawn > 0, box_px, count)

    @property
    def counts(self) -> list[int]:
        """Pixels with label 0, 1, ... K."""
        found = np.bincount(self._in_scene(self.labels).ravel(), minlength=len(self.card.classes) + 1)
        return [int(count) for count in found]

    def _in_scene(self, values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return values[: self.scene[0], : self.scene[1]]


class Looker:
    """Segments images of trainings on the lane that watches use, in turn with them."""

    def __init__(self, store: TrainingStore, pool: WorkerPool, lane: Lane, scheduler: Scheduler) -> None:
        self._store = store
        self._pool = pool
        self._lane = lane
        self._scheduler = scheduler

    async def look(self, training: Training, image: ImageRecord) -> Look:
        """Segment one image.

        Raises
        ------
        SegmentdError
            NOT_TRAINED, or what reading the image raises.
        """
        if training.result is None:
            raise SegmentdError(
                Reason.NOT_TRAINED,
                f"training '{training.id}' has no model yet; run it first",
                resource=training.name,
            )
        async with self._scheduler.slot(SOURCE):
            return await asyncio.to_thread(self._look, training, image)

    def _look(self, training: Training, image: ImageRecord) -> Look:
        path = self._store.model_path(training)
        with open_image(self._pool, self._store.image_path(training, image)) as file:
            plane = file.read_plane(image.plane)
            scene = file.info.scene_size(image.plane.scene)
        card = self._lane.load(path)
        try:
            channels = used_channels(card, image.pixel_type, image.channels, image.name)
            pixels = np.ascontiguousarray(plane.pixels[channels, : scene[0], : scene[1]])
            done = whole_plane(pixels, self._lane.segment(path, ArraySource(pixels), SegmentOptions()))
        finally:
            self._lane.unload(path)
        frame = plane.frame.height, plane.frame.width
        parts = list(filled_up(done, scene, frame))
        labels = np.concatenate([part.labels for part in parts])
        confidence = np.concatenate([part.confidence for part in parts])
        drawn = self._store.read_labels(training, image)
        return Look(image, card, labels, confidence, drawn, scene)
