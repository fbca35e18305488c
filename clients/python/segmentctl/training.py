"""Trainings: images with labels, and the model that is made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from segmentctl.assemble import PlaneAssembler, UInt8Array
from segmentctl.errors import StreamError, translated
from segmentctl.names import within
from segmentctl.training_images import CHANGE_SECONDS, TrainingImagesClient
from segmentd.v1 import model_service_pb2
from segmentd.v1 import training_service_pb2 as messages

OnStep = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingLook:
    """What the model in work makes of a training image.

    Attributes
    ----------
    labels, confidence : ndarray of uint8 (Y, X)
        Labels 1 to K, and percent.
    summary : segmentd.v1.training_service_pb2.SegmentTrainingImageResponse.Summary
        Counts, mean confidence, and the regions that the model is least sure of.
    """

    labels: UInt8Array
    confidence: UInt8Array
    summary: messages.SegmentTrainingImageResponse.Summary


class TrainingClient(TrainingImagesClient):
    """The part of `Client` that trains models."""

    # ---------------------------------------------------------------- trainings

    def feature_sets(self) -> list[messages.FeatureSet]:
        """List the feature sets that a training can choose from."""
        request = messages.ListFeatureSetsRequest()
        return list(self._calls.ask(self._trainings.ListFeatureSets, request).feature_sets)

    def trainings(self) -> Iterator[messages.Training]:
        """Iterate over all trainings, by id."""
        for page in self._calls.pages(self._trainings.ListTrainings, messages.ListTrainingsRequest()):
            yield from page.trainings

    def training(self, training: str) -> messages.Training:
        """Get a training by id or resource name."""
        request = messages.GetTrainingRequest(name=within("trainings", training))
        return self._training(self._trainings.GetTraining, request)

    def create_training(
        self,
        display_name: str = "",
        classes: Sequence[str | tuple[str, str]] = (),
        *,
        training_id: str = "",
        source: str = "",
        **settings: Any,
    ) -> messages.Training:
        """Make a training.

        Parameters
        ----------
        display_name : str
            Its name, and that of its model.
        classes : sequence of names, or of (name, colour)
            In the order of the labels 1, 2, ...; by default two, called class 1 and class 2.
        training_id : str
            Its id; by default made from the name.
        source : str
            `trainings/ID` or `models/ID`: copy images, labels and settings from there.
        **settings
            Other fields of `Training`: description, feature_set, normalization, channel, seed,
            postprocessing.
        """
        pairs = [(entry, "") if isinstance(entry, str) else entry for entry in classes]
        made = messages.Training(display_name=display_name, **settings)
        for value, (name, color) in enumerate(pairs, 1):
            made.classes.add(value=value, display_name=name, color=color)
        request = messages.CreateTrainingRequest(training_id=training_id, training=made, source=source)
        return self._training(self._trainings.CreateTraining, request)

    def update_training(self, training: str, **settings: Any) -> messages.Training:
        """Change display_name, description, feature_set, normalization, channel, seed or postprocessing."""
        request = messages.UpdateTrainingRequest(
            training=messages.Training(name=within("trainings", training), **settings),
            update_mask=FieldMask(paths=list(settings)),
        )
        return self._training(self._trainings.UpdateTraining, request)

    def delete_training(self, training: str) -> None:
        """Delete a training with its images and labels; a model that was saved stays."""
        request = messages.DeleteTrainingRequest(name=within("trainings", training))
        self._calls.ask(self._trainings.DeleteTraining, request)

    def add_training_class(self, training: str, name: str, color: str = "") -> messages.Training:
        """Add a class; its label is the next one."""
        request = messages.AddTrainingClassRequest(
            name=within("trainings", training), display_name=name, color=color
        )
        return self._training(self._trainings.AddTrainingClass, request)

    def update_training_class(
        self, training: str, value: int, name: str = "", color: str = ""
    ) -> messages.Training:
        """Rename or recolour the class with label `value`."""
        request = messages.UpdateTrainingClassRequest(
            name=within("trainings", training), value=value, display_name=name, color=color
        )
        return self._training(self._trainings.UpdateTrainingClass, request)

    def delete_training_class(self, training: str, value: int) -> messages.Training:
        """Delete a class and its labels; higher labels move down by one."""
        request = messages.DeleteTrainingClassRequest(name=within("trainings", training), value=value)
        return self._training(self._trainings.DeleteTrainingClass, request)

    # ---------------------------------------------------------------- the model in work

    def run_training(
        self, training: str, on_step: OnStep | None = None, *, device: str = ""
    ) -> messages.Training:
        """Train, and return the training with its scores.

        Parameters
        ----------
        training : str
            Id or resource name.
        on_step : callable
            Called with what is being done, steps done and steps in all. What it raises ends the
            training.
        device : str
            What trains the forest: cpu, cuda or auto; empty for what the daemon's configuration says.
        """
        request = messages.RunTrainingRequest(name=within("trainings", training), device=device)
        with translated(self.address):
            call = self._trainings.RunTraining(request)
            try:
                for answer in call:
                    if answer.WhichOneof("part") == "training":
                        done: messages.Training = answer.training
                        return done
                    if on_step is not None:
                        on_step(answer.progress.what, answer.progress.done, answer.progress.total)
            finally:
                call.cancel()
        raise StreamError("the daemon ended the training without a result")

    def cancel_training(self, training: str) -> None:
        """End a training that runs."""
        request = messages.CancelTrainingRequest(name=within("trainings", training))
        self._calls.ask(self._trainings.CancelTraining, request)

    def segment_training_image(self, image: messages.TrainingImage) -> TrainingLook:
        """See what the model in work makes of an image."""
        assembler = PlaneAssembler(image.height, image.width)
        with translated(self.address):
            for answer in self._trainings.SegmentTrainingImage(
                messages.SegmentTrainingImageRequest(name=image.name)
            ):
                if answer.WhichOneof("part") == "block":
                    assembler.add(answer.block)
                    continue
                labels, confidence = assembler.finish()
                if confidence is not None:
                    return TrainingLook(labels, confidence, answer.summary)
        raise StreamError("the answer ended without a summary")

    def suggest_training_regions(
        self, training: str, count: int = 5, *, region_pixels: int = 64
    ) -> list[messages.UncertainRegion]:
        """Say where to label next: the regions that the model in work is least sure of."""
        request = messages.SuggestTrainingRegionsRequest(
            name=within("trainings", training), region_count=count, region_pixels=region_pixels
        )
        answer = self._calls.ask(self._trainings.SuggestTrainingRegions, request, CHANGE_SECONDS)
        return list(answer.regions)

    def save_training_model(
        self, training: str, *, model_id: str = "", overwrite: bool = False
    ) -> model_service_pb2.Model:
        """Put the model in work into the models folder: a new one, or a new version of its own.

        Parameters
        ----------
        training : str
            Id or resource name.
        model_id : str
            Id of the model; by default that of the last time, else made from the name.
        overwrite : bool
            Make it a new version of a model that it was not saved to before.
        """
        request = messages.SaveTrainingModelRequest(
            name=within("trainings", training), model_id=model_id, allow_overwrite=overwrite
        )
        saved: model_service_pb2.Model = self._calls.ask(
            self._trainings.SaveTrainingModel, request, CHANGE_SECONDS
        )
        return saved

    def _training(self, method: Callable[..., Any], request: Any) -> messages.Training:
        training: messages.Training = self._calls.ask(method, request, CHANGE_SECONDS)
        return training
