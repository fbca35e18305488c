from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from segmentd.records import FileStamp, Segmentation, SegmentationState
from segmentd.results import check as check_module
from segmentd.results.check import Check, check_results
from segmentd.results.images import ImageOutcome, ImageState
from segmentd.results.journal import Journal
from segmentd.results.published import PublishedFile, ResultFaults


def publish(journal: Journal, path: Path, version: int = 1) -> Path:
    """Write a result and record it as the labels of an image; return its path."""
    content = f"{path.name} version {version}".encode()
    path.write_bytes(content)
    file = PublishedFile("labels", bytes(path), hashlib.sha256(content).hexdigest(), len(content))
    image = os.fsencode(path.stem)
    record = Segmentation("w", image, b"/in/" + image, SegmentationState.SUCCEEDED, version=version)
    stamp = FileStamp(1, version, 3, 4)
    outcome = ImageOutcome("w", image, stamp, ImageState.DONE, str(version), version, files=(file,))
    journal.record(outcome, [record])
    return path


async def test_missing_and_damaged_results_are_told_until_they_are_restored(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_module, "_AT_ONCE", 2)
    good, gone, cut, flipped, folder = (publish(journal, tmp_path / f"{name}.tif") for name in "abcde")
    assert await check_results(journal) == Check(check_module.DIGEST_BYTES - 5 * 15, 5, 5)
    assert journal.result_faults("w") == ResultFaults()
    whole = flipped.read_bytes()
    gone.unlink()
    cut.write_bytes(whole[:-1])
    flipped.write_bytes(whole[:-1] + b"?")
    folder.unlink()
    folder.mkdir()
    for _ in range(2):
        check = await check_results(journal)
        assert (check.files, check.missing, check.damaged) == (5, 1, 3)
        faults = journal.result_faults("w")
        assert (faults.missing, faults.damaged) == (1, 3)
        assert faults.example == bytes(cut)
        assert journal.result_faults("another") == ResultFaults()
    gone.write_bytes(good.read_bytes().replace(b"a.tif", b"b.tif"))
    publish(journal, cut, version=2)
    assert journal.result_faults("w").damaged == 2, "a new version is another file"
    flipped.write_bytes(whole)
    folder.rmdir()
    publish(journal, folder, version=2)
    await check_results(journal)
    assert journal.result_faults("w") == ResultFaults()


async def test_digests_are_taken_of_the_newest_as_far_as_the_budget_reaches(
    journal: Journal, tmp_path: Path
) -> None:
    old, new = publish(journal, tmp_path / "a.tif"), publish(journal, tmp_path / "b.tif")
    for path in (old, new):
        path.write_bytes(b"?" * path.stat().st_size)
    check = Check(budget_bytes=new.stat().st_size)
    changes = check.look([file for _, file in journal.newest_results(10)])
    assert [file.path for file, _ in changes] == [bytes(new)]
    assert (check.files, check.digests, check.budget_bytes) == (2, 1, 0)


def test_results_of_events_that_are_not_kept_are_forgotten(journal: Journal, tmp_path: Path) -> None:
    for name in "abc":
        publish(journal, tmp_path / f"{name}.tif")
    journal.retain(max_events=2)
    numbers = [file.number for _, file in journal.newest_results(10)]
    assert numbers == [3, 2]


def test_results_in_another_format_take_the_place_of_the_old_ones(journal: Journal, tmp_path: Path) -> None:
    publish(journal, tmp_path / "b.tif")
    publish(journal, tmp_path / "a.tif").unlink()
    new = publish(journal, tmp_path / "a.czi", version=2)
    assert [file.path for _, file in journal.newest_results(10)] == [bytes(new), bytes(tmp_path / "b.tif")]
    assert [file.path for file in journal.results_of("w", b"a")] == [bytes(new)]
    assert journal.has_results("w", b"a")
    new.unlink()
    assert not journal.has_results("w", b"a")
