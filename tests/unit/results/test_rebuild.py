"""A journal from result files: everything that they say, and nothing that they do not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segmentd.errors import SegmentdError
from segmentd.records import ClassInfo, FrameInfo, PixelType, SegmentationState, WatchSpec
from segmentd.results.journal import Journal
from segmentd.results.journal_schema import FILE_NAME
from segmentd.results.names import result_name, source_name, split_result_name
from segmentd.results.rebuild import find_results, put_in_place, rebuild_image
from segmentd.results.store import ResultWriter

CLASSES = (ClassInfo(1, "matrix & more", "#E69F00"), ClassInfo(2, "pore", "#56B4E9"))
FRAME = FrameInfo("tiff", PixelType.UINT8, 300, 40, ("grey",), size_t=2, scenes=2)
RANDOM = np.random.default_rng(0)


def write(results: Path, source: bytes, *outputs: str, digest: str = "aa", frame: FrameInfo = FRAME) -> None:
    """Write results of random pixels."""
    outputs = outputs or ("labels", "confidence")
    shape = (frame.height, frame.width)
    with ResultWriter(results, source, outputs, frame, CLASSES, digest, "model") as writer:
        for index in frame.planes():
            labels = RANDOM.integers(0, 3, shape, np.uint8)
            writer.write_plane(index, labels, labels * np.uint8(40), labels[np.newaxis])
        writer.commit()


@pytest.fixture
def spec(tmp_path: Path) -> WatchSpec:
    return WatchSpec("w", tmp_path / "in", "m", tmp_path / "out")


def test_an_image_is_as_its_files_say(spec: WatchSpec) -> None:
    write(spec.results, b"sub/a\xff.tif")
    (found,) = find_results(spec.results)
    outcome, planes = rebuild_image(spec, found, {"model": "nuclei"})
    assert (outcome.path, outcome.stamp, outcome.content_digest) == (b"sub/a\xff.tif", None, "aa")
    assert [(plane.plane, plane.page) for plane in planes] == [
        (index, page) for page, index in enumerate(FRAME.planes())
    ]
    first = planes[0]
    assert first.state is SegmentationState.SUCCEEDED
    assert (first.source_path, first.plane_count) == (bytes(spec.folder) + b"/sub/a\xff.tif", 4)
    assert (first.height, first.width, first.classes) == (300, 40, CLASSES)
    assert (first.model, first.model_digest) == ("nuclei", "model")
    for plane in planes:
        assert sum(plane.label_pixel_counts) == 300 * 40
        ones, twos = plane.label_pixel_counts[1:]
        assert plane.mean_confidence == pytest.approx((40 * ones + 80 * twos) / (300 * 40))
    assert len({plane.label_pixel_counts for plane in planes}) == 4
    assert {file.kind for file in outcome.files} == {"labels", "confidence"}
    for file in outcome.files:
        assert (first.files[file.kind], first.digests[file.kind]) == (os.fsdecode(file.path), file.digest)


def test_an_image_that_a_network_made_has_neither_labels_nor_confidence(spec: WatchSpec) -> None:
    frame = FrameInfo("tiff", PixelType.UINT8, 20, 30, ("grey",))
    with ResultWriter(spec.results, b"a", ("image",), frame, (), "aa", "model") as writer:
        plane = np.zeros((20, 30), np.uint8)
        writer.write_band(next(frame.planes()), 0, plane, plane, plane[np.newaxis], plane[np.newaxis])
        writer.commit()
    (found,) = find_results(spec.results)
    outcome, (only,) = rebuild_image(spec, found, {})
    assert [file.kind for file in outcome.files] == ["image"]
    assert (only.label_pixel_counts, only.mean_confidence) == ((), 0)


@pytest.mark.parametrize("name", ["x" * 240 + ".tif", "µ" * 120 + ".tif", "x" * 251 + ".tif"])
def test_names_that_were_shortened_are_found_again(spec: WatchSpec, name: str) -> None:
    write(spec.results, name.encode())
    (found,) = find_results(spec.results)
    assert rebuild_image(spec, found, {})[0].path == name.encode()


def test_a_shortened_name_that_is_no_text_cannot_be_told() -> None:
    name = b"\xff" * 250
    stem, kind = split_result_name(result_name(name, "labels")) or (b"", "")
    assert kind == "labels"
    assert source_name(stem, name.decode("utf-8", "replace")) is None


def test_results_come_in_the_order_in_which_they_were_made_and_other_files_are_left_out(
    spec: WatchSpec,
) -> None:
    for age, name in enumerate((b"b", b"c", b"a")):
        write(spec.results, name, frame=FrameInfo("tiff", PixelType.UINT8, 5, 5, ("grey",)))
        for path in spec.results.glob(f"{name.decode()}.*"):
            os.utime(path, (age, age))
    (spec.results / "notes.txt").write_text("mine")
    (spec.results / ".d.labels.ome.tif.segmentd-01234567.part").write_bytes(b"half")
    (spec.results / ".labels.ome.tif").write_bytes(b"no name")
    assert [found.stem for found in find_results(spec.results)] == [b"b", b"c", b"a"]
    assert find_results(spec.results / "missing") == []


def unlink(results: Path) -> None:
    (results / "a.confidence.ome.tif").unlink()


def cut(results: Path) -> None:
    path = results / "a.labels.ome.tif"
    path.write_bytes(path.read_bytes()[:-700])


def mix(results: Path) -> None:
    write(results / "other", b"a", digest="bb")
    (results / "other" / "a.labels.ome.tif").replace(results / "a.labels.ome.tif")


def anonymous(results: Path) -> None:
    write(results, b"a", digest="")


def other_file(results: Path) -> None:
    (results / "a.labels.ome.tif").write_bytes(b"this is no TIFF file")


@pytest.mark.parametrize("damage", [unlink, cut, mix, anonymous, other_file])
def test_results_that_are_not_whole_are_refused(spec: WatchSpec, damage: Callable[[Path], None]) -> None:
    write(spec.results, b"a")
    damage(spec.results)
    found = next(found for found in find_results(spec.results) if not found.folders)
    with pytest.raises(SegmentdError) as caught:
        rebuild_image(spec, found, {})
    assert caught.value.reason == "RESULT_UNAVAILABLE"
    assert str(spec.results / "a.") in caught.value.message


def test_the_old_journal_is_kept_and_there_is_always_one(tmp_path: Path) -> None:
    old = tmp_path / FILE_NAME
    for number in (1, 2):
        old.write_bytes(b"damaged")
        old.with_name(f"{FILE_NAME}-wal").write_bytes(b"log")
        new = Journal.open(tmp_path / "rebuilding")
        new.close()
        aside = put_in_place(tmp_path / "rebuilding", tmp_path)
        assert aside == tmp_path / f"{FILE_NAME}.old-{number}"
        assert aside.read_bytes() == b"damaged"
        assert aside.with_name(f"{aside.name}-wal").read_bytes() == b"log"
        journal = Journal.open(tmp_path)
        assert journal.id == new.id
        journal.close()
    assert not (tmp_path / "rebuilding").exists()
