"""Results that are folders live as those that are files do: replaced, cleaned, linked, checked, rebuilt."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from segmentd.imagefile import Region, read_region
from segmentd.records import ClassInfo, FrameInfo, PixelType, PlaneIndex, ResultForm, WatchSpec
from segmentd.results.check import Check
from segmentd.results.contents import digest_of, stamp_of
from segmentd.results.durable import clean_temporaries
from segmentd.results.links import link_results
from segmentd.results.published import PublishedFile, ResultFault
from segmentd.results.rebuild import find_results, rebuild_image
from segmentd.results.store import ResultFile, ResultWriter
from segmentd.results.superseded import remove_superseded

CLASSES = (ClassInfo(1, "background", "#000000"), ClassInfo(2, "nucleus", "#FF0000"))
FRAME = FrameInfo("PNG", PixelType.UINT8, 20, 30, ("grey",))
KINDS = ("labels", "confidence", "thumbnail")
NAMES = ["a.tif.confidence.ome.zarr", "a.tif.labels.ome.zarr", "a.tif.thumbnail.png"]


def open_writer(folder: Path, container: str = "ome-zarr") -> ResultWriter:
    form = ResultForm(container=container)
    return ResultWriter(folder, b"a.tif", KINDS, FRAME, CLASSES, "ab", "cd", form=form)


def write(folder: Path, value: int = 1, container: str = "ome-zarr") -> dict[str, ResultFile]:
    plane = np.full((20, 30), value, np.uint8)
    with open_writer(folder, container) as writer:
        writer.write_plane(PlaneIndex(), plane, plane, plane[np.newaxis])
        return writer.commit()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def published(files: dict[str, ResultFile]) -> list[PublishedFile]:
    return [
        PublishedFile(kind, bytes(file.path), file.sha256, stamp_of(bytes(file.path)).size_bytes)
        for kind, file in files.items()
    ]


def test_the_next_version_replaces_the_one_before(tmp_path: Path) -> None:
    first, second = write(tmp_path, 1), write(tmp_path, 2)
    assert names(tmp_path) == NAMES
    for kind in ("labels", "confidence"):
        path = second[kind].path
        assert first[kind].sha256 != second[kind].sha256 == digest_of(bytes(path))
        assert (read_region(path, 0, Region(0, 0, 20, 30)) == 2).all()


def test_nothing_is_left_of_what_was_not_committed(tmp_path: Path) -> None:
    with open_writer(tmp_path):
        assert len(names(tmp_path)) == 3
    assert names(tmp_path) == []


def test_folders_of_killed_processes_are_cleaned_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    write(tmp_path)
    dead, alive = (tmp_path / f".a.segmentd-0123456{end}.part" for end in "78")
    (dead / "0" / "c").mkdir(parents=True)
    (dead / "0" / "c" / "0").write_bytes(b"half")
    alive.mkdir()
    descriptor = os.open(alive, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert clean_temporaries(tmp_path) == 1
    finally:
        os.close(descriptor)
    assert names(tmp_path) == [alive.name, *NAMES]
    assert clean_temporaries(tmp_path) == 1
    assert names(tmp_path) == NAMES


@pytest.mark.parametrize("links", [True, False])
def test_a_renamed_image_has_its_results_under_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    files = published(write(tmp_path))  # which needs no links either
    for _ in range(2):
        linked = link_results(tmp_path, b"sub/b.tif", files)
        assert [(file.kind, file.digest) for file in linked] == [(file.kind, file.digest) for file in files]
        assert names(tmp_path / "sub") == [name.replace("a.tif", "b.tif") for name in NAMES]
    for file in linked:
        assert digest_of(file.path) == file.digest
    chunk = Path("b.tif.labels.ome.zarr", "0", "zarr.json")
    assert (tmp_path / "sub" / chunk).stat().st_nlink == (2 if links else 1)
    write(tmp_path, 2)
    assert digest_of(linked[0].path) == linked[0].digest
    assert link_results(tmp_path, b"c.tif", files[:2]) == [], "another version has their names"
    shutil.rmtree(tmp_path / "sub")
    assert link_results(tmp_path, b"c.tif", linked) == []


def test_results_in_another_format_are_replaced_where_they_are_results(tmp_path: Path) -> None:
    old = published(write(tmp_path / "out", 1, "ome-tiff"))
    elsewhere = published(write(tmp_path / "elsewhere", 1, "ome-tiff"))
    new = published(write(tmp_path / "out", 2))
    remove_superseded(tmp_path / "out", [*old, *elsewhere], new)
    assert names(tmp_path / "out") == NAMES
    assert len(names(tmp_path / "elsewhere")) == 3
    remove_superseded(tmp_path / "out", new, published(write(tmp_path / "out", 3, "ome-tiff")))
    assert names(tmp_path / "out") == [name.replace(".zarr", ".tif") for name in NAMES]


def test_missing_and_damaged_folders_are_found(tmp_path: Path) -> None:
    files = published(write(tmp_path))
    assert Check().look(files) == []
    labels, confidence, _ = (Path(os.fsdecode(file.path)) for file in files)
    metadata = labels / "zarr.json"
    metadata.write_bytes(metadata.read_bytes().replace(b"nucleus", b"nucleuS"))
    shutil.rmtree(confidence)
    assert [fault for _, fault in Check().look(files)] == [ResultFault.DAMAGED, ResultFault.MISSING]
    metadata.unlink()
    assert Check(budget_bytes=0).look(files)[0][1] is ResultFault.DAMAGED, "the size tells"


def test_a_journal_is_rebuilt_from_the_newest_format(tmp_path: Path) -> None:
    spec = WatchSpec("w", tmp_path / "in", "m", tmp_path / "out", outputs=KINDS)
    for container in ("ome-tiff", "ome-zarr"):
        files = write(spec.results, 2, container)
    for old in spec.results.glob("*.tif"):
        os.utime(old, (1, 1))
    (found,) = find_results(spec.results)
    outcome, (record,) = rebuild_image(spec, found, {"cd": "nuclei"})
    assert {file.kind: file.digest for file in outcome.files} == {
        kind: file.sha256 for kind, file in files.items()
    }
    assert (outcome.path, outcome.content_digest, record.model) == (b"a.tif", "ab", "nuclei")
    assert (record.label_pixel_counts, record.mean_confidence) == ((0, 0, 600), 2)
    assert record.classes == CLASSES
