"""A journal that an older version wrote is brought up to date, and loses nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from segmentd.records import FileStamp, Segmentation, SegmentationState
from segmentd.results.images import ImageState
from segmentd.results.journal import Journal
from segmentd.results.journal_schema import FILE_NAME
from segmentd.results.journal_steps import STEPS
from segmentd.results.payload import encode_segmentation
from segmentd.results.published import PublishedFile

STAMP = FileStamp(10, -5, 2**64 - 1, 7)


def write_first_version(folder: Path) -> list[Segmentation]:
    """Write a journal as version 1 had it: two contents of an image, one of two planes, and a failure."""
    files = {"labels": "/out/a\udcff.tif.labels.ome.tif"}
    first = Segmentation("w", b"a\xff.tif", b"/in/a\xff.tif", SegmentationState.SUCCEEDED, files=files)
    first = replace(first, digests={"labels": "11"}, content_digest="aa")
    second = replace(first, digests={"labels": "22"}, content_digest="bb", version=2, plane_count=2)
    failed = Segmentation("w", b"bad.tif", b"/in/bad.tif", SegmentationState.FAILED)
    told = [first, second, replace(second, page=1), failed]
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        for statement in STEPS[0]:
            assert isinstance(statement, str)
            connection.execute(statement)
        connection.executemany("INSERT INTO meta VALUES (?, ?)", [("id", "0123456789"), ("last_number", 4)])
        stamp = f"{STAMP.size_bytes}:{STAMP.mtime_ns}:{STAMP.inode}:{STAMP.device}"
        connection.executemany(
            "INSERT INTO images VALUES (?, 'w', ?, ?, ?, ?, ?, 1, '', '')",
            [(1, b"a\xff.tif", stamp, "bb", 2, "done"), (2, b"bad.tif", "1:2:3:4", "", 1, "failed")],
        )
        for number, item in enumerate(told, 1):
            payload = encode_segmentation(item).replace('"renamed_from":"",', "")
            assert "renamed_from" not in payload
            connection.execute(
                "INSERT INTO events VALUES (?, ?, 'w', 0, ?)", (number, 2 if number == 4 else 1, payload)
            )
        connection.execute(f"PRAGMA application_id = {0x53474D44}")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    return told


def test_a_journal_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    told = write_first_version(tmp_path)
    for _ in range(2):
        journal = Journal.open(tmp_path)
        assert journal.id == "0123456789"
        assert [event.segmentation for event in journal.events(0, 10)] == told
        assert journal.known("w", b"a\xff.tif", STAMP)
        assert journal.known("w", b"bad.tif", FileStamp(1, 2, 3, 4, ctime_ns=99)), "its ctime is not known"
        (image,) = journal.find_by_file("w", replace(STAMP, size_bytes=99))
        assert (image.path, image.version, image.state) == (b"a\xff.tif", 2, ImageState.DONE)
        file = PublishedFile("labels", b"/out/a\xff.tif.labels.ome.tif", "22", -1, 3)
        assert image.files == (file,)
        assert journal.is_new("w")
        journal.close()
