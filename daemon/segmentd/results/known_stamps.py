"""In memory: the stamp under which each path of a watch ended. A scan asks for every file in the folder."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from segmentd.errors import Reason
from segmentd.records import FilePart, FileStamp
from segmentd.results.images import ImageOutcome, ImageState, stamp_text


@dataclass(frozen=True, slots=True)
class _Known:
    """How a path ended; `part_of` is the image that it belongs to, if it is none of its own."""

    stamp: str
    state: ImageState
    ctime_ns: int
    part_of: bytes = b""


class KnownStamps:
    """What is known of all paths; made from the journal's table of images."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._by_watch: dict[str, dict[bytes, _Known]] = {}
        self._leaders: set[tuple[str, bytes]] = set()
        # What could not be read is tried once more: a stamp does not tell that it can be read now, or that
        # what its format needs was installed.
        rows = connection.execute(
            "SELECT watch, path, stamp, state, ctime_ns, part_of FROM images "
            "WHERE state != 'vanished' AND reason NOT IN (?, ?)",
            (Reason.IMAGE_UNREADABLE, Reason.IMAGE_NEEDS_EXTRA),
        )
        for watch, path, stamp, state, ctime_ns, part_of in rows:
            known = _Known(stamp, ImageState(state), ctime_ns, part_of)
            self._by_watch.setdefault(watch, {})[path] = known
            if part_of:
                self._leaders.add((watch, part_of))

    def has(self, watch: str, path: bytes, stamp: FileStamp) -> bool:
        """Whether the path ended under this very stamp.

        A failed image whose permissions or the like have changed since may have been mended.
        """
        known = self._by_watch.get(watch, {}).get(path)
        if known is None or known.stamp != stamp_text(stamp):
            return False
        same = 0 in (known.ctime_ns, stamp.ctime_ns) or known.ctime_ns == stamp.ctime_ns
        return known.state is not ImageState.FAILED or same

    def is_done(self, watch: str, path: bytes, stamp: FileStamp) -> bool:
        """Whether the path is done under this very stamp, or part of an image that is."""
        of_watch = self._by_watch.get(watch, {})
        known = of_watch.get(path)
        if known is None or known.stamp != stamp_text(stamp):
            return False
        image = of_watch.get(known.part_of) if known.state is ImageState.PART else known
        return image is not None and image.state is ImageState.DONE

    def in_set(self, watch: str, path: bytes) -> bool:
        """Whether a path is one of several files of an image."""
        known = self._by_watch.get(watch, {}).get(path)
        return (watch, path) in self._leaders or (known is not None and known.state is ImageState.PART)

    def keep(self, watch: str, path: bytes, stamp: FileStamp, state: ImageState) -> None:
        """Note that a path ended."""
        self._by_watch.setdefault(watch, {})[path] = _Known(stamp_text(stamp), state, stamp.ctime_ns)

    def keep_parts(self, watch: str, image: bytes, parts: Iterable[FilePart]) -> None:
        """Note that files are part of an image."""
        of_watch = self._by_watch.setdefault(watch, {})
        for part in parts:
            self._leaders.add((watch, image))
            text = stamp_text(part.stamp)
            of_watch[part.path] = _Known(text, ImageState.PART, part.stamp.ctime_ns, image)

    def keep_outcome(self, outcome: ImageOutcome) -> None:
        """Note an outcome; a vanished image is forgotten, so that it is done when it comes back."""
        of_watch = self._by_watch.get(outcome.watch, {})
        if outcome.renamed_from and outcome.parts:
            for path in [path for path, known in of_watch.items() if known.part_of == outcome.renamed_from]:
                del of_watch[path]
        of_watch.pop(outcome.renamed_from, None)
        if outcome.state is ImageState.VANISHED or outcome.stamp is None:
            of_watch.pop(outcome.path, None)
        else:
            self.keep(outcome.watch, outcome.path, outcome.stamp, outcome.state)
        self.keep_parts(outcome.watch, outcome.path, outcome.parts)
