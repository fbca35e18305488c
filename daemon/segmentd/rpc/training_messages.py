"""Trainings as messages, and requests as records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from segmentd.models.bundle import slug
from segmentd.records import PlaneIndex, Region
from segmentd.rpc.convert import (
    classes_message,
    classes_record,
    duration,
    pixel_type_message,
    plane_message,
    region_message,
    resource_id,
    scores_message,
    timestamp,
)
from segmentd.rpc.faults import bad_field
from segmentd.rpc.host_paths import without_folders
from segmentd.training_jobs.project import ImageRecord, Training
from segmentd.training_jobs.running import Runner
from segmentd.training_jobs.settings_of import DEFAULT_CLASSES
from segmentd.v1 import pixels_pb2
from segmentd.v1 import training_service_pb2 as pb

# What UpdateTraining may change; the last of each: whether that changes what is trained.
CHANGES: dict[str, tuple[Callable[[Training, pb.Training], Training], bool]] = {
    "display_name": (lambda training, new: replace(training, display_name=new.display_name), False),
    "description": (lambda training, new: replace(training, description=new.description), False),
    "feature_set": (lambda training, new: replace(training, feature_set=new.feature_set), True),
    "normalization": (
        lambda training, new: replace(training, normalization=new.normalization or "none"),
        True,
    ),
    "channel": (lambda training, new: replace(training, channel=new.channel or None), True),
    "seed": (lambda training, new: replace(training, seed=new.seed), True),
    "postprocessing": (
        lambda training, new: replace(training, postprocessing=new.postprocessing or "none"),
        True,
    ),
}


def training_id(name: str, field: str = "name") -> str:
    """The id in `trainings/{training}`."""
    found = resource_id(name, "trainings", field)
    if "/" in found:
        raise bad_field(field, f"'{name}' must have the form trainings/ID")
    return found


def image_ids(name: str) -> tuple[str, str]:
    """The ids in `trainings/{training}/images/{image}`."""
    parts = name.split("/")
    if len(parts) != 4 or (parts[0], parts[2]) != ("trainings", "images") or not parts[1] or not parts[3]:
        raise bad_field("name", f"'{name}' must have the form trainings/TRAINING/images/IMAGE")
    return parts[1], parts[3]


def training_message(training: Training, runner: Runner) -> pb.Training:
    """A training with its state."""
    result = training.result
    message = pb.Training(
        name=training.name,
        display_name=training.display_name,
        description=training.description,
        classes=classes_message(training.classes),
        feature_set=training.feature_set,
        normalization=training.normalization,
        channel=training.channel or "",
        seed=training.seed,
        postprocessing=training.postprocessing,
        state=_state(training, runner),
        state_reason=without_folders(runner.faults.get(training.id, "")),
        images=[image_message(training, image) for image in training.images],
        model=f"models/{training.model}" if training.model else "",
        create_time=timestamp(training.created),
    )
    if result is not None:
        message.scores.CopyFrom(scores_message(result.scores))
        message.digest = result.digest
        message.device, message.device_reason = result.device, result.device_reason
        message.training_duration.CopyFrom(duration(result.seconds))
    return message


def _state(training: Training, runner: Runner) -> pb.Training.State:
    if runner.is_running(training.id):
        return pb.Training.STATE_RUNNING
    if training.result is None:
        return pb.Training.STATE_UNTRAINED
    same = training.result.revision == training.revision
    return pb.Training.STATE_TRAINED if same else pb.Training.STATE_OUTDATED


def image_message(training: Training, image: ImageRecord) -> pb.TrainingImage:
    """An image of a training."""
    return pb.TrainingImage(
        name=image_name(training.id, image),
        display_name=image.name,
        plane=plane_message(image.plane),
        height=image.height,
        width=image.width,
        pixel_type=pixel_type_message(image.pixel_type),
        channels=image.channels,
        label_pixel_counts=image.label_pixel_counts,
        size_bytes=image.size_bytes,
    )


def image_name(training: str, image: ImageRecord) -> str:
    """Resource name of an image."""
    return f"trainings/{training}/images/{image.id}"


def uncertain_message(training: str, image: ImageRecord, region: Region, mean: float) -> pb.UncertainRegion:
    """A region that the model is not sure of."""
    return pb.UncertainRegion(
        image=image_name(training, image), region=region_message(region), mean_confidence=mean
    )


def plane_record(plane: pixels_pb2.PlaneIndex) -> PlaneIndex:
    """Which plane."""
    if min(plane.scene, plane.time, plane.z) < 0:
        raise bad_field("head.plane", "must not be negative")
    return PlaneIndex(plane.scene, plane.time, plane.z)


def region_record(region: pixels_pb2.Region, image: ImageRecord) -> Region:
    """A rectangle inside an image; BAD_FIELD where it is not."""
    record = Region(region.y, region.x, region.height, region.width)
    inside = record.y >= 0 and record.x >= 0 and min(record.height, record.width) >= 1
    if not inside or record.y + record.height > image.height or record.x + record.width > image.width:
        raise bad_field("region", f"must lie inside the {image.height} x {image.width} pixels of the image")
    return record


def new_training(request: pb.CreateTrainingRequest, source: Training | None) -> Training:
    """The training that a request asks for: what it leaves empty is the source's, or the default."""
    asked = request.training
    name = asked.display_name or (f"{source.display_name} copy" if source else "")
    if not name:
        raise bad_field("training.display_name", "a training needs a name, which becomes that of its model")
    identity = request.training_id or slug(name)
    base = source or Training(identity, name, classes=DEFAULT_CLASSES)
    if asked.classes and source is not None and len(asked.classes) != len(source.classes):
        raise bad_field(
            "training.classes", f"must be the {len(source.classes)} classes of the source, or left out"
        )
    return replace(
        base,
        id=identity,
        display_name=name,
        description=asked.description or base.description,
        classes=classes_record(asked.classes) or base.classes,
        feature_set=asked.feature_set or base.feature_set,
        normalization=asked.normalization or base.normalization,
        channel=asked.channel or base.channel,
        seed=asked.seed or base.seed,
        postprocessing=asked.postprocessing or base.postprocessing,
        model="",
    )
