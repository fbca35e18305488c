"""Folders of images and strokes to a model: what pairs up, what is refused, what decides the digest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from segmentd.errors import Reason, SegmentdError
from segmentd.models.bundle import Model
from segmentd.records import ClassInfo
from segmentd.training_jobs import TrainingPair, TrainingRequest, image_stem, match_pairs, train_model
from segmentd.workers import WorkerPool

SHAPE = (40, 48)
CLASSES = (ClassInfo(1, "dark", "#000000"), ClassInfo(2, "bright", "#FFFFFF"))
BRIGHT = np.s_[10:30, 12:36]


def picture(seed: int = 0, dtype: npt.DTypeLike = np.uint8) -> npt.NDArray[np.generic]:
    pixels = np.random.default_rng(seed).integers(0, 60, SHAPE)
    pixels[BRIGHT] += 120
    return pixels.astype(dtype)


def strokes() -> npt.NDArray[np.uint8]:
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[2:4, 4:40] = 1
    drawn[18:20, 14:34] = 2
    return drawn


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as started:
        yield started


@pytest.fixture
def pair(tmp_path: Path) -> TrainingPair:
    made = TrainingPair(tmp_path / "image.tif", tmp_path / "labels.tif")
    tifffile.imwrite(made.image, picture())
    tifffile.imwrite(made.labels, strokes())
    return made


def train(pool: WorkerPool, *pairs: TrainingPair, **settings: object) -> Model:
    return train_model(replace(TrainingRequest(pairs, "Test"), **settings), pool).model  # type: ignore[arg-type]


def refused(pool: WorkerPool, *pairs: TrainingPair, **settings: object) -> str:
    with pytest.raises(SegmentdError) as error:
        train(pool, *pairs, **settings)
    assert error.value.reason is Reason.BAD_TRAINING_DATA
    return error.value.message


# ------------------------------------------------------------ pairs


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("x.tif", "x"),
        ("x.ome.tif", "x"),
        ("x.OME.TIFF", "x"),
        ("x.y.png", "x.y"),
        ("x.ome", "x.ome"),
        ("x.jpeg", "x"),
    ],
)
def test_stems(name: str, stem: str) -> None:
    assert image_stem(Path("folder") / name) == stem


def test_pairs_match_by_stem_and_images_may_be_without_labels(tmp_path: Path) -> None:
    images, labels = folders(tmp_path, ["a.ome.tif", "b.png", "c.tif", "notes.txt"], ["a.tif", "c.png"])
    pairs, without = match_pairs(images, labels)
    assert [(pair.image.name, pair.labels.name) for pair in pairs] == [
        ("a.ome.tif", "a.tif"),
        ("c.tif", "c.png"),
    ]
    assert [path.name for path in without] == ["b.png"]


@pytest.mark.parametrize(
    ("image_names", "label_names", "message"),
    [
        (["a.tif"], ["a.tif", "b.tif"], "labels without an image.*b.tif"),
        (["a.tif", "a.png"], ["a.tif"], "have the same name"),
        (["a.tif"], ["a.tif", "a.ome.tif"], "have the same name"),
        ([], ["a.tif"], "holds no image; --images"),
        (["a.tif"], ["a.txt"], "holds no image; --labels"),
        (None, ["a.tif"], "is not a folder; --images"),
    ],
)
def test_folders_that_do_not_pair_up(
    tmp_path: Path, image_names: list[str] | None, label_names: list[str], message: str
) -> None:
    with pytest.raises(SegmentdError, match=message) as error:
        match_pairs(*folders(tmp_path, image_names, label_names))
    assert error.value.reason is Reason.BAD_TRAINING_DATA


def folders(root: Path, *names: list[str] | None) -> tuple[Path, Path]:
    made = (root / "images", root / "labels")
    for folder, files in zip(made, names, strict=True):
        if files is not None:
            folder.mkdir()
            for name in files:
                (folder / name).touch()
    return made


# ------------------------------------------------------------ models


def test_the_card_describes_what_was_trained(pool: WorkerPool, pair: TrainingPair) -> None:
    steps: list[tuple[str, int, int]] = []
    request = TrainingRequest([pair], "My Model", classes=CLASSES, seed=5)
    card = train_model(request, pool, lambda *step: steps.append(step)).model.card
    assert (card.id, card.display_name, card.feature_set, card.seed) == ("my-model", "My Model", "basic25", 5)
    assert (card.channel_count, card.pixel_type, card.classes, card.channel) == (1, "uint8", CLASSES, None)
    assert card.scores["labelled_pixels"] == [72, 40]
    assert steps == [("image.tif", 0, 1), ("training", 1, 1)]


def test_the_digest_depends_on_what_the_model_computes_and_on_nothing_else(
    pool: WorkerPool, pair: TrainingPair
) -> None:
    digest = train(pool, pair).card.digest
    assert train(pool, pair, display_name="Another", threads=2).card.digest == digest
    others = [{"seed": 1}, {"normalization": "percentile"}, {"feature_set": "basic33"}, {"classes": CLASSES}]
    assert len({digest, *(train(pool, pair, **other).card.digest for other in others)}) == 5


def test_default_classes(pool: WorkerPool, pair: TrainingPair) -> None:
    classes = train(pool, pair).card.classes
    assert [(entry.value, entry.name) for entry in classes] == [(1, "class 1"), (2, "class 2")]
    assert len({entry.color for entry in classes}) == 2


def test_a_label_image_may_be_of_any_integer_type(pool: WorkerPool, pair: TrainingPair) -> None:
    digest = train(pool, pair).card.digest
    for dtype in (np.uint16, np.int16, np.uint32):
        tifffile.imwrite(pair.labels, strokes().astype(dtype))
        assert train(pool, pair).card.digest == digest


def test_planes_of_a_stack_have_labels_of_their_own(pool: WorkerPool, pair: TrainingPair) -> None:
    stack, drawn = np.stack([picture(1), picture(2)]), np.stack([strokes(), np.zeros_like(strokes())])
    options = {"imagej": True, "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(pair.image, stack, **options)
    tifffile.imwrite(pair.labels, drawn, **options)
    first = train(pool, pair).card.digest
    tifffile.imwrite(pair.labels, drawn[::-1], **options)
    assert train(pool, pair).card.digest != first


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(SHAPE, np.uint8), "no pixel is labelled"),
        (np.ones(SHAPE, np.uint8), "at least two classes"),
        (np.where(strokes() == 2, 4, strokes()), "classes without any: 2, 3"),
        (strokes()[:-1], "39 x 48 pixels.*40 x 48"),
        (strokes().astype(np.float32), "whole numbers"),
        (strokes().astype(np.int16) - 1, "whole numbers"),
        (strokes().astype(np.uint16) * 200, "whole numbers"),
        (np.stack([strokes()] * 3), "3 planes"),
    ],
)
def test_label_images_that_make_no_sense(
    pool: WorkerPool, pair: TrainingPair, labels: npt.NDArray[np.generic], message: str
) -> None:
    metadata = {"axes": "ZYX"} if labels.ndim == 3 else None
    tifffile.imwrite(pair.labels, labels, imagej=labels.ndim == 3, metadata=metadata)
    with pytest.raises(SegmentdError, match=message) as error:
        train(pool, pair)
    assert error.value.reason is Reason.BAD_TRAINING_DATA


def test_labels_beyond_the_named_classes(pool: WorkerPool, pair: TrainingPair) -> None:
    tifffile.imwrite(pair.labels, strokes() + (strokes() == 2))
    assert "has label 3, but only 2 classes" in refused(pool, pair, classes=CLASSES)
    tifffile.imwrite(pair.labels, strokes())
    third = ClassInfo(3, "other", "#00FF00")
    assert "classes without any: 3" in refused(pool, pair, classes=(*CLASSES, third))


def test_images_of_different_kinds(pool: WorkerPool, pair: TrainingPair, tmp_path: Path) -> None:
    other = TrainingPair(tmp_path / "other.tif", pair.labels)
    tifffile.imwrite(other.image, picture(dtype=np.uint16))
    message = refused(pool, pair, other)
    for text in (str(other.image), "pixel type is uint16", "uint8"):
        assert text in message
    tifffile.imwrite(other.image, np.stack([picture()] * 2), ome=True, metadata={"axes": "CYX"})
    assert "channel count is 2, but 1" in refused(pool, pair, other)


def test_one_channel(pool: WorkerPool, pair: TrainingPair) -> None:
    planes = np.stack([picture(3), picture(4)])
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "1"]}}
    tifffile.imwrite(pair.image, planes, ome=True, metadata=metadata)
    cards = {name: train(pool, pair, channel=name).card for name in ("DAPI", "0", "1")}
    assert (cards["DAPI"].channel, cards["DAPI"].channel_index) == ("DAPI", 0)
    assert cards["DAPI"].digest == cards["0"].digest
    assert cards["1"].channel_index == 1, "a name goes before a number"
    assert train(pool, pair).card.channel_count == 2
    for wrong in ("2", "-1", "dapi"):
        assert "its channels are 0 = DAPI, 1 = 1" in refused(pool, pair, channel=wrong)


def test_a_damaged_image_is_named(pool: WorkerPool, pair: TrainingPair) -> None:
    pair.image.write_bytes(pair.image.read_bytes()[:500])
    with pytest.raises(SegmentdError, match=r"image\.tif is incomplete"):
        train(pool, pair)


def test_nothing_to_train_on(pool: WorkerPool) -> None:
    assert "no image has labels" in refused(pool)
