"""Planes that were just published, still in memory: live subscribers need not wait for files to be read."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from segmentd.records import FileStamp
from segmentd.results.contents import stamp_of

Bytes = npt.NDArray[np.uint8]
Planes = tuple[Bytes, Bytes | None]

Key = tuple[str, str, int]
Names = Mapping[str, str]

LIMIT_BYTES = 32 << 20
LIMIT_PLANES = 256  # small ones: whoever is further behind is not live


@dataclass
class FreshPlane:
    """Rows of one plane from the top: labels and, where they are published too, confidence, uint8 (h, X)."""

    page: int
    labels: list[Bytes] = field(default_factory=list)
    confidence: list[Bytes] = field(default_factory=list)
    with_confidence: bool = True

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(rows.nbytes for rows in (*self.labels, *self.confidence))

    def add(self, labels: Bytes, confidence: Bytes) -> None:
        """Append the next rows."""
        self.labels.append(labels)
        if self.with_confidence:
            self.confidence.append(confidence)

    def whole(self) -> Planes:
        """The plane: labels and confidence, (Y, X)."""
        return _joined(self.labels), _joined(self.confidence) if self.with_confidence else None


@dataclass(frozen=True)
class _Kept:
    plane: FreshPlane
    stamps: tuple[FileStamp, ...]  # of the result files, when they were published


class RecentPlanes:
    """The planes published last, up to a number of bytes and of planes; may be used from any thread.

    A plane is known by its result files and its page there. One whose files are gone or changed since is not
    given out: memory shall not hide what happened on the disk.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES, limit_planes: int = LIMIT_PLANES) -> None:
        self._limit_bytes = limit_bytes
        self._limit_planes = limit_planes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._bytes = 0

    def fits(self, pixels: int) -> bool:
        """Whether a plane of so many pixels is worth keeping."""
        return 2 * pixels <= self._limit_bytes

    def trim(self, planes: deque[FreshPlane]) -> None:
        """Drop the oldest planes of an image not yet published, where they are too many to be kept."""
        while len(planes) > 1 and sum(plane.nbytes for plane in planes) > self._limit_bytes:
            planes.popleft()

    def keep(
        self, files: Mapping[str, str], digests: Mapping[str, str], planes: Iterable[FreshPlane]
    ) -> None:
        """Keep planes of an image whose results were just published: paths and SHA-256 by kind of file."""
        stamps = _stamps(files)
        if stamps is None:
            return
        with self._lock:
            for plane in planes:
                key = _key(digests, plane.page)
                self._forget(key)
                self._kept[key] = _Kept(plane, stamps)
                self._bytes += plane.nbytes
            while self._bytes > self._limit_bytes or len(self._kept) > self._limit_planes:
                self._forget(next(iter(self._kept)))

    def get(self, files: Names, digests: Names, page: int) -> Planes | None:
        """Labels and confidence of a plane, if it is still here and its files are what they were."""
        with self._lock:
            found = self._kept.get(_key(digests, page))
        if found is None or _stamps(files) != found.stamps:
            return None
        return found.plane.whole()

    def _forget(self, key: Key) -> None:
        gone = self._kept.pop(key, None)
        self._bytes -= gone.plane.nbytes if gone else 0


def _key(digests: Names, page: int) -> Key:
    return digests.get("labels", ""), digests.get("confidence", ""), page


def _stamps(files: Names) -> tuple[FileStamp, ...] | None:
    """How the result files are now; None where one is not there."""
    found = []
    for kind in ("labels", "confidence"):
        if kind in files:
            try:
                found.append(stamp_of(os.fsencode(files[kind])))
            except OSError:
                return None
    return tuple(found)


def _joined(rows: list[Bytes]) -> Bytes:
    return rows[0] if len(rows) == 1 else np.concatenate(rows)
