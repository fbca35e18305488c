from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.errors import Reason, SegmentdError
from segmentd.records import Fault, FilePart, FileStamp, PlaneIndex, Segmentation, SegmentationState
from segmentd.results.images import ImageOutcome, ImageState
from segmentd.results.journal import Journal

STAMP = FileStamp(size_bytes=10, mtime_ns=-5, inode=2**64 - 1, device=7)
DONE = ImageOutcome("w", b"\xff.tif", STAMP, ImageState.DONE, "ab", version=1)


def planes(count: int, watch: str = "w", source: bytes = b"a.tif") -> list[Segmentation]:
    return [
        Segmentation(watch, source, b"/in/" + source, SegmentationState.SUCCEEDED, plane=PlaneIndex(z=z))
        for z in range(count)
    ]


def test_a_recorded_image_has_one_numbered_event_for_each_plane(journal: Journal) -> None:
    first, second = planes(2), planes(1)
    assert [event.number for event in journal.record(DONE, first)] == [1, 2]
    assert [event.number for event in journal.record(replace(DONE, path=b"b"), second)] == [3]
    events = journal.events(0, 10)
    assert [event.number for event in events] == [1, 2, 3]
    assert [event.segmentation for event in events] == first + second
    assert journal.event(2) == events[1]
    assert journal.event(0) is None
    assert journal.event(4) is None
    assert (journal.oldest_number(), journal.last_number()) == (1, 3)


def test_a_failed_image_is_told_and_known(journal: Journal) -> None:
    fault = Fault("IMAGE_CORRUPT", "strip 3 is missing", {"strip": "3"})
    failed = Segmentation("w", b"a", b"/in/a", SegmentationState.FAILED, fault=fault)
    journal.record(ImageOutcome("w", b"a", STAMP, ImageState.FAILED, fault=fault, tries=3), [failed])
    assert journal.events(0, 1)[0].segmentation.fault == fault
    assert journal.known("w", b"a", STAMP)
    assert journal.counts("w")[ImageState.FAILED] == 1


def test_an_ignored_image_is_known_and_a_vanished_one_is_done_when_it_comes_back(journal: Journal) -> None:
    journal.record(ImageOutcome("w", b"old", STAMP, ImageState.IGNORED))
    journal.record(DONE, planes(1))
    journal.record(replace(DONE, state=ImageState.VANISHED))
    assert journal.known("w", b"old", STAMP)
    assert not journal.known("w", DONE.path, STAMP)
    assert journal.last_number() == 1
    assert journal.next_version("w", b"old", "ab") == 1
    assert journal.next_version("w", DONE.path, "new") == 2


def test_known_means_this_watch_path_and_stamp_also_after_a_restart(tmp_path: Path) -> None:
    files = [
        (DONE.path, STAMP),
        (DONE.path, replace(STAMP, mtime_ns=-4)),
        (DONE.path, replace(STAMP, inode=1)),
        (b"other", STAMP),
    ]
    journal = Journal.open(tmp_path)
    journal.record(DONE, planes(1))
    journal.record(ImageOutcome("w", b"gone", STAMP, ImageState.VANISHED))
    for _ in range(2):
        assert [journal.known("w", *file) for file in files] == [True, False, False, False]
        assert not journal.known("v", DONE.path, STAMP)
        assert not journal.known("w", b"gone", STAMP)
        journal.close()
        journal = Journal.open(tmp_path)
    journal.close()


def test_new_content_is_a_new_version_and_the_same_content_is_not(journal: Journal) -> None:
    assert journal.next_version("w", DONE.path, "ab") == 1
    journal.record(DONE, planes(1))
    assert journal.next_version("w", DONE.path, "ab") == 1
    assert journal.next_version("w", DONE.path, "cd") == 2
    assert journal.next_version("w", DONE.path, "") == 2
    journal.record(replace(DONE, content_digest="cd", version=2), planes(1))
    assert journal.next_version("w", DONE.path, "ab") == 3


def test_a_touched_image_gets_its_new_stamp_and_no_event(journal: Journal) -> None:
    touched = replace(STAMP, mtime_ns=99)
    journal.record(DONE, planes(1))
    assert not journal.same_content("w", DONE.path, "cd", touched)
    assert not journal.same_content("w", b"other", "ab", touched)
    assert not journal.known("w", DONE.path, touched)
    assert journal.same_content("w", DONE.path, "ab", touched)
    assert journal.known("w", DONE.path, touched)
    assert not journal.known("w", DONE.path, STAMP)
    assert journal.last_number() == 1


def test_a_touched_image_that_failed_is_not_done(journal: Journal) -> None:
    journal.record(replace(DONE, state=ImageState.FAILED), planes(1))
    assert not journal.same_content("w", DONE.path, "ab", replace(STAMP, mtime_ns=99))


def test_a_failed_image_is_tried_again_when_anything_about_its_file_changed(tmp_path: Path) -> None:
    fault = Fault(Reason.IMAGE_CORRUPT, "strip 3 is missing")
    stamp, mended = replace(STAMP, ctime_ns=1), replace(STAMP, ctime_ns=2)
    failed = replace(DONE, stamp=stamp, state=ImageState.FAILED, fault=fault)
    journal = Journal.open(tmp_path)
    journal.record(failed, planes(1))
    journal.record(replace(DONE, path=b"done", stamp=stamp), planes(1))
    for _ in range(2):
        assert journal.known("w", DONE.path, stamp)
        assert not journal.known("w", DONE.path, mended)
        assert journal.known("w", b"done", mended), "permissions of what is done do not matter"
        journal.close()
        journal = Journal.open(tmp_path)
    assert not journal.failed_again(replace(failed, stamp=mended, fault=replace(fault, message="strip 4")))
    assert not journal.failed_again(replace(failed, stamp=replace(mended, size_bytes=11)))
    assert journal.failed_again(replace(failed, stamp=mended)), "the same failure is not told twice"
    assert journal.known("w", DONE.path, mended)
    assert journal.last_number() == 2
    journal.close()


@pytest.mark.parametrize("reason", [Reason.IMAGE_UNREADABLE, Reason.IMAGE_NEEDS_EXTRA])
def test_a_file_that_could_not_be_read_is_tried_again_by_the_next_start(
    tmp_path: Path, reason: Reason
) -> None:
    fault = Fault(reason, "no permission")
    failed = replace(DONE, state=ImageState.FAILED, fault=fault)
    journal = Journal.open(tmp_path)
    journal.record(failed, planes(1))
    assert journal.known("w", DONE.path, STAMP)
    journal.close()
    journal = Journal.open(tmp_path)
    assert not journal.known("w", DONE.path, STAMP)
    assert journal.failed_again(failed)
    assert journal.known("w", DONE.path, STAMP)
    journal.close()


def test_the_first_look_is_finished_once(tmp_path: Path) -> None:
    for is_new in (True, False):
        journal = Journal.open(tmp_path)
        assert journal.is_new("w") is is_new
        assert journal.is_new("v")
        journal.finish_first_look("w")
        journal.close()


def test_a_renamed_image_leaves_its_old_name(journal: Journal) -> None:
    journal.record(DONE, planes(1))
    (known,) = journal.find_by_file("w", replace(STAMP, mtime_ns=7))
    assert (known.path, known.state, known.content_digest) == (DONE.path, ImageState.DONE, "ab")
    assert journal.find_by_file("v", STAMP) == journal.find_by_file("w", replace(STAMP, device=8)) == []
    journal.record(replace(DONE, path=b"new", renamed_from=DONE.path), planes(1))
    assert journal.known("w", b"new", STAMP)
    assert journal.is_done("w", b"new", STAMP)
    assert not journal.known("w", DONE.path, STAMP)
    assert [image.path for image in journal.find_by_file("w", STAMP)] == [b"new"]
    counts = journal.counts("w")
    assert (counts[ImageState.DONE], counts[ImageState.VANISHED]) == (1, 1)
    assert journal.next_version("w", DONE.path, "cd") == 2


def test_an_image_without_a_stamp_is_looked_at_and_not_published_again(journal: Journal) -> None:
    journal.record(replace(DONE, stamp=None), planes(1))
    assert not journal.known("w", DONE.path, STAMP)
    assert journal.next_version("w", DONE.path, "") == 2
    assert journal.same_content("w", DONE.path, "ab", STAMP)
    assert journal.known("w", DONE.path, STAMP)


def test_counts_name_every_state(journal: Journal) -> None:
    journal.record_many([(replace(DONE, path=bytes([i])), []) for i in range(3)])
    journal.record(replace(DONE, watch="v"))
    journal.record(replace(DONE, path=b"\1", state=ImageState.FAILED))
    assert journal.counts("w") == {
        ImageState.DONE: 2,
        ImageState.FAILED: 1,
        ImageState.VANISHED: 0,
        ImageState.IGNORED: 0,
        ImageState.PART: 0,
    }
    assert sum(journal.counts("nobody").values()) == 0


def test_pages_list_events_from_either_end(journal: Journal) -> None:
    for watch in "wvwvw":
        journal.record(replace(DONE, watch=watch), planes(1, watch))

    def numbers(**options: Any) -> list[list[int]]:
        pages, token = [], None
        while True:
            page = journal.page(2, token, **options)
            pages.append([event.number for event in page.events])
            token = page.next_token
            if token is None:
                return pages

    assert numbers() == [[5, 4], [3, 2], [1]]
    assert numbers(newest_first=False) == [[1, 2], [3, 4], [5]]
    assert numbers(watch="w") == [[5, 3], [1]]
    assert numbers(watch="v", newest_first=False) == [[2, 4]]
    assert numbers(watch="nobody") == [[]]


def test_retention_by_number_keeps_the_numbering_and_the_images(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    journal.record(DONE, planes(5))
    assert journal.retain(max_events=2) == 3
    assert journal.retain(max_events=2) == 0
    assert [event.number for event in journal.events(0, 9)] == [4, 5]
    assert journal.retain(max_events=0) == 2
    assert (journal.oldest_number(), journal.last_number()) == (6, 5)
    journal.close()
    journal = Journal.open(tmp_path)
    assert journal.known("w", DONE.path, STAMP)
    assert [event.number for event in journal.record(replace(DONE, path=b"b"), planes(1))] == [6]
    journal.close()


def test_retention_by_age(tmp_path: Path) -> None:
    now = [0.0]
    journal = Journal.open(tmp_path, clock=lambda: now[0])
    for day in range(4):
        now[0] = day * 86_400.0
        journal.record(DONE, planes(1))
    assert journal.retain(max_age_days=1.5) == 2
    assert journal.oldest_number() == 3
    now[0] = 1e9
    assert journal.retain(max_age_days=1.5, max_events=10) == 2
    journal.close()


@given(
    st.lists(
        st.one_of(
            st.lists(st.integers(0, 4), max_size=4), st.integers(0, 5), st.just("reopen"), st.just("fail")
        ),
        max_size=12,
    )
)
def test_numbers_have_no_gaps_whatever_happens(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal.open(Path(folder))
        count = kept_from = 0
        for index, step in enumerate(steps):
            if step == "reopen":
                journal.close()
                journal = Journal.open(Path(folder))
            elif step == "fail":
                with pytest.raises(SegmentdError):
                    journal.record(replace(DONE, path=object()), planes(1))  # type: ignore[arg-type]
            elif isinstance(step, int):
                journal.retain(max_events=step)
                kept_from = max(kept_from, count - step)
            else:
                images = [(replace(DONE, path=b"%d/%d" % (index, i)), planes(n)) for i, n in enumerate(step)]
                recorded = [event.number for events in journal.record_many(images) for event in events]
                assert recorded == list(range(count + 1, count + sum(step) + 1))
                count += sum(step)
        assert [event.number for event in journal.events(0, 99)] == list(range(kept_from + 1, count + 1))
        assert (journal.oldest_number(), journal.last_number()) == (kept_from + 1, count)
        journal.close()


def test_writers_that_wait_share_one_commit(journal: Journal) -> None:
    statements: list[str] = []
    journal._writer.set_trace_callback(statements.append)

    def write(index: int) -> list[int]:
        return [event.number for event in journal.record(replace(DONE, path=b"%d" % index), planes(3))]

    journal._write_lock.acquire()  # as if a commit were under way
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(write, index) for index in range(8)]
        while len(journal._waiting) < 8:
            time.sleep(0.001)
        journal._write_lock.release()
        numbers = [future.result() for future in futures]
    assert sorted(number for three in numbers for number in three) == list(range(1, 25))
    assert all(three == list(range(three[0], three[0] + 3)) for three in numbers)
    assert statements.count("COMMIT") == 1


def test_after_a_disk_error_nothing_more_is_taken(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("segmentd.results.images.insert_outcome", fail)
    for words in ("disk I/O error", "restart the daemon"):
        with pytest.raises(SegmentdError, match=words) as caught:
            journal.record(DONE, planes(1))
        assert caught.value.reason == Reason.JOURNAL_NOT_WRITABLE
        monkeypatch.undo()
    assert not journal.known("w", DONE.path, STAMP)
    assert journal.last_number() == 0


def test_a_full_disk_is_told_and_passes(journal: Journal) -> None:
    pages = journal._writer.execute("PRAGMA page_count").fetchone()[0]
    journal._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(SegmentdError) as caught:
        journal.record(DONE, planes(200))
    assert caught.value.reason == Reason.DISK_FULL
    assert journal.last_number() == 0
    journal._writer.execute("PRAGMA max_page_count = 1000000")
    assert len(journal.record(DONE, planes(200))) == 200


KILLED_WHILE_RECORDING = textwrap.dedent("""
    import sys
    from pathlib import Path
    from segmentd.records import *
    from segmentd.results.images import ImageOutcome, ImageState
    from segmentd.results.journal import Journal

    journal = Journal.open(Path(sys.argv[1]))
    for index in range(10**6):
        source = b"%d" % index
        outcome = ImageOutcome("w", source, FileStamp(1, 2, 3, 4), ImageState.DONE, "ab")
        planes = [Segmentation("w", source, source, SegmentationState.SUCCEEDED)] * 2
        print(journal.record(outcome, planes)[-1].number, flush=True)
""")


def test_what_was_recorded_before_a_kill_is_there_and_images_are_whole(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED_WHILE_RECORDING, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(20)]
    child.send_signal(signal.SIGKILL)
    told += [int(line) for line in child.stdout.read().split()]
    child.stdout.close()
    child.wait()
    journal = Journal.open(tmp_path)
    numbers = [event.number for event in journal.events(0, 10**6)]
    assert numbers == list(range(1, journal.last_number() + 1))
    assert told[-1] <= numbers[-1]
    assert len(numbers) == 2 * journal.counts("w")[ImageState.DONE]
    journal.close()


def test_the_state_of_a_process_is_not_shared_with_another(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    with pytest.raises(SegmentdError, match=str(os.getpid())) as caught:
        Journal.open(tmp_path)
    assert caught.value.reason == Reason.LOCKED
    assert caught.value.metadata["pid"] == str(os.getpid())
    journal.close()
    Journal.open(tmp_path).close()


PART_STAMP = FileStamp(size_bytes=20, mtime_ns=6, inode=8, device=7)
SET = replace(
    DONE, path=b"a.companion.ome", parts=(FilePart(b"a1.tif", STAMP), FilePart(b"a2.tif", PART_STAMP))
)


def test_the_other_files_of_an_image_are_recorded_with_it(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    journal.record(replace(DONE, path=b"a1.tif", state=ImageState.FAILED))  # it came before its leader
    journal.record(SET)
    for reopened in (False, True):
        if reopened:
            journal.close()
            journal = Journal.open(tmp_path)
        assert {state: count for state, count in journal.counts("w").items() if count} == {
            ImageState.DONE: 1,
            ImageState.PART: 2,
        }
        assert journal.known("w", b"a2.tif", PART_STAMP)
        assert not journal.known("w", b"a2.tif", STAMP)
        assert journal.is_done("w", b"a2.tif", PART_STAMP)
        assert not journal.is_done("w", b"a2.tif", STAMP)
        assert journal.in_set("w", b"a2.tif")
        assert journal.in_set("w", SET.path)
        assert not journal.in_set("w", b"b.tif")
    journal.record(replace(SET, state=ImageState.FAILED))
    assert not journal.is_done("w", b"a2.tif", PART_STAMP)
    assert journal.known("w", b"a2.tif", PART_STAMP)
    journal.close()


def test_files_of_a_renamed_image_are_counted_once(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    journal.record(SET)
    elsewhere = tuple(FilePart(b"b/" + part.path, part.stamp) for part in SET.parts)
    journal.record(replace(SET, path=b"b/a.companion.ome", renamed_from=SET.path, parts=elsewhere))
    for reopened in (False, True):
        if reopened:
            journal.close()
            journal = Journal.open(tmp_path)
        counts = journal.counts("w")
        assert (counts[ImageState.DONE], counts[ImageState.PART], counts[ImageState.VANISHED]) == (1, 2, 3)
        assert journal.known("w", b"b/a2.tif", PART_STAMP)
        assert not journal.known("w", b"a2.tif", PART_STAMP)
    journal.close()


def test_new_stamps_of_parts_with_the_same_content_are_kept(journal: Journal) -> None:
    journal.record(SET)
    touched = (SET.parts[0], FilePart(b"a2.tif", replace(PART_STAMP, mtime_ns=9)))
    assert journal.same_content("w", SET.path, "ab", STAMP, touched)
    assert journal.known("w", b"a2.tif", touched[1].stamp)
    assert not journal.known("w", b"a2.tif", PART_STAMP)
    assert not journal.same_content("w", SET.path, "cd", STAMP, SET.parts)
