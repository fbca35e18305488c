"""The settings of a training, checked; and what they make of it for the trainer."""

from __future__ import annotations

from dataclasses import replace

from segmentd.compute.features import feature_sets
from segmentd.compute.normalize import METHODS
from segmentd.imagefile import default_color
from segmentd.models.bundle import POSTPROCESSINGS, slug
from segmentd.models.packages import MAX_TEXT, bad_field, check_class_name, check_classes, check_color
from segmentd.records import ClassInfo
from segmentd.training_jobs.from_files import TrainingPair, TrainingRequest
from segmentd.training_jobs.project import MAX_CLASSES, Training
from segmentd.training_jobs.store import TrainingStore

DEFAULT_CLASSES = (
    ClassInfo(1, "class 1", default_color(1)),
    ClassInfo(2, "class 2", default_color(2)),
)


def check(training: Training) -> None:
    """BAD_FIELD where a setting makes no sense."""
    if training.id != slug(training.id):
        raise bad_field("training_id", f"'{training.id}' must be an id such as '{slug(training.id)}'")
    if not training.display_name.strip() or len(training.display_name) > 200:
        raise bad_field("display_name", "must be 1 to 200 characters")
    if len(training.description) > MAX_TEXT:
        raise bad_field("description", f"must be at most {MAX_TEXT:,} characters")
    if training.seed < 0:
        raise bad_field("seed", f"{training.seed} must not be negative")
    for field, value, allowed in (
        ("feature_set", training.feature_set, tuple(feature_sets())),
        ("normalization", training.normalization, tuple(METHODS)),
        ("postprocessing", training.postprocessing, POSTPROCESSINGS),
    ):
        if value not in allowed:
            raise bad_field(field, f"'{value}' must be one of {', '.join(allowed)}")
    values = [entry.value for entry in training.classes]
    if values != list(range(1, len(values) + 1)) or not 2 <= len(values) <= MAX_CLASSES:
        raise bad_field("classes", f"must be 2 to {MAX_CLASSES} with values 1, 2, ...")
    check_classes(training.classes)


def with_class(training: Training, name: str, color: str) -> Training:
    """The training with one more class."""
    if len(training.classes) >= MAX_CLASSES:
        raise bad_field("classes", f"there are {MAX_CLASSES} classes already")
    check_class_name(name, [entry.name for entry in training.classes])
    value = len(training.classes) + 1
    color = color or default_color(value)
    check_color(color)
    images = tuple(
        replace(image, label_pixel_counts=(*image.label_pixel_counts, 0)) for image in training.images
    )
    classes = (*training.classes, ClassInfo(value, name, color.upper()))
    return replace(training, classes=classes, images=images, revision=training.revision + 1)


def with_changed_class(training: Training, value: int, name: str, color: str) -> Training:
    """The training with a class renamed or recoloured; what is empty stays."""
    before = training.class_of(value)
    if name:
        check_class_name(name, [entry.name for entry in training.classes if entry.value != value])
    if color:
        check_color(color)
    changed = ClassInfo(value, name or before.name, (color or before.color).upper())
    classes = tuple(changed if entry.value == value else entry for entry in training.classes)
    return replace(training, classes=classes, revision=training.revision + 1)


def without_class(training: Training, value: int) -> Training:
    """The training without a class; higher ones move down. The labels are the caller's to change."""
    training.class_of(value)
    if len(training.classes) == 2:
        raise bad_field("value", "a model needs two classes; add another one first")
    kept = [entry for entry in training.classes if entry.value != value]
    classes = tuple(replace(entry, value=number) for number, entry in enumerate(kept, 1))
    return replace(training, classes=classes, revision=training.revision + 1)


def request_for(training: Training, store: TrainingStore, threads: int) -> TrainingRequest:
    """What the trainer is asked to do: all images with labels."""
    pairs = [
        TrainingPair(
            store.image_path(training, image), store.labels_path(training, image), image.plane, image.name
        )
        for image in training.images
        if sum(image.label_pixel_counts)
    ]
    return TrainingRequest(
        pairs,
        training.display_name,
        training.feature_set,
        training.normalization,
        training.classes,
        training.channel,
        training.seed,
        threads,
        training.description,
        training.postprocessing,
    )
