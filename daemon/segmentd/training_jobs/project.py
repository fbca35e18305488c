"""The records of a training and their JSON. A training never changes; changing it makes another record."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from segmentd.errors import Reason, SegmentdError
from segmentd.models.bundle import slug
from segmentd.models.packages import bad_field, check_classes
from segmentd.models.training import CPU
from segmentd.records import ClassInfo, PixelType, PlaneIndex

FORMAT = 1
MAX_CLASSES = 255
MAX_IMAGES = 100
MAX_IMAGE_BYTES = 4 << 30
MAX_LABEL_PIXELS = 100_000_000
MAX_LABELLED_PIXELS = 5_000_000
MAX_JSON_BYTES = 4 << 20


@dataclass(frozen=True)
class ImageRecord:
    """An image of a training: its file in the training's folder, the plane that is used, its labels.

    `size_bytes` is that of the file. `labels` is the file with the labels, "" while there are none;
    `label_pixel_counts` are the labelled pixels of class 1, 2, ... K.
    """

    id: str
    name: str
    file: str
    plane: PlaneIndex
    height: int
    width: int
    pixel_type: PixelType
    channels: tuple[str, ...]
    size_bytes: int
    labels: str = ""
    label_pixel_counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Result:
    """The model in work: its digest, the revision of the training that it was made of, how long it took.

    `device` trained it; `device_reason` says why not the one that was wanted.
    """

    digest: str
    revision: int
    seconds: float
    scores: Mapping[str, Any]
    device: str = CPU
    device_reason: str = ""


@dataclass(frozen=True)
class Training:
    """A training: settings, classes, images, and the model in work.

    `revision` grows with every change of what goes into the model. `model` is the id of the model that it was
    saved to, "" before.
    """

    id: str
    display_name: str
    description: str = ""
    classes: tuple[ClassInfo, ...] = ()
    feature_set: str = "basic25"
    normalization: str = "none"
    channel: str | None = None
    seed: int = 0
    postprocessing: str = "none"
    images: tuple[ImageRecord, ...] = ()
    next_image: int = 1
    revision: int = 1
    result: Result | None = None
    model: str = ""
    created: float = 0.0

    @property
    def name(self) -> str:
        """Resource name."""
        return f"trainings/{self.id}"

    def image(self, image_id: str) -> ImageRecord:
        """An image by its id; TRAINING_NOT_FOUND where it has no such image."""
        for record in self.images:
            if record.id == image_id:
                return record
        known = ", ".join(record.id for record in self.images) or "none"
        raise SegmentdError(
            Reason.TRAINING_NOT_FOUND,
            f"training '{self.id}' has no image '{image_id}' (images: {known})",
            resource=f"{self.name}/images/{image_id}",
        )

    def with_image(self, changed: ImageRecord) -> Training:
        """The training with another record of one of its images, and the next revision."""
        images = tuple(changed if record.id == changed.id else record for record in self.images)
        return replace(self, images=images, revision=self.revision + 1)

    def class_of(self, value: int) -> ClassInfo:
        """A class by its label; BAD_FIELD where there is none."""
        if not 1 <= value <= len(self.classes):
            raise bad_field("value", f"{value} is no class of training '{self.id}': 1 to {len(self.classes)}")
        return self.classes[value - 1]


def require_room(training: Training, size_bytes: int) -> None:
    """BAD_TRAINING_DATA where one more image of that size is too much."""
    total = sum(record.size_bytes for record in training.images) + size_bytes
    if len(training.images) >= MAX_IMAGES or total > MAX_IMAGE_BYTES:
        raise SegmentdError(
            Reason.BAD_TRAINING_DATA,
            f"training '{training.id}' has {len(training.images)} images; at most {MAX_IMAGES} images and "
            f"{MAX_IMAGE_BYTES >> 30} GiB of them are taken: train on crops, or delete some",
            field="data",
        )


def require_label_room(training: Training) -> None:
    """BAD_TRAINING_DATA where there are more labelled pixels than can be trained on."""
    total = sum(sum(record.label_pixel_counts) for record in training.images)
    if total > MAX_LABELLED_PIXELS:
        raise SegmentdError(
            Reason.BAD_TRAINING_DATA,
            f"training '{training.id}' would have {total:,} labelled pixels, at most "
            f"{MAX_LABELLED_PIXELS:,} are taken and some thousands of each class are enough: take a number "
            "of the mask's pixels only, or label less",
            field="data",
        )


def to_json(training: Training) -> bytes:
    """A training as JSON."""
    return json.dumps({"format": FORMAT, **asdict(training)}, indent=1, sort_keys=True).encode()


def from_json(data: bytes, source: str) -> Training:
    """A training from JSON, of which nothing is believed.

    Raises
    ------
    SegmentdError
        BAD_TRAINING_DATA, naming `source`.
    """
    try:
        if len(data) > MAX_JSON_BYTES:
            raise ValueError("it is too large")
        fields = json.loads(data)
        if fields.pop("format") != FORMAT:
            raise ValueError("it was made by another version of the daemon")
        fields["classes"] = tuple(ClassInfo(**entry) for entry in fields["classes"])
        fields["images"] = tuple(_image(entry) for entry in fields["images"])
        fields["result"] = Result(**fields["result"]) if fields["result"] else None
        training = Training(**fields)
        _check(training)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SegmentdError(
            Reason.BAD_TRAINING_DATA, f"{source}: cannot be read as a training ({error}); export it again"
        ) from error
    return training


def _image(entry: dict[str, Any]) -> ImageRecord:
    entry["plane"] = PlaneIndex(**entry["plane"])
    entry["pixel_type"] = PixelType(entry["pixel_type"])
    entry["channels"] = tuple(str(name) for name in entry["channels"])
    entry["label_pixel_counts"] = tuple(int(count) for count in entry["label_pixel_counts"])
    return ImageRecord(**entry)


def _check(training: Training) -> None:
    try:
        check_classes(training.classes)
    except SegmentdError as error:
        raise ValueError(error.message) from error
    values = [entry.value for entry in training.classes]
    rules = {
        "classes": 2 <= len(values) <= MAX_CLASSES and values == list(range(1, len(values) + 1)),
        "id": training.id == slug(training.id),
        "model": training.model in ("", slug(training.model)),
        "images": len(training.images) <= MAX_IMAGES,
        "files": all(
            _plain(record.file) and _plain(record.id) and (record.labels == "" or _plain(record.labels))
            for record in training.images
        ),
        "sizes": all(
            type(size) is int and 0 < size < 1 << 31
            for record in training.images
            for size in (record.height, record.width)
        ),
        "numbers": all(type(n) is int for n in (training.seed, training.revision, training.next_image)),
        "created": math.isfinite(training.created),
    }
    for rule, kept in rules.items():
        if not kept:
            raise ValueError(f"its {rule} make no sense")


def _plain(name: str) -> bool:
    return name.isascii() and name.replace(".", "").isalnum() and not name.startswith(".") and len(name) < 100


@dataclass(frozen=True)
class NewImage:
    """A staged file that was looked into and is to become an image of a training."""

    name: str
    suffix: str
    plane: PlaneIndex
    height: int
    width: int
    pixel_type: PixelType
    channels: tuple[str, ...]
    size_bytes: int = field(default=0)
