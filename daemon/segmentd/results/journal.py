"""The journal: which images have ended and how, and the numbered events that tell of it.

One SQLite file (WAL, `synchronous=FULL`); what a call recorded is durable when it returns. The calls block
and may come from any thread; callers in an event loop use `asyncio.to_thread`. Writes that meet share a
commit: whoever gets the write lock commits for all who wait.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self, TypeVar

from segmentd import crashpoints, telemetry
from segmentd.errors import Reason, SegmentdError
from segmentd.records import FilePart, FileStamp, ResultEvent, Segmentation
from segmentd.results import images, published
from segmentd.results.image_reader import ImageReader
from segmentd.results.images import ImageOutcome, ImageState
from segmentd.results.journal_schema import (
    FILE_NAME,
    journal_errors,
    lock_folder,
    open_writer,
    sqlite_note,
    transaction,
)
from segmentd.results.known_stamps import KnownStamps
from segmentd.results.payload import encode_segmentation
from segmentd.results.published import PublishedFile, ResultFault
from segmentd.results.reserve import Reserve

T = TypeVar("T")

_DELETE_AT_ONCE = 5000
_SECONDS_PER_DAY = 86_400

_log = telemetry.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Write:
    """Images that wait for their commit, each with its segmentations and their JSON."""

    images: list[tuple[ImageOutcome, Sequence[Segmentation], list[str]]]
    done: Future[list[list[ResultEvent]]] = field(default_factory=Future)


class Journal(ImageReader):
    """The open journal of one daemon; `Journal.open` makes it.

    Attributes
    ----------
    id : str
        Ten random hex digits; part of every cursor, so that a cursor of another journal is recognised.
    """

    def __init__(
        self,
        path: Path,
        writer: sqlite3.Connection,
        lock_file: IO[str],
        clock: Callable[[], float],
        reserve: Reserve,
    ) -> None:
        super().__init__(path)
        self._writer = writer
        self._lock_file = lock_file
        self._clock = clock
        self._reserve = reserve
        self._write_lock = threading.Lock()
        self._waiting: list[_Write] = []
        self._waiting_lock = threading.Lock()
        self._broken = False
        self.id: str = writer.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()[0]
        self._stamps = KnownStamps(writer)

    @classmethod
    def open(cls, folder: Path, clock: Callable[[], float] = time.time, *, reserve_bytes: int = 0) -> Self:
        """Open the journal in a folder, making both if needed, and lock the folder.

        Parameters
        ----------
        folder : Path
            On a local disk; SQLite's write-ahead log does not work over networks.
        clock : callable
            Returns seconds since the epoch; only retention uses it.
        reserve_bytes : int
            Room to keep free for what is in hand when the disk is full.

        Raises
        ------
        SegmentdError
            LOCKED, JOURNAL_DAMAGED, JOURNAL_NEWER, JOURNAL_NOT_WRITABLE or DISK_FULL.
        """
        path = folder / FILE_NAME
        with journal_errors(path), contextlib.ExitStack() as undo:
            lock_file = undo.enter_context(lock_folder(folder))
            writer = open_writer(path)
            undo.callback(writer.close)
            journal = cls(path, writer, lock_file, clock, Reserve(folder, reserve_bytes))
            undo.pop_all()
        _log.info("journal opened", path=path, id=journal.id, sqlite=sqlite_note())
        return journal

    def close(self) -> None:
        """Close the file and give up the folder."""
        super().close()
        with self._write_lock:
            self._writer.close()
        self._reserve.close()
        self._lock_file.close()

    def record(self, outcome: ImageOutcome, segmentations: Sequence[Segmentation] = ()) -> list[ResultEvent]:
        """Record how an image ended, with the segmentations to publish; as `record_many`."""
        return self.record_many([(outcome, segmentations)])[0]

    def record_many(
        self, outcomes: Sequence[tuple[ImageOutcome, Sequence[Segmentation]]]
    ) -> list[list[ResultEvent]]:
        """Record several images in one transaction: all of them or, on an error, none.

        Returns
        -------
        list of list of ResultEvent
            For each image the events of its segmentations, numbered on without gaps.

        Raises
        ------
        SegmentdError
            DISK_FULL (try again when there is room), JOURNAL_NOT_WRITABLE or JOURNAL_DAMAGED.
        """
        write = _Write([(outcome, items, [*map(encode_segmentation, items)]) for outcome, items in outcomes])
        with self._waiting_lock:
            self._waiting.append(write)
        with self._write_lock:
            if not write.done.done():
                with self._waiting_lock:
                    writes, self._waiting = self._waiting, []
                self._commit(writes)
        return write.done.result()

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the writing connection in a transaction of its own; errors as in `record_many`."""
        with self._write_lock, self._writing():
            return work(self._writer)

    def known(self, watch: str, path: bytes, stamp: FileStamp) -> bool:
        """Whether this path with this stamp has ended and needs no work; answered from memory."""
        return self._stamps.has(watch, path, stamp)

    def is_done(self, watch: str, path: bytes, stamp: FileStamp) -> bool:
        """Whether this path with this stamp was segmented, or is part of what was; from memory."""
        return self._stamps.is_done(watch, path, stamp)

    def in_set(self, watch: str, path: bytes) -> bool:
        """Whether a path is one of several files of an image; answered from memory."""
        return self._stamps.in_set(watch, path)

    def same_content(
        self, watch: str, path: bytes, content_digest: str, stamp: FileStamp, parts: Sequence[FilePart] = ()
    ) -> bool:
        """Whether a path is already done with this content.

        If so, its new stamp and those of its parts are recorded and there is nothing to publish. An image
        that failed is not done: touching it has it tried again.
        """
        with self._connection() as connection:
            image = images.find_image(connection, watch, path)
        if image is None or image.state is not ImageState.DONE or image.content_digest != content_digest:
            return False
        with self._write_lock, self._writing():
            images.update_stamp(self._writer, watch, path, stamp, parts)
        self._stamps.keep(watch, path, stamp, ImageState.DONE)
        self._stamps.keep_parts(watch, path, parts)
        return True

    def failed_again(self, outcome: ImageOutcome) -> bool:
        """Whether a file failed before for the same reason; if so, that it was tried is noted."""
        if outcome.stamp is None or not self.failed_before(outcome):
            return False
        with self._write_lock, self._writing():
            images.update_stamp(self._writer, outcome.watch, outcome.path, outcome.stamp, outcome.parts)
        self._stamps.keep_outcome(outcome)
        return True

    def finish_first_look(self, watch: str) -> None:
        """Note that a watch is not new any more: what its folder held at first is decided."""
        self.write(lambda writer: writer.execute("INSERT OR IGNORE INTO first_looks VALUES (?)", (watch,)))

    def note_faults(self, found: Sequence[tuple[PublishedFile, ResultFault]]) -> None:
        """Note what is, or no longer is, wrong with result files."""
        with self._write_lock, self._writing():
            for file, fault in found:
                published.set_fault(self._writer, file, fault)

    @property
    def short_of_room(self) -> bool:
        """Whether the disk was so full that the reserve was given up: nothing more should be taken up."""
        return not self._reserve.held

    def regain_room(self) -> bool:
        """Set room aside again; False while there is none."""
        return self._reserve.take()

    def retain(self, max_age_days: float | None = None, max_events: int | None = None) -> int:
        """Delete the oldest events beyond an age or a number; images and numbering stay.

        Returns
        -------
        int
            How many events were deleted.
        """
        last, oldest = self._bounds()
        first_kept = oldest
        if max_events is not None:
            first_kept = max(first_kept, last - max_events + 1)
        if max_age_days is not None:
            since = self._clock() - max_age_days * _SECONDS_PER_DAY
            first_kept = max(first_kept, self._first_recorded_since(since, last))
        for number in range(oldest, first_kept, _DELETE_AT_ONCE):  # in parts: no commit waits long for it
            end = min(number + _DELETE_AT_ONCE, first_kept)
            with self._write_lock, self._writing():
                self._writer.execute("DELETE FROM events WHERE number < ?", (end,))
                published.forget_before(self._writer, end)
        return first_kept - oldest

    def _commit(self, writes: list[_Write]) -> None:
        try:
            results = self._insert_all(writes)
        except BaseException as error:  # every waiting caller raises it
            for write in writes:
                write.done.set_exception(error)
            return
        for write, events in zip(writes, results, strict=True):
            for outcome, _, _ in write.images:
                self._stamps.keep_outcome(outcome)
            write.done.set_result(events)

    def _insert_all(self, writes: list[_Write]) -> list[list[list[ResultEvent]]]:
        """Commit the writes; where the disk is full, once more with the room that was kept free."""
        while True:
            try:
                with self._writing():
                    results = [self._insert(write) for write in writes]
                    crashpoints.reach("in-commit")
            except SegmentdError as error:
                if error.reason is Reason.DISK_FULL and self._reserve.give_up():
                    _log.warning("the journal's disk is full, its reserve is used", journal=self._path)
                    continue
                raise
            crashpoints.reach("after-commit")
            return results

    def _insert(self, write: _Write) -> list[list[ResultEvent]]:
        """Insert the rows of one write; returns its events."""
        result = []
        for outcome, segmentations, payloads in write.images:
            image = images.insert_outcome(self._writer, outcome)
            numbers = self._take_numbers(len(payloads))
            self._writer.executemany(
                "INSERT INTO events (number, image, watch, recorded, payload) VALUES (?, ?, ?, ?, ?)",
                [
                    (number, image, outcome.watch, self._clock(), payload)
                    for number, payload in zip(numbers, payloads, strict=True)
                ],
            )
            if outcome.files:
                published.insert(self._writer, image, numbers[-1], outcome.files)
            result.append([*map(ResultEvent, numbers, segmentations)])
        return result

    def _take_numbers(self, count: int) -> range:
        last = self._writer.execute("SELECT value FROM meta WHERE key = 'last_number'").fetchone()[0]
        self._writer.execute("UPDATE meta SET value = ? WHERE key = 'last_number'", (last + count,))
        return range(last + 1, last + count + 1)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One write transaction; after an I/O error there are no more until the daemon starts again."""
        if self._broken:
            raise SegmentdError(
                Reason.JOURNAL_NOT_WRITABLE,
                f"the journal {self._path} had a disk error and takes no more entries. Check the disk and "
                "restart the daemon; what was recorded before is safe.",
                path=str(self._path),
            )
        with journal_errors(self._path):
            try:
                with transaction(self._writer):
                    yield
            except sqlite3.OperationalError as error:
                self._broken = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR
                raise
