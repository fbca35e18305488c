"""Planes of images that are still in work, for subscribers who want to look on.

A preview has no number and is kept nowhere: memory holds the last few, whoever is behind misses some. When
the image has ended, what was not sent is dropped, since the published planes follow.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from segmentd.records import Segmentation
from segmentd.results.recent import FreshPlane, Planes

LIMIT_BYTES = 32 << 20
LIMIT_PLANES = 256


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """A plane that is computed and not published: what is told of it, its labels and confidence (Y, X)."""

    segmentation: Segmentation
    planes: Planes

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(plane.nbytes for plane in self.planes if plane is not None)


News = Callable[[], list[Preview]]
Show = Callable[[Segmentation, FreshPlane], None]


class Previews:
    """The last previews, up to a number of bytes and of planes; may be used from any thread.

    Parameters
    ----------
    wake : callable
        Called when there is a new one.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        limit_bytes: int = LIMIT_BYTES,
        limit_planes: int = LIMIT_PLANES,
    ) -> None:
        self._wake = wake
        self._limit_bytes = limit_bytes
        self._limit_planes = limit_planes
        self._lock = threading.Lock()
        self._kept: deque[tuple[int, Preview]] = deque()
        self._bytes = 0
        self._shown = 0
        self._onlookers = 0

    @property
    def wanted(self) -> bool:
        """Whether anybody looks on."""
        return self._onlookers > 0

    def show(self, preview: Preview) -> None:
        """Show a plane to those who look on."""
        if not self.wanted or preview.nbytes > self._limit_bytes:
            return
        with self._lock:
            self._shown += 1
            self._kept.append((self._shown, preview))
            self._bytes += preview.nbytes
            while self._bytes > self._limit_bytes or len(self._kept) > self._limit_planes:
                self._bytes -= self._kept.popleft()[1].nbytes
        self._wake()

    def of(self, watch: str, source: bytes, path: bytes, version: int) -> Show:
        """What shows the planes of one image of a watch: given what is known of a plane, and the plane."""

        def show(record: Segmentation, plane: FreshPlane) -> None:
            if self.wanted:
                named = replace(record, watch=watch, source=source, source_path=path, version=version)
                self.show(Preview(replace(named, content_digest=""), plane.whole()))

        return show

    def drop(self, watch: str, source: bytes) -> None:
        """Forget the planes of an image, which has ended."""
        with self._lock:
            self._kept = deque(
                (number, preview)
                for number, preview in self._kept
                if (preview.segmentation.watch, preview.segmentation.source) != (watch, source)
            )
            self._bytes = sum(preview.nbytes for _, preview in self._kept)

    @contextmanager
    def onlooker(self, watch: str | None = None) -> Iterator[News]:
        """Look on from now on: gives what tells the previews (of one watch) that came since the last call."""
        with self._lock:
            self._onlookers += 1
            seen = self._shown

        def news() -> list[Preview]:
            nonlocal seen
            with self._lock:
                found = [preview for number, preview in self._kept if number > seen]
                seen = self._shown
            return [one for one in found if watch in (None, one.segmentation.watch)]

        try:
            yield news
        finally:
            with self._lock:
                self._onlookers -= 1
                if not self._onlookers:
                    self._kept.clear()
                    self._bytes = 0
