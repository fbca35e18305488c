from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.records import FileStamp, Segmentation, SegmentationState
from segmentd.results.images import ImageOutcome, ImageState
from segmentd.results.journal import Journal
from segmentd.results.journal_schema import FILE_NAME, SCHEMA_VERSION, open_reader, open_writer

STAMP = FileStamp(1, 2, 3, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal that was closed, with two hundred events."""
    journal = Journal.open(tmp_path)
    segmentation = Segmentation("w", b"a", b"/a", SegmentationState.SUCCEEDED)
    journal.record(ImageOutcome("w", b"a", STAMP, ImageState.DONE, "ab"), [segmentation] * 200)
    journal.close()
    return tmp_path


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def overwrite_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 9] = os.urandom(4096 * 6)
    path.write_bytes(data)


def lose_main_file(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(b"something")
    path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        overwrite_pages,
        lose_main_file,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_text("this is no database, but a text that is long enough for a header" * 9),
        lambda path: execute(path, "PRAGMA application_id = 1"),
        lambda path: execute(path, "DROP TABLE meta"),
        lambda path: execute(path, "DELETE FROM meta WHERE key = 'id'"),
        lambda path: execute(path, "UPDATE meta SET value = 7 WHERE key = 'last_number'"),
    ],
    ids=["pages", "main file", "empty", "cut", "text", "foreign", "table", "id", "numbers"],
)
def test_a_damaged_journal_is_refused_and_left_as_it_is(
    folder: Path, damage: Callable[[Path], object]
) -> None:
    path = folder / FILE_NAME
    damage(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(SegmentdError, match="segmentd rebuild-journal") as caught:
        Journal.open(folder)
    assert caught.value.reason == Reason.JOURNAL_DAMAGED
    assert str(path) in caught.value.message
    assert (path.read_bytes() if path.exists() else None) == before


def test_a_newer_journal_is_refused(folder: Path) -> None:
    execute(folder / FILE_NAME, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(SegmentdError, match="newer segmentd") as caught:
        Journal.open(folder)
    assert caught.value.reason == Reason.JOURNAL_NEWER


def test_a_refused_journal_is_not_left_locked(folder: Path) -> None:
    path = folder / FILE_NAME
    whole = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(SegmentdError):
        Journal.open(folder)
    path.write_bytes(whole)
    Journal.open(folder).close()


def test_a_journal_half_made_by_a_killed_process_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / f"{FILE_NAME}.new").write_bytes(b"half")
    Journal.open(tmp_path).close()
    assert not (tmp_path / f"{FILE_NAME}.new").exists()


def test_a_journal_keeps_its_id_and_another_has_another(tmp_path: Path) -> None:
    ids = []
    for name in ("a", "a", "b"):
        journal = Journal.open(tmp_path / name)
        ids.append(journal.id)
        journal.close()
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 10


def test_commits_are_synced_and_only_the_writer_checkpoints(folder: Path) -> None:
    path = folder / FILE_NAME
    with closing(open_writer(path)) as writer, closing(open_reader(path)) as reader:
        assert writer.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert writer.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert writer.execute("PRAGMA wal_autocheckpoint").fetchone()[0] > 0
        assert reader.execute("PRAGMA wal_autocheckpoint").fetchone()[0] == 0
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM events")


def test_a_folder_with_odd_characters_works(tmp_path: Path) -> None:
    folder = tmp_path / "a?b#c%20 \udcff"
    Journal.open(folder).close()
    assert (folder / FILE_NAME).is_file()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SegmentdError, match="file/journal") as caught:
        Journal.open(tmp_path / "file" / "journal")
    assert caught.value.reason == Reason.JOURNAL_NOT_WRITABLE
