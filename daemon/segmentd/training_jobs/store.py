"""Trainings on disk: a folder each, with `training.json`, `images/`, `labels/` and the model in work.

Files come first and the record last, each synced and renamed: a crash loses nothing that was confirmed, and
what it left half done is no part of any record.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile

from segmentd.errors import Reason, SegmentdError, write_errors
from segmentd.imagefile import read_simple
from segmentd.models import bundle
from segmentd.models.versions import sync
from segmentd.training_jobs import labels as label_ops
from segmentd.training_jobs.labels import Labels
from segmentd.training_jobs.project import ImageRecord, NewImage, Training, from_json, require_room, to_json

_RECORD = "training.json"


class TrainingStore:
    """The trainings of one folder. Calls block; calls for one training must not overlap.

    Parameters
    ----------
    folder : Path
        Made when the first training is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list(self) -> list[Training]:
        """All trainings, by id; a folder that cannot be read as one is left out."""
        found = []
        for path in sorted(self.folder.glob(f"*/{_RECORD}")):
            try:
                found.append(from_json(path.read_bytes(), str(path)))
            except (OSError, SegmentdError):
                continue
        return found

    def get(self, training_id: str) -> Training:
        """A training by its id.

        Raises
        ------
        SegmentdError
            TRAINING_NOT_FOUND, or BAD_TRAINING_DATA for a record that was damaged.
        """
        path = self.path(training_id) / _RECORD
        try:
            data = path.read_bytes() if training_id == bundle.slug(training_id) else None
        except (FileNotFoundError, NotADirectoryError):
            data = None
        if data is None:
            known = ", ".join(training.id for training in self.list()) or "none"
            raise SegmentdError(
                Reason.TRAINING_NOT_FOUND,
                f"there is no training '{training_id}' (trainings: {known})",
                resource=f"trainings/{training_id}",
            )
        return from_json(data, str(path))

    def create(self, training: Training) -> Training:
        """Make the folder of a new training; TRAINING_EXISTS where there is one."""
        with write_errors(f"training '{training.id}'", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if (self.path(training.id) / _RECORD).exists():
                raise SegmentdError(
                    Reason.TRAINING_EXISTS,
                    f"there is a training '{training.id}' already; choose another id",
                    resource=training.name,
                )
            shutil.rmtree(self.path(training.id), ignore_errors=True)  # without a record it is no training
            for part in ("images", "labels"):
                (self.path(training.id) / part).mkdir(parents=True)
            sync(self.path(training.id))
            sync(self.folder)
            return self.save(training)

    def save(self, training: Training) -> Training:
        """Write the record; files that it no longer names are removed."""
        folder = self.path(training.id)
        with write_errors(f"training '{training.id}'", self.folder):
            self._write(folder / _RECORD, to_json(training))
            named = {image.file for image in training.images} | {image.labels for image in training.images}
            for path in (*(folder / "images").iterdir(), *(folder / "labels").iterdir()):
                if path.name not in named:
                    path.unlink()
        return training

    def delete(self, training_id: str) -> None:
        """Delete a training with everything in it."""
        with write_errors(f"training '{training_id}'", self.folder):
            gone = self.folder / f".{training_id}.{secrets.token_hex(4)}"
            self.path(training_id).rename(gone)
            sync(self.folder)
            shutil.rmtree(gone)

    def path(self, training_id: str) -> Path:
        """The folder of a training."""
        return self.folder / training_id

    def image_path(self, training: Training, image: ImageRecord) -> Path:
        """The file of an image."""
        return self.path(training.id) / "images" / image.file

    def labels_path(self, training: Training, image: ImageRecord) -> Path:
        """The label image of an image that has one."""
        return self.path(training.id) / "labels" / image.labels

    def model_path(self, training: Training) -> Path:
        """The model in work."""
        return self.path(training.id) / f"model{bundle.SUFFIX}"

    def staged_path(self, suffix: str = "") -> Path:
        """A new name for a file that is not yet part of a training."""
        with write_errors("trainings", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f".{secrets.token_hex(6)}.part{suffix}"

    def remove_leftovers(self) -> None:
        """Remove what a killed process left half written or half deleted."""
        for path in self.folder.glob(".*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def add_image(self, training: Training, staged: Path, new: NewImage) -> Training:
        """Make a staged file an image of the training."""
        require_room(training, new.size_bytes)
        image = ImageRecord(
            f"i{training.next_image}",
            new.name,
            f"i{training.next_image}{new.suffix}",
            new.plane,
            new.height,
            new.width,
            new.pixel_type,
            new.channels,
            new.size_bytes,
            label_pixel_counts=(0,) * len(training.classes),
        )
        with write_errors(f"training '{training.id}'", self.folder):
            sync(staged)
            staged.replace(self.image_path(training, image))
            sync(self.image_path(training, image).parent)
        images = (*training.images, image)
        changed = replace(training, images=images, next_image=training.next_image + 1)
        return self.save(replace(changed, revision=training.revision + 1))

    def delete_image(self, training: Training, image: ImageRecord) -> Training:
        """Delete an image and its labels."""
        images = tuple(record for record in training.images if record.id != image.id)
        return self.save(replace(training, images=images, revision=training.revision + 1))

    def read_labels(self, training: Training, image: ImageRecord) -> Labels:
        """The labels of an image, uint8 (Y, X)."""
        if not image.labels:
            return np.zeros((image.height, image.width), np.uint8)
        labels: Labels = read_simple(self.labels_path(training, image))[0].astype(np.uint8, copy=False)
        return labels

    def write_labels(self, training: Training, image: ImageRecord, labels: Labels) -> ImageRecord:
        """Write labels beside those that are there; returns the record that names them, to be saved."""
        name = f"{image.id}r{training.revision}x{secrets.token_hex(4)}.tif"
        path = self.path(training.id) / "labels" / name
        with write_errors(f"training '{training.id}'", self.folder):
            tifffile.imwrite(path, labels, compression="zlib", photometric="minisblack", metadata=None)
            sync(path)
            sync(path.parent)
        return replace(image, labels=name, label_pixel_counts=label_ops.counts(labels, len(training.classes)))

    def copy(self, source: Training, target: Training) -> Training:
        """Make a training with a copy of the images and labels of another one."""
        bare = replace(target, images=(), result=None)
        self.create(bare)
        with write_errors(f"training '{target.id}'", self.folder):
            for image in source.images:
                for path_of in (self.image_path, self.labels_path):
                    if path_of(source, image).is_file():
                        shutil.copyfile(path_of(source, image), path_of(target, image))
                        sync(path_of(target, image))
            for part in ("images", "labels"):
                sync(self.path(target.id) / part)
        return self.save(
            replace(bare, images=source.images, next_image=source.next_image, revision=bare.revision + 1)
        )

    def _write(self, path: Path, data: bytes) -> None:
        part = path.with_name(f".{path.name}")
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync(path.parent)
