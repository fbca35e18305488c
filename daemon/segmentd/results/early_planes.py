"""Labels and confidence of planes whose image is not complete: in memory, then in a file without a name.

Nothing here has to last. What does not fit is not kept, what cannot be read back is not there: the plane is
then computed when its image is complete.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import zstandard

from segmentd import telemetry

MEMORY_BYTES = 64 << 20
DISK_BYTES = 8 << 30
LEFT_FREE_BYTES = 1 << 30

Bytes = npt.NDArray[np.uint8]
_log = telemetry.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EarlyPlane:
    """What was computed of a plane: labels and confidence (Y, X), and what results tell of it."""

    labels: Bytes
    confidence: Bytes
    masked_pixels: int
    compute_seconds: float
    device: str
    device_reason: str


@dataclass(frozen=True, slots=True)
class _Packed:
    """Labels and confidence in one piece, in memory or at an offset of the file; the rest as it was."""

    shape: tuple[int, int]
    facts: tuple[int, float, str, str]
    size: int
    data: bytes | None = None
    offset: int = 0


class EarlyStore:
    """How much all growing images together may take; may be used from any thread."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES, disk_bytes: int = DISK_BYTES) -> None:
        self._lock = threading.Lock()
        self._memory_left = memory_bytes
        self._disk_left = disk_bytes

    def image(self, folder: Path) -> EarlyPlanes:
        """A place for the planes of one image; `folder` is where the file may lie."""
        return EarlyPlanes(self, folder)

    def take_memory(self, size: int) -> bool:
        """Whether so many bytes more may be held in memory; they are counted then."""
        with self._lock:
            fits = size <= self._memory_left
            self._memory_left -= size * fits
            return fits

    def take_disk(self, size: int) -> bool:
        """Whether so many bytes more may be written; they are counted then."""
        with self._lock:
            fits = size <= self._disk_left
            self._disk_left -= size * fits
            return fits

    def give_back(self, memory: int, disk: int) -> None:
        """Count these bytes no longer."""
        with self._lock:
            self._memory_left += memory
            self._disk_left += disk


class EarlyPlanes:
    """Planes of one image, by a key that says what they were computed of; may be used from any thread.

    Attributes
    ----------
    full : bool
        Whether a plane did not fit; it is no use to compute more of them early.
    closed : bool
        Whether nobody wants them any more.
    """

    def __init__(self, store: EarlyStore, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._lock = threading.Lock()
        self._planes: dict[bytes, _Packed] = {}
        self._file: IO[bytes] | None = None
        self._file_size = 0
        self.closed = False
        self.full = False

    def __len__(self) -> int:
        return len(self._planes)

    def __contains__(self, key: object) -> bool:
        return key in self._planes

    def put(self, key: bytes, plane: EarlyPlane) -> bool:
        """Keep a plane; False where there is no room."""
        pack = zstandard.ZstdCompressor(level=1, write_checksum=True).compress
        data = pack(plane.labels.tobytes() + plane.confidence.tobytes())
        facts = (plane.masked_pixels, plane.compute_seconds, plane.device, plane.device_reason)
        height, width = plane.labels.shape
        with self._lock:
            if self.closed or key in self._planes:
                return not self.closed
            if self._store.take_memory(len(data)):
                packed = _Packed((height, width), facts, len(data), data)
            elif self._written(data):
                packed = _Packed((height, width), facts, len(data), offset=self._file_size - len(data))
            else:
                self.full = True
                return False
            self._planes[key] = packed
            return True

    def get(self, key: bytes) -> EarlyPlane | None:
        """The plane of a key, None where it is not kept or cannot be read back."""
        with self._lock:
            packed = self._planes.get(key)
            if packed is None or self.closed:
                return None
            try:
                data = packed.data if packed.data is not None else self._read(packed)
                raw = zstandard.ZstdDecompressor().decompress(data)
            except (OSError, zstandard.ZstdError) as error:
                _log.warning("a plane computed early is lost", why=str(error))
                return None
        planes = np.frombuffer(bytearray(raw), np.uint8).reshape(2, *packed.shape)
        return EarlyPlane(planes[0], planes[1], *packed.facts)

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            memory = sum(len(packed.data) for packed in self._planes.values() if packed.data is not None)
            self._store.give_back(memory, self._file_size)
            self._planes.clear()
            if self._file is not None:
                self._file.close()

    def _written(self, data: bytes) -> bool:
        """Append to the file; False where there is no room."""
        if not self._store.take_disk(len(data)):
            return False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self._folder).free < LEFT_FREE_BYTES:
                raise OSError("the disk is nearly full")
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
            written = os.pwrite(self._file.fileno(), data, self._file_size)
            if written < len(data):
                raise OSError("the disk is full")
        except OSError as error:
            self._store.give_back(0, len(data))
            _log.info("no room for planes computed early", folder=self._folder, why=str(error))
            return False
        self._file_size += len(data)
        return True

    def _read(self, packed: _Packed) -> bytes:
        if self._file is None:
            raise OSError("the file is gone")
        return os.pread(self._file.fileno(), packed.size, packed.offset)
