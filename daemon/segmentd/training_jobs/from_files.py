"""Folders of images and of sparse label images to a model: joins reading and training."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segmentd.compute.deep_sets import DeepFeatureSet
from segmentd.compute.features import AnyFeatureSet, feature_names, feature_sets
from segmentd.errors import Reason, SegmentdError
from segmentd.imagefile import default_color
from segmentd.ingest.names import is_image, is_store
from segmentd.ingest.readers import OpenImage, open_image
from segmentd.models import bundle, deep_features, training
from segmentd.models.deep_features import DeepFeatures
from segmentd.records import ClassInfo, FrameInfo, ModelCard, PlaneIndex
from segmentd.workers import WorkerPool

_SUFFIXES = re.compile(r"((\.ome)?\.(tiff?|btf|tf8|png|jpe?g)|\.companion\.ome)$", re.IGNORECASE)
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TrainingPair:
    """An image and the label image drawn on it.

    `plane` is the plane of the image that labels of one plane were drawn on, the first one by default; `name`
    is what messages call the image.
    """

    image: Path
    labels: Path
    plane: PlaneIndex = field(default_factory=PlaneIndex)
    name: str = ""


@dataclass(frozen=True)
class TrainingRequest:
    """What to train: pairs, and the settings of the model (see `ModelCard`).

    `vgg19_weights` is the file of weights for deep features; empty for what Keras has cached. `device` is one
    of `segmentd.models.training.DEVICES`, which trains the forest.
    """

    pairs: Sequence[TrainingPair]
    display_name: str
    feature_set: str = "basic25"
    normalization: str = "none"
    classes: tuple[ClassInfo, ...] | None = None
    channel: str | None = None
    seed: int = 0
    threads: int = 1
    description: str = ""
    postprocessing: str = "none"
    vgg19_weights: str = ""
    device: str = training.CPU


@dataclass(frozen=True)
class Trained:
    """A sealed model, the device that trained it, and why not the one that was wanted; empty where it was."""

    model: bundle.Model
    device: str
    device_reason: str


def _bad(message: str, **metadata: str) -> SegmentdError:
    return SegmentdError(Reason.BAD_TRAINING_DATA, message, **metadata)


def image_stem(path: Path) -> str:
    """File name without image suffixes: `x.ome.tif` and `x.tif` are both `x`."""
    return _SUFFIXES.sub("", path.name)


def image_suffix(name: str) -> str:
    """The ending that tells the format, in lower case: `.ome.tif` of `x.ome.tif`, else `.tif`."""
    found = _SUFFIXES.search(name)
    return found.group().lower() if found else ".tif"


def match_pairs(images: Path, labels: Path) -> tuple[list[TrainingPair], list[Path]]:
    """Pair images with label images by stem; also returns the images that have no labels.

    Raises
    ------
    SegmentdError
        BAD_TRAINING_DATA for a missing or empty folder, labels without an image, or two files of one stem.
    """
    image_files, label_files = _by_stem(images, "images"), _by_stem(labels, "labels")
    orphans = [str(path) for stem, path in label_files.items() if stem not in image_files]
    if orphans:
        raise _bad(f"labels without an image of the same name in {images}: {', '.join(orphans)}")
    pairs = [TrainingPair(image_files[stem], path) for stem, path in label_files.items()]
    return pairs, [path for stem, path in image_files.items() if stem not in label_files]


def _by_stem(folder: Path, what: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise _bad(f"{folder}: is not a folder; --{what} takes a folder of images", field=what)
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = os.fsencode(path.name)
        if path.is_dir() if is_store(name) else path.is_file() and is_image(name):
            other = files.setdefault(image_stem(path), path)
            if other is not path:
                raise _bad(f"{other} and {path} have the same name; keep one of them", field=what)
    if not files:
        raise _bad(
            f"{folder}: holds no image; --{what} takes a folder of TIFF, PNG or JPEG files", field=what
        )
    return files


def train_model(
    request: TrainingRequest, pool: WorkerPool, report: Report = lambda what, done, total: None
) -> Trained:
    """Read all pairs, train, and return the sealed model.

    `report(what, done, total)` is called as the work goes on.

    Raises
    ------
    SegmentdError
        BAD_TRAINING_DATA, or what reading an image raises; MISSING_EXTRA or MODEL_UNUSABLE where deep
        features cannot be computed.
    """
    feature_set = feature_sets()[request.feature_set]
    deep = _deep_features(request, feature_set)
    samples: list[training.Samples] = []
    first: FrameInfo | None = None
    channel: tuple[str, int] | None = None
    for number, pair in enumerate(request.pairs):
        report(pair.name or pair.image.name, number, len(request.pairs))
        with open_image(pool, pair.image) as image, open_image(pool, pair.labels) as labels:
            if first is None:
                first = image.info
                channel = _channel(request.channel, first, pair.image)
            _check_alike(first, image.info, request.pairs[0].image, pair.image)
            samples.extend(_read_samples(image, labels, pair, feature_set, request, channel, deep))
    if first is None:
        raise _bad("there is nothing to train on: no image has labels")
    where = "" if request.device == training.CPU else ", on a graphics card if that can be used"
    report(f"training{where}", len(request.pairs), len(request.pairs))
    joined = training.Samples(
        np.concatenate([part.features for part in samples]), np.concatenate([part.labels for part in samples])
    )
    return _fit(request, feature_set, joined, first, channel, deep, report)


def _deep_features(request: TrainingRequest, feature_set: AnyFeatureSet) -> DeepFeatures | None:
    if not isinstance(feature_set, DeepFeatureSet):
        return None
    weights = Path(request.vgg19_weights) if request.vgg19_weights else None
    return deep_features.for_training(feature_set, weights, request.seed, request.threads)


def _fit(
    request: TrainingRequest,
    feature_set: AnyFeatureSet,
    samples: training.Samples,
    frame: FrameInfo,
    channel: tuple[str, int] | None,
    deep: DeepFeatures | None,
    report: Report,
) -> Trained:
    highest = int(samples.labels.max(initial=0))
    classes = request.classes or tuple(
        ClassInfo(value, f"class {value}", default_color(value)) for value in range(1, highest + 1)
    )
    names = (channel[0],) if channel else frame.channel_names
    features = feature_names(feature_set, names)
    trained = training.train(
        samples, len(classes), features, request.seed, request.threads, device=request.device
    )
    if trained.note:
        report(trained.note, len(request.pairs), len(request.pairs))
    card = ModelCard(
        id=bundle.slug(request.display_name),
        display_name=request.display_name,
        kind="forest",
        feature_set=feature_set.name,
        classes=classes,
        channel_count=len(names),
        channels=names,
        channel=channel[0] if channel else None,
        channel_index=channel[1] if channel else None,
        pixel_type=frame.pixel_type,
        pixel_size=frame.pixel_size,
        border_px=feature_set.reach_px,
        normalization=request.normalization,
        seed=request.seed,
        digest="",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        library_versions=trained.library_versions | (deep.extractor.library_versions if deep else {}),
        scores=trained.scores,
        description=request.description,
        postprocessing=request.postprocessing,
        weights_sha256=deep.weights_sha256 if deep else "",
    )
    trained.forest.check()
    model = bundle.seal(card, trained.forest, deep.extractor.projection if deep else None)
    return Trained(model, trained.device, trained.note)


def _channel(reference: str | None, frame: FrameInfo, path: Path) -> tuple[str, int] | None:
    """The one channel to train on, by name or by position from 0."""
    if reference is None:
        return None
    names = frame.channel_names
    if names.count(reference) == 1:
        return reference, names.index(reference)
    if reference.isdecimal() and int(reference) < len(names):
        return names[int(reference)], int(reference)
    listed = ", ".join(f"{index} = {name}" for index, name in enumerate(names))
    raise _bad(f"{path}: has no channel '{reference}'; its channels are {listed}", field="channel")


def _check_alike(first: FrameInfo, other: FrameInfo, first_path: Path, path: Path) -> None:
    for what in ("pixel_type", "channel_count"):
        if getattr(first, what) != getattr(other, what):
            raise _bad(
                f"{path}: {what.replace('_', ' ')} is {getattr(other, what)}, but {getattr(first, what)} in "
                f"{first_path}; train on images of one kind",
                field=what,
            )


def _read_samples(
    image: OpenImage,
    labels: OpenImage,
    pair: TrainingPair,
    feature_set: AnyFeatureSet,
    request: TrainingRequest,
    channel: tuple[str, int] | None,
    deep: DeepFeatures | None,
) -> list[training.Samples]:
    found = []
    for index, drawn in _label_planes(labels, pair, image.info):
        if not drawn.any():
            continue
        if request.classes and drawn.max() > len(request.classes):
            raise _bad(
                f"{pair.labels}: has label {drawn.max()}, but only {len(request.classes)} classes are named; "
                "add the class or correct the label"
            )
        height, width = image.info.scene_size(index.scene)  # the rest of the plane is no image
        pixels = np.ascontiguousarray(image.read_plane(index).pixels[:, :height, :width])
        drawn = drawn[:height, :width]
        if channel is not None:
            pixels = pixels[channel[1] : channel[1] + 1]
        extractor = deep.extractor if deep else None
        found.append(training.collect(pixels, drawn, feature_set, request.normalization, extractor))
    if not found:
        raise _bad(f"{pair.labels}: no pixel is labelled; draw some or remove the file")
    return found


def _label_planes(
    labels: OpenImage, pair: TrainingPair, frame: FrameInfo
) -> Iterator[tuple[PlaneIndex, npt.NDArray[np.uint8]]]:
    info = labels.info
    if (info.height, info.width) != (frame.height, frame.width):
        raise _bad(
            f"{pair.labels}: is {info.height} x {info.width} pixels, its image {pair.image.name} is "
            f"{frame.height} x {frame.width}; a label image has the size of its image"
        )
    if info.channel_count != 1 or info.plane_count not in (1, frame.plane_count):
        raise _bad(
            f"{pair.labels}: has {info.channel_count} channels and {info.plane_count} planes; a label image "
            "has one channel (0 = unlabelled, 1, 2, ... = class) and one plane, or as many as its image"
        )
    for index in info.planes():
        values = labels.read_plane(index).pixels[0]
        target = index if info.plane_count > 1 else pair.plane
        if values.dtype.kind == "f" or values.min() < 0 or values.max() > 255:
            raise _bad(f"{pair.labels}: labels are whole numbers from 0 (unlabelled) to 255")
        yield target, values.astype(np.uint8)
