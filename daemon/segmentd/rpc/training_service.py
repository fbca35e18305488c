"""`TrainingService`: images with labels, and the model that is made of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from google.protobuf import empty_pb2

from segmentd.compute.features import feature_sets
from segmentd.errors import Reason, SegmentdError
from segmentd.models.training import DEVICES
from segmentd.records import Region
from segmentd.rpc import training_messages as messages
from segmentd.rpc.blocks import block_message, split
from segmentd.rpc.convert import model_reference, page_size, page_start
from segmentd.rpc.faults import Context, bad_field
from segmentd.rpc.model_service import ModelService
from segmentd.rpc.training_files import TrainingFiles
from segmentd.threads import end_of
from segmentd.training_jobs import settings_of
from segmentd.training_jobs.project import Training
from segmentd.training_jobs.trainings import Trainings
from segmentd.v1 import model_service_pb2, training_service_pb2_grpc
from segmentd.v1 import training_service_pb2 as pb

MAX_REGIONS = 100


class TrainingService(training_service_pb2_grpc.TrainingServiceServicer):
    """Serves the trainings."""

    def __init__(self, trainings: Trainings, files: TrainingFiles, models: ModelService) -> None:
        self._trainings = trainings
        self._files = files
        self._models = models

    async def ListFeatureSets(
        self, request: pb.ListFeatureSetsRequest, context: Context
    ) -> pb.ListFeatureSetsResponse:
        listed = [
            pb.FeatureSet(
                name=entry.name,
                feature_count=len(entry),
                reach_pixels=entry.reach_px,
                description=entry.description,
            )
            for entry in feature_sets().values()
        ]
        return pb.ListFeatureSetsResponse(feature_sets=listed)

    # ------------------------------------------------------------ trainings

    async def CreateTraining(self, request: pb.CreateTrainingRequest, context: Context) -> pb.Training:
        source = await self._source(request.source) if request.source else None
        made = await self._trainings.create(messages.new_training(request, source), source)
        return self._message(made)

    async def _source(self, name: str) -> Training:
        if not name.startswith("models/"):
            return await self._trainings.get(messages.training_id(name, "source"))
        reference = model_reference(name, "source")
        training = await self._trainings.of_model(await self._models.model_id(reference))
        if training is None:
            raise SegmentdError(
                Reason.TRAINING_NOT_FOUND,
                f"the daemon has no images of model '{reference}'; import the model with its images, or "
                "begin anew",
                resource=name,
            )
        return training

    async def GetTraining(self, request: pb.GetTrainingRequest, context: Context) -> pb.Training:
        return self._message(await self._trainings.get(messages.training_id(request.name)))

    async def ListTrainings(
        self, request: pb.ListTrainingsRequest, context: Context
    ) -> pb.ListTrainingsResponse:
        found = await self._trainings.list()
        start, size = page_start(request.page_token), page_size(request.page_size)
        return pb.ListTrainingsResponse(
            trainings=[self._message(training) for training in found[start : start + size]],
            next_page_token=str(start + size) if start + size < len(found) else "",
        )

    async def UpdateTraining(self, request: pb.UpdateTrainingRequest, context: Context) -> pb.Training:
        paths = list(request.update_mask.paths)
        unknown = sorted(set(paths) - set(messages.CHANGES))
        if unknown or not paths:
            text = f"{', '.join(unknown) or 'nothing'}: name any of {', '.join(messages.CHANGES)}"
            raise bad_field("update_mask", text)

        def change(training: Training) -> Training:
            before = training
            for path in paths:
                training = messages.CHANGES[path][0](training, request.training)
            newer = training != before and any(messages.CHANGES[path][1] for path in paths)
            return replace(training, revision=training.revision + 1) if newer else training

        identity = messages.training_id(request.training.name, "training.name")
        return self._message(await self._trainings.update(identity, change))

    async def DeleteTraining(self, request: pb.DeleteTrainingRequest, context: Context) -> empty_pb2.Empty:
        await self._trainings.delete(messages.training_id(request.name))
        return empty_pb2.Empty()

    # ------------------------------------------------------------ classes

    async def AddTrainingClass(self, request: pb.AddTrainingClassRequest, context: Context) -> pb.Training:
        def change(training: Training) -> Training:
            return settings_of.with_class(training, request.display_name, request.color)

        return self._message(await self._trainings.update(messages.training_id(request.name), change))

    async def UpdateTrainingClass(
        self, request: pb.UpdateTrainingClassRequest, context: Context
    ) -> pb.Training:
        def change(training: Training) -> Training:
            return settings_of.with_changed_class(
                training, request.value, request.display_name, request.color
            )

        return self._message(await self._trainings.update(messages.training_id(request.name), change))

    async def DeleteTrainingClass(
        self, request: pb.DeleteTrainingClassRequest, context: Context
    ) -> pb.Training:
        identity = messages.training_id(request.name)
        return self._message(await self._trainings.delete_class(identity, request.value))

    # ------------------------------------------------------------ images and labels

    async def AddTrainingImage(
        self, requests: AsyncIterator[pb.AddTrainingImageRequest], context: Context
    ) -> pb.TrainingImage:
        return await self._files.add_image(requests)

    async def ImportTrainingLabels(
        self, requests: AsyncIterator[pb.ImportTrainingLabelsRequest], context: Context
    ) -> pb.TrainingImage:
        return await self._files.import_labels(requests)

    async def DeleteTrainingImage(
        self, request: pb.DeleteTrainingImageRequest, context: Context
    ) -> empty_pb2.Empty:
        await self._trainings.delete_image(*messages.image_ids(request.name))
        return empty_pb2.Empty()

    async def ReadTrainingLabels(
        self, request: pb.ReadTrainingLabelsRequest, context: Context
    ) -> AsyncIterator[pb.ReadTrainingLabelsResponse]:
        labels = await self._trainings.labels(*messages.image_ids(request.name))
        for part in split(Region(0, 0, *labels.shape)):
            yield pb.ReadTrainingLabelsResponse(
                block=block_message(part, labels[part.window], None, request.encoding)
            )

    async def ConvertSegmentationToLabels(
        self, request: pb.ConvertSegmentationToLabelsRequest, context: Context
    ) -> pb.TrainingImage:
        identity, image_id = messages.image_ids(request.name)
        if not 0 <= request.min_confidence <= 100:
            raise bad_field("min_confidence", f"{request.min_confidence} must be 0 to 100")
        training = await self._trainings.get(identity)
        image = training.image(image_id)
        region = messages.region_record(request.region, image) if request.HasField("region") else None
        converted = await self._trainings.convert(
            identity, image_id, request.value, request.min_confidence, region
        )
        return messages.image_message(training, converted)

    # ------------------------------------------------------------ the model in work

    async def RunTraining(
        self, request: pb.RunTrainingRequest, context: Context
    ) -> AsyncIterator[pb.RunTrainingResponse]:
        if request.device and request.device not in DEVICES:
            raise bad_field("device", f"'{request.device}' must be one of {', '.join(DEVICES)}, or empty")
        loop = asyncio.get_running_loop()
        steps: asyncio.Queue[pb.RunTrainingResponse.Progress | None] = asyncio.Queue()

        def report(what: str, done: int, total: int) -> None:
            progress = pb.RunTrainingResponse.Progress(what=what, done=done, total=total)
            loop.call_soon_threadsafe(steps.put_nowait, progress)

        running = self._trainings.run(messages.training_id(request.name), report, request.device)
        work = asyncio.create_task(running)
        work.add_done_callback(lambda _: steps.put_nowait(None))
        try:
            while (step := await steps.get()) is not None:
                yield pb.RunTrainingResponse(progress=step)
            yield pb.RunTrainingResponse(training=self._message(await work))
        finally:
            work.cancel()
            await end_of(work)

    async def CancelTraining(self, request: pb.CancelTrainingRequest, context: Context) -> pb.Training:
        training = await self._trainings.get(messages.training_id(request.name))
        await self._trainings.runner.cancel(training.id)
        return self._message(training)

    async def SegmentTrainingImage(
        self, request: pb.SegmentTrainingImageRequest, context: Context
    ) -> AsyncIterator[pb.SegmentTrainingImageResponse]:
        identity, image_id = messages.image_ids(request.name)
        seen = await self._trainings.look(identity, image_id)
        for part in split(Region(0, 0, *seen.labels.shape)):
            pixels = seen.labels[part.window], seen.confidence[part.window]
            yield pb.SegmentTrainingImageResponse(block=block_message(part, *pixels, request.encoding))
        regions = await asyncio.to_thread(seen.uncertain)
        yield pb.SegmentTrainingImageResponse(
            summary=pb.SegmentTrainingImageResponse.Summary(
                label_pixel_counts=seen.counts,
                mean_confidence=float(seen.confidence.mean()),
                uncertain_regions=[
                    messages.uncertain_message(identity, seen.image, *region) for region in regions
                ],
                digest=seen.card.digest,
            )
        )

    async def SuggestTrainingRegions(
        self, request: pb.SuggestTrainingRegionsRequest, context: Context
    ) -> pb.SuggestTrainingRegionsResponse:
        identity = messages.training_id(request.name)
        count, box_px = request.region_count or 5, request.region_pixels or 64
        for field, value, low, high in (
            ("region_count", count, 1, MAX_REGIONS),
            ("region_pixels", box_px, 8, 1024),
        ):
            if not low <= value <= high:
                raise bad_field(field, f"{value} must be {low} to {high}")
        found = await self._trainings.suggest(identity, count, box_px)
        regions = [messages.uncertain_message(identity, *each) for each in found]
        return pb.SuggestTrainingRegionsResponse(regions=regions)

    async def SaveTrainingModel(
        self, request: pb.SaveTrainingModelRequest, context: Context
    ) -> model_service_pb2.Model:
        entry = await self._trainings.save_model(
            messages.training_id(request.name), request.model_id, request.allow_overwrite
        )
        return await self._models.message(entry)

    def _message(self, training: Training) -> pb.Training:
        return messages.training_message(training, self._trainings.runner)
