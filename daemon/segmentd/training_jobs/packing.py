"""A model file with the images and labels that it was trained on: made, and taken apart elsewhere."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from segmentd.models import archive, bundle
from segmentd.models.bundle import TRAINING_FOLDER
from segmentd.training_jobs import taking_in
from segmentd.training_jobs.project import (
    MAX_JSON_BYTES,
    ImageRecord,
    Training,
    from_json,
    require_label_room,
    to_json,
)
from segmentd.training_jobs.store import TrainingStore
from segmentd.workers import WorkerPool

_RECORD = f"{TRAINING_FOLDER}training.json"


def pack(store: TrainingStore, training: Training, model: Path, out: Path) -> None:
    """Write a model file with a training in it.

    Parameters
    ----------
    store, training
        Where the training is.
    model : Path
        The model file, our own.
    out : Path
        The file to write.
    """
    record = replace(training, result=None, model="")
    files: dict[str, Path | bytes] = {_RECORD: to_json(record)}
    for image in training.images:
        files[f"{TRAINING_FOLDER}images/{image.file}"] = store.image_path(training, image)
        if image.labels:
            files[f"{TRAINING_FOLDER}labels/{image.labels}"] = store.labels_path(training, image)
    with model.open("rb") as file:
        own = archive.read_archive(file, model.name, leave_out=TRAINING_FOLDER)
    with out.open("wb") as target:
        archive.write_archive(target, {**own, **files})


def has_training(path: Path) -> bool:
    """Whether a model file brings a training."""
    with path.open("rb") as file:
        return archive.has_member(file, _RECORD)


def unpack(store: TrainingStore, pool: WorkerPool, path: Path, source: str) -> Training:
    """Make a training of what a model file brings, each image checked like one that is added by hand.

    Parameters
    ----------
    store, pool
        Where it goes, and what decodes.
    path : Path
        The model file.
    source : str
        What messages call it.

    Raises
    ------
    SegmentdError
        What is wrong with the training; nothing is left of it then.
    """
    with path.open("rb") as file:
        packed = from_json(_member(file, source, _RECORD), source)
        bare = replace(packed, id=free_id(store, packed.id), images=(), model="", result=None, next_image=1)
        training = store.create(bare)
        try:
            for image in packed.images:
                training = _add(store, pool, file, source, training, image)
        except BaseException:
            shutil.rmtree(store.path(bare.id), ignore_errors=True)
            raise
    return training


def _member(file: BinaryIO, source: str, name: str) -> bytes:
    out = io.BytesIO()
    archive.copy_member(file, source, name, out, MAX_JSON_BYTES)
    return out.getvalue()


def _add(
    store: TrainingStore,
    pool: WorkerPool,
    file: BinaryIO,
    source: str,
    training: Training,
    record: ImageRecord,
) -> Training:
    """Add one image of a package, and its labels."""
    with _extracted(store, file, source, f"images/{record.file}") as staged:
        new = taking_in.look_at_image(pool, staged, record.name, record.plane, training)
        training = store.add_image(training, staged, new)
    if not record.labels:
        return training
    added, name = training.images[-1], f"labels of {record.name}"
    with _extracted(store, file, source, f"labels/{record.labels}") as staged:
        labels = taking_in.read_label_image(pool, staged, name, added)
    taking_in.check_values(labels, training, name)
    changed = training.with_image(store.write_labels(training, added, labels))
    require_label_room(changed)
    return store.save(changed)


@contextmanager
def _extracted(store: TrainingStore, file: BinaryIO, source: str, name: str) -> Iterator[Path]:
    staged = store.staged_path(Path(name).suffix)
    try:
        with staged.open("wb") as target:
            archive.copy_member(file, source, f"{TRAINING_FOLDER}{name}", target, taking_in.MAX_FILE_BYTES)
        yield staged
    finally:
        staged.unlink(missing_ok=True)


def free_id(store: TrainingStore, wanted: str) -> str:
    """An id that no training has yet: the wanted one, or that with a number."""
    taken = {training.id for training in store.list()}
    number, candidate = 2, wanted
    while candidate in taken:
        candidate = bundle.slug(f"{wanted[:55]}-{number}")
        number += 1
    return candidate
