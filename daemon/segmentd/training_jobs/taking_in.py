"""Files for trainings: staged copies of what is named on this host, looked into before they are used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest import confine
from segmentd.ingest.readers import open_image
from segmentd.records import PlaneIndex
from segmentd.training_jobs.from_files import image_suffix
from segmentd.training_jobs.labels import Labels
from segmentd.training_jobs.project import MAX_LABEL_PIXELS, ImageRecord, NewImage, Training
from segmentd.workers import WorkerPool

MAX_FILE_BYTES = 2 << 30


def copy_named(path: bytes, roots: Sequence[Path], target: Path) -> None:
    """Copy a file that a caller named by its path.

    Raises
    ------
    SegmentdError
        FOLDER_OUTSIDE_ROOTS, IMAGE_VANISHED, IMAGE_UNREADABLE, IMAGE_TOO_LARGE.
    """
    shown = os.fsdecode(path).encode("utf-8", "backslashreplace").decode()
    try:
        if not os.path.isabs(path):  # noqa: PTH117 (bytes)
            raise SegmentdError(Reason.BAD_FIELD, f"path: '{shown}' must be absolute", field="path")
        # Of other files it is not even told whether they are there.
        _check_inside(Path(os.path.realpath(os.fsdecode(path))), roots, shown)
        descriptor = confine.open_file(path)
    except FileNotFoundError as error:
        raise SegmentdError(Reason.IMAGE_VANISHED, f"{shown} is not there", file=shown) from error
    except OSError as error:
        raise SegmentdError(
            Reason.IMAGE_UNREADABLE,
            f"{shown} cannot be opened ({error.strerror}); make it readable for the account of the daemon",
            file=shown,
        ) from error
    with os.fdopen(descriptor, "rb") as source, target.open("wb") as copy:
        real = Path(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115 (not a link of the file system)
        _check_inside(real, roots, shown)
        size = 0
        while chunk := source.read(1 << 20):
            size += len(chunk)
            check_size(size, shown)
            copy.write(chunk)


def _check_inside(real: Path, roots: Sequence[Path], shown: str) -> None:
    if roots and not any(real.is_relative_to(root.resolve()) for root in roots):
        raise SegmentdError(
            Reason.FOLDER_OUTSIDE_ROOTS,
            f"{shown} lies outside of the folders that the daemon may use: server.roots",
            field="path",
        )


def check_size(size_bytes: int, name: str) -> None:
    """IMAGE_TOO_LARGE beyond what is taken."""
    if size_bytes > MAX_FILE_BYTES:
        raise SegmentdError(
            Reason.IMAGE_TOO_LARGE,
            f"{name}: has more than {MAX_FILE_BYTES >> 30} GiB; train on a crop of it",
            file=name,
        )


def look_at_image(
    pool: WorkerPool, staged: Path, name: str, plane: PlaneIndex, training: Training
) -> NewImage:
    """What a staged image holds, after a check that it can be trained on together with the others."""
    try:
        with open_image(pool, staged) as image:
            info = image.info
            if plane not in set(info.planes()):
                raise _bad(f"{name}: has no plane {plane} (it has {info.plane_count} planes)", "plane")
            if info.height * info.width > MAX_LABEL_PIXELS:
                raise _bad(
                    f"{name}: has more than {MAX_LABEL_PIXELS:,} pixels; train on a crop of it", "data"
                )
            image.read_plane(plane)
    except SegmentdError as error:
        raise _named(error, staged, name) from error
    for first in training.images[:1]:
        kind = (info.pixel_type, info.channel_count)
        if kind != (first.pixel_type, len(first.channels)):
            raise _bad(
                f"{name}: has {info.channel_count} channel(s) of {info.pixel_type}, but {first.name} has "
                f"{len(first.channels)} of {first.pixel_type}; train on images of one kind",
                "data",
            )
    return NewImage(
        name,
        image_suffix(name),
        plane,
        info.height,
        info.width,
        info.pixel_type,
        info.channel_names,
        staged.stat().st_size,
    )


def read_label_image(pool: WorkerPool, staged: Path, name: str, image: ImageRecord) -> Labels:
    """The values of a staged label image or mask for an image: integers (Y, X), not yet checked further.

    Raises
    ------
    SegmentdError
        BAD_TRAINING_DATA for another size, several channels or planes, or values that are no labels.
    """
    try:
        with open_image(pool, staged) as labels:
            info = labels.info
            if (info.height, info.width) != (image.height, image.width):
                raise _bad(
                    f"{name}: is {info.height} x {info.width} pixels, its image {image.name} is "
                    f"{image.height} x {image.width}; labels have the size of their image",
                    "data",
                )
            if info.channel_count != 1 or info.plane_count != 1:
                raise _bad(
                    f"{name}: has {info.channel_count} channels and {info.plane_count} planes; labels have "
                    "one",
                    "data",
                )
            values = labels.read_plane(next(info.planes())).pixels[0]
    except SegmentdError as error:
        raise _named(error, staged, name) from error
    if values.dtype.kind == "f" or values.min() < 0:
        raise _bad(f"{name}: labels are whole numbers, 0 or more", "data")
    # A mask may say 65535 where it is set; no label does, and 255 is no label of ours either.
    found: Labels = np.minimum(values, 255).astype(np.uint8)
    return found


def check_values(labels: Labels, training: Training, name: str) -> None:
    """BAD_TRAINING_DATA where a label is no class of the training."""
    highest = int(labels.max(initial=0))
    if highest > len(training.classes):
        raise _bad(
            f"{name}: has label {highest} or above, but training '{training.id}' has {len(training.classes)} "
            "classes; add a class, or import it as a mask of one class",
            "data",
        )


def _named(error: SegmentdError, staged: Path, name: str) -> SegmentdError:
    """The error with the file's own name in place of the staged one."""
    metadata = {key: value.replace(staged.name, name) for key, value in error.metadata.items()}
    return SegmentdError(error.reason, error.message.replace(staged.name, name), **metadata)


def _bad(message: str, field: str) -> SegmentdError:
    return SegmentdError(Reason.BAD_TRAINING_DATA, message, field=field)
