"""Regions of POSIX shared memory that callers name: read and written through a descriptor, never mapped.

A client that shrinks a region it has registered makes reads end early, which is an error of that call. Were
it mapped, the daemon would be killed.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError
from segmentd.rpc.faults import bad_field

FOLDER = Path("/dev/shm")
MOST_REGIONS = 256
# The system's semaphores lie in the same folder.
_SEMAPHORE = "sem."
_FOR_ALL = stat.S_IROTH | stat.S_IWOTH
# Copied from one region to another in pieces that stay in the processor's cache.
_PIECE_BYTES = 1 << 20

Bytes = npt.NDArray[np.uint8]


class _Descriptor:
    """A file descriptor that is closed with its last reference: a thread may still be at it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


@dataclass(frozen=True)
class Region:
    """A registered region: `size_bytes` from `offset` on of the shared memory object `key`."""

    name: str
    key: str
    offset: int
    size_bytes: int
    descriptor: _Descriptor

    def part(self, offset: int, size_bytes: int) -> Part:
        """A part of the region; REGION_TOO_SMALL where it reaches beyond its end."""
        if not 0 <= offset <= offset + size_bytes <= self.size_bytes:
            raise SegmentdError(
                Reason.REGION_TOO_SMALL,
                f"shared memory region '{self.name}' has {self.size_bytes:,} bytes, and bytes {offset:,} to "
                f"{offset + size_bytes:,} are asked for; register a larger one",
                resource=self.name,
            )
        return Part(self, self.offset + offset, size_bytes)


@dataclass(frozen=True)
class Part:
    """Some bytes of a region; `start` is counted in the shared memory object. Its calls block."""

    region: Region
    start: int
    size_bytes: int

    def read(self, target: Bytes, skip: int = 0) -> None:
        """Fill `target`, `skip` bytes behind the start; REGION_TOO_SMALL where the object ends before."""
        done = 0
        while done < target.nbytes:
            try:
                count = os.preadv(
                    self.region.descriptor.number, [target[done:].data], self.start + skip + done
                )
            except OSError as error:
                raise self._unusable(error) from error
            if not count:
                raise self._truncated()
            done += count

    def write(self, source: Bytes, skip: int = 0) -> None:
        """Write `source`, `skip` bytes behind the start; REGION_TOO_SMALL where the object ends before."""
        number, start = self.region.descriptor.number, self.start + skip
        if os.fstat(number).st_size < start + source.nbytes:
            raise self._truncated()  # writing would make it longer
        done = 0
        while done < source.nbytes:
            try:
                done += os.pwritev(number, [source[done:].data], start + done)
            except OSError as error:
                raise self._unusable(error) from error

    def first(self, size_bytes: int) -> Part:
        """The first bytes of it."""
        return replace(self, size_bytes=size_bytes)

    def copy_to(self, target: Part) -> None:
        """Copy all bytes to another part of the same size."""
        piece = np.empty(_PIECE_BYTES, np.uint8)
        for skip in range(0, self.size_bytes, _PIECE_BYTES):
            held = piece[: min(_PIECE_BYTES, self.size_bytes - skip)]
            self.read(held, skip)
            target.write(held, skip)

    def _truncated(self) -> SegmentdError:
        return SegmentdError(
            Reason.REGION_TOO_SMALL,
            f"shared memory region '{self.region.name}' is shorter than when it was registered: its object "
            f"'{self.region.key}' was truncated; register it again",
            resource=self.region.name,
        )

    def _unusable(self, error: OSError) -> SegmentdError:
        return SegmentdError(
            Reason.REGION_UNUSABLE,
            f"shared memory region '{self.region.name}' cannot be used: {error.strerror}; register it again",
            resource=self.region.name,
        )


class Regions:
    """The registered regions by name, for all callers alike. Belongs to one event loop.

    Parameters
    ----------
    folder : Path
        Where shared memory objects are files.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, size_bytes: int) -> None:
        """Open a shared memory object and register a region of it.

        Raises
        ------
        SegmentdError
            BAD_FIELD, REGION_EXISTS, REGION_UNUSABLE, REGION_TOO_SMALL.
        """
        if not name:
            raise bad_field("name", "must be the name that requests will call the region by")
        if name in self._regions:
            raise SegmentdError(
                Reason.REGION_EXISTS,
                f"shared memory region '{name}' is registered already; unregister it, or take another name",
                resource=name,
            )
        if size_bytes < 1:
            raise bad_field("byte_size", "must be at least 1")
        if len(self._regions) >= MOST_REGIONS:
            self._forget_abandoned()
        descriptor = self._open(name, _file_name(key))
        found = os.fstat(descriptor.number).st_size
        if offset + size_bytes > found:
            raise SegmentdError(
                Reason.REGION_TOO_SMALL,
                f"shared memory object '{key}' has {found:,} bytes; a region of {size_bytes:,} from "
                f"{offset:,} on does not fit",
                resource=name,
            )
        self._regions[name] = Region(name, key, offset, size_bytes, descriptor)

    def get(self, name: str) -> Region:
        """A region; REGION_UNKNOWN if there is none of that name."""
        if name not in self._regions:
            raise SegmentdError(
                Reason.REGION_UNKNOWN,
                f"there is no shared memory region '{name}'; register it first, also after a restart of the "
                "daemon",
                resource=name,
            )
        return self._regions[name]

    def list(self) -> list[Region]:
        """All of them, by name."""
        return [self._regions[name] for name in sorted(self._regions)]

    def unregister(self, name: str) -> None:
        """Forget a region, if there is one of that name."""
        self._regions.pop(name, None)

    def clear(self) -> None:
        """Forget all of them."""
        self._regions.clear()

    def _open(self, name: str, file_name: str) -> _Descriptor:
        # Not through links, and a pipe of that name must not make us wait.
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = _Descriptor(os.open(self._folder / file_name, flags))
        except OSError as error:
            raise _refused(name, file_name, f"cannot be opened ({error.strerror})") from error
        found = os.fstat(descriptor.number)
        if not stat.S_ISREG(found.st_mode):
            raise _refused(name, file_name, "is no shared memory")
        # Who asks may not be who owns it: what another user keeps for themselves stays theirs.
        if found.st_uid != os.geteuid() and found.st_mode & _FOR_ALL != _FOR_ALL:
            raise _refused(
                name,
                file_name,
                "belongs to another user than the daemon's, and not everybody may read and write it",
            )
        return descriptor

    def _forget_abandoned(self) -> None:
        """Let go of regions whose object was deleted; RESOURCE_EXHAUSTED if that makes no room."""
        for region in self.list():
            if os.fstat(region.descriptor.number).st_nlink == 0:
                del self._regions[region.name]
        if len(self._regions) >= MOST_REGIONS:
            raise SegmentdError(
                Reason.DEVICE_BUSY,
                f"{MOST_REGIONS} shared memory regions are registered, which is the most; unregister some",
            )


def _file_name(key: str) -> str:
    """The file of a shared memory object, which may be named with a leading slash as for shm_open."""
    name = key.removeprefix("/")
    plain = name.isprintable() and "/" not in name and name not in ("", ".", "..")
    if not plain or name.startswith(_SEMAPHORE) or len(os.fsencode(name)) > 255:
        raise bad_field("key", f"'{key}' must be the name of a shared memory object, such as /frames")
    return name


def _refused(name: str, file_name: str, why: str) -> SegmentdError:
    return SegmentdError(
        Reason.REGION_UNUSABLE, f"shared memory object '{file_name}' {why}; create it anew", resource=name
    )
