"""The drift alarm: pure decisions, then lamp, focus and stain on real images, then over a restart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from scipy import ndimage

from segmentd.compute.features import feature_sets
from segmentd.engine.lane import CpuLane
from segmentd.engine.segmenter import Tally
from segmentd.models import bundle, training
from segmentd.records import (
    ClassInfo,
    FileStamp,
    PixelType,
    Segmentation,
    SegmentationState,
    SegmentOptions,
)
from segmentd.results.images import ImageOutcome, ImageState
from segmentd.results.journal import Journal
from segmentd.results.payload import decode_segmentation, encode_segmentation
from segmentd.rpc.convert import segmentation_message
from segmentd.watches.alarm import DriftAlarm
from segmentd.watches.drift import (
    ADOPTED_AFTER,
    HISTORY,
    MINIMUM_HISTORY,
    RECENT,
    Drift,
    Look,
    describe,
    look_of,
)

from .. import tiny_model

Planes = npt.NDArray[np.generic]
ENOUGH = MINIMUM_HISTORY + RECENT


def look(confidence: float, share: float = 20.0, model: str = "m") -> Look:
    return Look(model, {"background": 100 - share, "nucleus": share, "confidence": confidence})


def usual(count: int, seed: int = 0) -> list[Look]:
    rng = np.random.default_rng(seed)
    return [look(rng.normal(90, 1), rng.normal(20, 4)) for _ in range(count)]


def changes(drift: Drift, looks: Sequence[Look]) -> list[tuple[int, bool]]:
    """At which of the images an alarm began (True) or ended."""
    told = [(number, drift.add(one)) for number, one in enumerate(looks, 1)]
    return [(number, change.alarm) for number, change in told if change is not None]


# ---------------------------------------------------------------- decisions


def test_what_varies_as_before_is_no_drift() -> None:
    assert changes(Drift(), usual(2000)) == []


def test_before_there_is_enough_to_compare_with_nothing_is_said() -> None:
    drift = Drift()
    assert changes(drift, [*usual(RECENT), *[look(20, 90)] * (MINIMUM_HISTORY - 1)]) == []
    assert drift.measures == ()


def test_an_alarm_begins_once_and_ends_once() -> None:
    drift = Drift()
    assert changes(drift, usual(100)) == []
    ((begin, alarm),) = changes(drift, [look(80)] * 30)
    assert alarm and begin <= RECENT
    assert drift.measures[0].name == "confidence"
    assert drift.measures[0].value == 80
    assert drift.measures[0].usual == pytest.approx(90, abs=0.5)
    ((end, alarm),) = changes(drift, usual(50, 1))
    assert not alarm and end <= RECENT
    assert not drift.alarm


def test_three_odd_images_change_nothing() -> None:
    drift = Drift()
    changes(drift, usual(100))
    odd = [look(10, 99)] * 3
    assert changes(drift, [*odd, *usual(RECENT, 2), *odd, *usual(RECENT, 3)]) == []


def test_between_the_two_thresholds_an_alarm_stays_as_it_is() -> None:
    drift = Drift()
    changes(drift, usual(200))
    spread = 1.3
    assert changes(drift, [look(90 - 2.2 * spread)] * 20) == []
    changes(drift, usual(100, 4))
    assert [alarm for _, alarm in changes(drift, [look(90 - 6 * spread)] * 10)] == [True]
    assert changes(drift, [look(90 - 2.2 * spread)] * 20) == []
    assert drift.alarm


def test_what_stays_different_becomes_usual() -> None:
    drift = Drift()
    changes(drift, usual(100))
    rng = np.random.default_rng(5)
    other = [look(rng.normal(70, 1), rng.normal(60, 4)) for _ in range(ADOPTED_AFTER + 50)]
    told = [change for one in other if (change := drift.add(one)) is not None]
    assert [(change.alarm, change.adopted) for change in told] == [(True, False), (False, True)]
    assert [alarm for _, alarm in changes(drift, usual(20))] == [True]


def test_another_model_begins_anew() -> None:
    drift = Drift()
    changes(drift, usual(100))
    changes(drift, [look(50)] * 10)
    assert drift.alarm
    change = drift.add(look(50, model="other"))
    assert change is not None and (change.alarm, change.adopted) == (False, True)
    assert changes(drift, [look(50, model="other")] * 20) == []


def test_a_share_that_never_varied_may_vary_a_little() -> None:
    drift = Drift()
    changes(drift, [look(100.0, 20.0)] * 100)
    assert changes(drift, [look(99.8, 20.4)] * 20) == []


def test_what_is_told_names_what_differs() -> None:
    drift = Drift()
    changes(drift, usual(100))
    changes(drift, [look(80)] * 10)
    assert describe(drift.measures).startswith(
        "the last images differ from those before: confidence 80.0 % (before "
    )


def test_planes_of_an_image_are_added_up() -> None:
    one = segmentation(1, (0, 30, 10), 90.0)
    found = look_of([one, replace(one, label_pixel_counts=(20, 100, 0), mean_confidence=50.0)])
    assert found is not None
    assert found.values == {"unlabelled": 12.5, "dark": 81.25, "bright": 6.25, "confidence": 60.0}
    assert look_of([replace(one, state=SegmentationState.FAILED)]) is None


# ---------------------------------------------------------------- real images


class Microscope:
    """Takes crops of the real images of a set, and segments them with a model trained on its strokes."""

    def __init__(self, data: Path, lane: CpuLane, model: Path, crop_px: int) -> None:
        about = json.loads((data / "dataset.json").read_text())
        self._images = [_planes(data / entry["image"]) for entry in about["images"]]
        self._rng = np.random.default_rng(0)
        self._lane, self._path, self._crop_px = lane, model, crop_px
        bundle.save(_trained(data, about), model)
        self._card = lane.load(model)

    def look(self, change: Callable[[Planes], Planes]) -> Look:
        """Look at some place of some image, turned over somehow, the lamp within 2 %."""
        pixels = self._images[self._rng.integers(len(self._images))]
        size = self._crop_px
        y, x = (self._rng.integers(edge - size + 1) for edge in pixels.shape[1:])
        pixels = pixels[:, y : y + size, x : x + size][:, :: self._rng.choice([-1, 1])]
        pixels = change(lamp(self._rng.normal(1, 0.02))(pixels))
        result = self._lane.segment_array(self._path, np.ascontiguousarray(pixels), SegmentOptions())
        tally = Tally(len(self._card.classes))
        tally.add(result)
        found = look_of(
            [
                replace(
                    segmentation(1, tally.label_pixel_counts, tally.mean_confidence),
                    classes=self._card.classes,
                    model_digest=self._card.digest,
                )
            ]
        )
        assert found is not None
        return found


def lamp(share: float) -> Callable[[Planes], Planes]:
    return lambda pixels: _as(pixels.astype(float) * share, pixels.dtype)


def out_of_focus(sigma_px: float) -> Callable[[Planes], Planes]:
    return lambda pixels: _as(
        ndimage.gaussian_filter(pixels.astype(float), (0, sigma_px, sigma_px)), pixels.dtype
    )


def stain(strength: float) -> Callable[[Planes], Planes]:
    """More or less of a purple dye: it takes away green light most."""

    def changed(pixels: Planes) -> Planes:
        density = -np.log(np.maximum(pixels, 1) / 255)
        return _as(255 * np.exp(-density * np.array([1, strength, 1])[:, None, None]), pixels.dtype)

    return changed


def as_it_is(pixels: Planes) -> Planes:
    return pixels


@pytest.fixture(scope="module")
def lane() -> Iterator[CpuLane]:
    made = CpuLane(1)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("name", "crop_px", "cases"),
    [
        ("nuclei_bbbc039", 128, {"focus": out_of_focus(10)}),
        ("sandstone_xrm", 128, {"lamp": lamp(0.5)}),
        ("tissue_rgb", 128, {"stain": stain(1.6)}),
    ],
)
def test_lamp_focus_and_stain_raise_the_alarm_and_ordinary_images_do_not(
    shared_data: Path,
    tmp_path: Path,
    lane: CpuLane,
    name: str,
    crop_px: int,
    cases: dict[str, Callable[[Planes], Planes]],
) -> None:
    microscope = Microscope(shared_data / name, lane, tmp_path / "m.segmodel", crop_px)
    drift = Drift()
    for _ in range(ENOUGH + 24):
        assert drift.add(microscope.look(as_it_is)) is None, drift.measures
    for what, change in cases.items():
        told = [drift.add(microscope.look(change)) for _ in range(2 * RECENT)]
        begun = [one for one in told if one is not None]
        assert [one.alarm for one in begun] == [True], (what, drift.measures)
        told = [drift.add(microscope.look(as_it_is)) for _ in range(3 * RECENT)]
        assert [one.alarm for one in told if one is not None] == [False], (what, drift.measures)


def _planes(path: Path) -> Planes:
    pixels = tifffile.imread(path)
    return np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[None]


def _as(values: npt.NDArray[np.float64], kind: np.dtype[np.generic]) -> Planes:
    top = 4095 if kind == np.uint16 else 255
    return np.clip(np.rint(values), 0, top).astype(kind)


# ---------------------------------------------------------------- over a restart


def segmentation(number: int, counts: tuple[int, ...], confidence: float) -> Segmentation:
    return Segmentation(
        watch="hot",
        source=b"%d.tif" % number,
        source_path=b"/hot/%d.tif" % number,
        state=SegmentationState.SUCCEEDED,
        classes=(ClassInfo(1, "dark", "#000000"), ClassInfo(2, "bright", "#FFFFFF")),
        label_pixel_counts=counts,
        mean_confidence=confidence,
        model_digest="d",
    )


def recorded(journal: Journal, alarm: DriftAlarm, numbers: range, confidence: float) -> list[Segmentation]:
    """Images that end one after the other, as the pipeline has them judged and recorded."""
    found = []
    rng = np.random.default_rng(numbers.start)
    outcomes = []
    for number in numbers:
        (one,) = alarm.judge([segmentation(number, (0, 900, 100), rng.normal(confidence, 0.5))])
        stamp = FileStamp(1, number, number, 1, 1)
        outcomes.append((ImageOutcome("hot", one.source, stamp, ImageState.DONE, "d"), [one]))
        found.append(one)
    journal.record_many(outcomes)
    return found


async def test_a_restart_remembers_what_was_usual_and_that_there_is_an_alarm(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    alarm = DriftAlarm("hot", journal)
    await alarm.remember()
    recorded(journal, alarm, range(2 * HISTORY), 90)
    begun = [one.drift for one in recorded(journal, alarm, range(1000, 1020), 80) if one.drift]
    assert [change.alarm for change in begun] == [True]
    assert alarm.on and "confidence" in alarm.warning
    journal.close()

    journal = Journal.open(tmp_path)
    again = DriftAlarm("hot", journal)
    await again.remember()
    assert again.on
    assert again.measures[0].name == "confidence"
    assert again.measures[0].value == pytest.approx(alarm.measures[0].value)
    last = journal.events(2 * HISTORY, 100)
    assert sum(event.segmentation.drift is not None for event in last) == 1
    ended = [one.drift for one in recorded(journal, again, range(2000, 2030), 90) if one.drift]
    assert [change.alarm for change in ended] == [False]
    off = DriftAlarm("hot", journal)
    off.enabled = False
    await off.remember()
    assert recorded(journal, off, range(3000, 3030), 50)[-1].drift is None
    assert (off.on, off.measures, off.warning) == (False, (), "")
    journal.close()


def test_what_changed_is_kept_as_it_was() -> None:
    drift = Drift()
    changes(drift, usual(100))
    change = next(change for _ in range(10) if (change := drift.add(look(70))) is not None)
    one = replace(segmentation(1, (0, 1, 1), 50.0), drift=change)
    assert decode_segmentation(encode_segmentation(one)) == one
    told = segmentation_message(one).drift
    assert (told.alarm, told.measures[0].name, told.measures[0].value) == (
        True,
        "confidence",
        change.measures[0].value,
    )
    assert told.measures[0].usual_value == pytest.approx(90, abs=0.5)
    assert not segmentation_message(segmentation(1, (0, 1, 1), 50.0)).HasField("drift")


def _trained(data: Path, about: dict[str, Any]) -> bundle.Model:
    """A model of the strokes on a set's images for training."""
    feature_set = feature_sets()["basic25"]
    entries = [entry for entry in about["images"] if entry["split"] == "train"]
    samples = [
        training.collect(
            _planes(data / entry["image"]), tifffile.imread(data / entry["scribble"]), feature_set, "none"
        )
        for entry in entries[:2]
    ]
    features = np.concatenate([one.features for one in samples])
    labels = np.concatenate([one.labels for one in samples])
    count = int(labels.max())
    names = [str(number) for number in range(features.shape[1])]
    made = training.train(training.Samples(features, labels), count, names)
    pixels = _planes(data / entries[0]["image"])
    channels = tuple(f"channel {number + 1}" for number in range(len(pixels)))
    card = replace(
        tiny_model.CARD,
        classes=tuple(ClassInfo(value, f"class {value}", "#000000") for value in range(1, count + 1)),
        channel_count=len(channels),
        channels=channels,
        pixel_type=PixelType(pixels.dtype.name),
        scores=made.scores,
        library_versions=made.library_versions,
    )
    return bundle.seal(card, made.forest)
