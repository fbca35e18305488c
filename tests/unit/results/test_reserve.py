from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.records import FileStamp, Segmentation, SegmentationState
from segmentd.results.images import ImageOutcome, ImageState
from segmentd.results.journal import Journal
from segmentd.results.reserve import FILE_NAME, Reserve

OUTCOME = ImageOutcome("w", b"a", FileStamp(1, 2, 3, 4), ImageState.DONE, "ab")
MANY = [Segmentation("w", b"a", b"/a", SegmentationState.SUCCEEDED)] * 200


def test_room_is_taken_given_up_once_and_taken_again(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, 1 << 20)
    assert reserve.held
    assert (tmp_path / FILE_NAME).stat().st_blocks * 512 >= 1 << 20
    assert [reserve.give_up(), reserve.give_up(), reserve.held] == [True, False, False]
    assert not (tmp_path / FILE_NAME).exists()
    assert reserve.take()
    reserve.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "held"), [(errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EOPNOTSUPP, True)]
)
def test_a_full_disk_has_no_room_and_a_disk_without_reserves_is_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, held: bool
) -> None:
    def fail(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", fail)
    reserve = Reserve(tmp_path, 1 << 20)
    assert reserve.held is held
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert reserve.take()
    assert reserve.give_up() is not held


def test_the_reserve_lets_the_journal_take_what_is_in_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.open(tmp_path, reserve_bytes=1 << 20)
    pages = journal._writer.execute("PRAGMA page_count").fetchone()[0]
    journal._writer.execute(f"PRAGMA max_page_count = {pages}")
    give_up = Reserve.give_up

    def giving_up(self: Reserve) -> bool:
        journal._writer.execute("PRAGMA max_page_count = 1000000")
        return give_up(self)

    monkeypatch.setattr(Reserve, "give_up", giving_up)
    assert not journal.short_of_room
    assert len(journal.record(OUTCOME, MANY)) == 200
    assert journal.short_of_room
    assert journal.last_number() == 200
    journal._writer.execute(
        f"PRAGMA max_page_count = {journal._writer.execute('PRAGMA page_count').fetchone()[0]}"
    )
    monkeypatch.undo()
    with pytest.raises(SegmentdError) as caught:
        journal.record(OUTCOME, MANY)
    assert caught.value.reason is Reason.DISK_FULL
    assert journal.regain_room()
    assert not journal.short_of_room
    journal.close()
    assert FILE_NAME not in {path.name for path in tmp_path.iterdir()}
