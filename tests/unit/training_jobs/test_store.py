from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segmentd.errors import Reason, SegmentdError
from segmentd.models import archive
from segmentd.records import ClassInfo, PlaneIndex
from segmentd.training_jobs import packing, taking_in
from segmentd.training_jobs.project import MAX_IMAGES, Training, from_json, require_room, to_json
from segmentd.training_jobs.store import TrainingStore
from segmentd.workers import WorkerPool

from ..tiny_model import save

CLASSES = (ClassInfo(1, "dark", "#000000"), ClassInfo(2, "bright", "#FFFFFF"))
PIXELS = np.arange(600, dtype=np.uint8).reshape(20, 30)
LABELS = (PIXELS > 100).astype(np.uint8) + 1


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> TrainingStore:
    return TrainingStore(tmp_path / "training")


def with_image(store: TrainingStore, pool: WorkerPool, training: Training) -> Training:
    staged = store.staged_path(".tif")
    tifffile.imwrite(staged, PIXELS)
    new = taking_in.look_at_image(pool, staged, "cells.tif", PlaneIndex(), training)
    training = store.add_image(training, staged, new)
    image = store.write_labels(training, training.images[-1], LABELS)
    return store.save(training.with_image(image))


def test_what_is_stored_comes_back(store: TrainingStore, pool: WorkerPool) -> None:
    training = with_image(store, pool, store.create(Training("cells", "Cells", classes=CLASSES)))
    assert store.get("cells") == training == store.list()[0]
    image = training.images[0]
    assert (image.name, image.height, image.width, sum(image.label_pixel_counts)) == (
        "cells.tif",
        20,
        30,
        600,
    )
    assert np.array_equal(store.read_labels(training, image), LABELS)
    with pytest.raises(SegmentdError, match="there is a training 'cells' already"):
        store.create(training)


def test_labels_change_with_their_record_or_not_at_all(store: TrainingStore, pool: WorkerPool) -> None:
    training = with_image(store, pool, store.create(Training("cells", "Cells", classes=CLASSES)))
    image = training.images[0]
    changed = store.write_labels(training, image, np.zeros_like(LABELS))
    # A crash here leaves the record, and the labels that it names.
    kept = store.get("cells")
    assert np.array_equal(store.read_labels(kept, kept.images[0]), LABELS)
    store.save(training.with_image(changed))
    after = store.get("cells")
    assert not store.read_labels(after, after.images[0]).any()
    assert len(list((store.path("cells") / "labels").iterdir())) == 1


def test_leftovers_are_no_trainings(store: TrainingStore) -> None:
    training = store.create(Training("cells", "Cells", classes=CLASSES))
    (store.folder / "half" / "images").mkdir(parents=True)
    (store.folder / ".gone").mkdir()
    store.staged_path(".tif").write_bytes(b"x")
    store.remove_leftovers()
    assert store.list() == [training]
    assert sorted(path.name for path in store.folder.iterdir()) == ["cells", "half"]
    store.create(Training("half", "Half", classes=CLASSES))
    for wrong in ("..", ".", "Cells", "", "none"):
        with pytest.raises(SegmentdError) as error:
            store.get(wrong)
        assert error.value.reason is Reason.TRAINING_NOT_FOUND


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"id": "../x"},
        {"classes": []},
        {
            "classes": [
                {"value": 1, "name": "Root", "color": "#000000"},
                {"value": 2, "name": "b", "color": "#000000"},
            ]
        },
        {"images": [{"id": "i1", "file": "../../etc/passwd"}]},
        {"images": 3},
        {"seed": "x"},
        {"model": "No Slug"},
        {"extra": 1},
    ],
)
def test_a_record_from_outside_is_not_believed(change: dict[str, object]) -> None:
    fields = json.loads(to_json(Training("cells", "Cells", classes=CLASSES))) | change
    with pytest.raises(SegmentdError, match="cannot be read as a training") as error:
        from_json(json.dumps(fields).encode(), "file")
    assert error.value.reason is Reason.BAD_TRAINING_DATA


def test_a_path_in_a_record_stays_a_plain_name(store: TrainingStore, pool: WorkerPool) -> None:
    training = with_image(store, pool, store.create(Training("cells", "Cells", classes=CLASSES)))
    for field in ("file", "labels", "id"):
        evil = replace(training.images[0], **{field: "../../x"})
        with pytest.raises(SegmentdError, match="cannot be read as a training"):
            from_json(to_json(replace(training, images=(evil,))), "file")


def test_room_is_limited(store: TrainingStore, pool: WorkerPool) -> None:
    training = with_image(store, pool, store.create(Training("cells", "Cells", classes=CLASSES)))
    full = replace(training, images=training.images * MAX_IMAGES)
    for wrong, size in ((full, 1), (training, 5 << 30)):
        with pytest.raises(SegmentdError, match="at most 100 images and 4 GiB"):
            require_room(wrong, size)


def test_a_model_file_carries_a_training_and_gives_it_back(
    store: TrainingStore, pool: WorkerPool, tmp_path: Path
) -> None:
    training = with_image(store, pool, store.create(Training("cells", "Cells", classes=CLASSES)))
    model, packed = save(tmp_path / "cells.segmodel"), tmp_path / "packed.segmodel"
    packing.pack(store, training, model, packed)
    assert packing.has_training(packed)
    assert not packing.has_training(model)
    other = TrainingStore(tmp_path / "elsewhere")
    came = packing.unpack(other, pool, packed, "packed")
    assert (came.id, came.model, came.images[0].name) == ("cells", "", "cells.tif")
    assert np.array_equal(other.read_labels(came, came.images[0]), LABELS)
    again = packing.unpack(other, pool, packed, "packed")
    assert again.id == "cells-2"
    packing.pack(store, training, packed, tmp_path / "twice.segmodel")
    assert packed.read_bytes() == (tmp_path / "twice.segmodel").read_bytes()


@pytest.mark.parametrize("member", ["images", "labels"])
def test_a_package_with_a_bad_image_leaves_nothing(
    store: TrainingStore, pool: WorkerPool, tmp_path: Path, member: str
) -> None:
    training = with_image(store, pool, store.create(Training("cells", "Cells", classes=CLASSES)))
    model, packed = save(tmp_path / "cells.segmodel"), tmp_path / "packed.segmodel"
    packing.pack(store, training, model, packed)
    with zipfile.ZipFile(packed) as source:
        members: dict[str, bytes | Path] = {name: source.read(name) for name in source.namelist()}
    wrong = io.BytesIO()
    tifffile.imwrite(wrong, np.full((20, 30), 9, np.uint8))
    name = next(name for name in members if f"/{member}/" in name)
    members[name] = b"II*\0rubbish" if member == "images" else wrong.getvalue()
    with packed.open("wb") as target:
        archive.write_archive(target, members)
    other = TrainingStore(tmp_path / "elsewhere")
    with pytest.raises(SegmentdError):
        packing.unpack(other, pool, packed, "packed")
    assert list(other.folder.iterdir()) == []
