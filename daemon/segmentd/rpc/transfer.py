"""Files on the wire: received into a file on disk, sent in messages of at most 1 MiB."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

from segmentd.errors import SegmentdError, write_errors
from segmentd.rpc.faults import bad_field
from segmentd.threads import to_its_end

CHUNK_BYTES = 1 << 20


class Part(Protocol):
    """A message that brings the next bytes of a file."""

    data: bytes

    def WhichOneof(self, oneof_group: str, /) -> str | None:
        """Which field is set."""


async def receive_file(
    requests: AsyncIterator[Part], target: Path, limit: int, too_large: Callable[[int], SegmentdError]
) -> tuple[int, str]:
    """Write what comes to a file; returns its size and SHA-256.

    Raises
    ------
    SegmentdError
        BAD_FIELD for a message without data; what `too_large(size)` makes beyond `limit`; DISK_FULL or
        RESULTS_NOT_WRITABLE.
    """
    digest, size = hashlib.sha256(), 0
    with write_errors("what is sent", target.parent):
        file = await asyncio.to_thread(target.open, "wb")
        try:
            async for request in requests:
                if request.WhichOneof("part") != "data":
                    raise bad_field("data", "after the head, every message must hold data")
                size += len(request.data)
                if size > limit:
                    raise too_large(size)
                digest.update(request.data)
                await asyncio.to_thread(file.write, request.data)
        finally:
            await to_its_end(file.close)
    return size, digest.hexdigest()


def check_received(size: int, sha256: str, announced_size: int, announced_sha256: str) -> None:
    """BAD_FIELD where the bytes that came are not those that were announced."""
    if announced_size and announced_size != size:
        raise bad_field(
            "head.size_bytes", f"{announced_size:,} bytes were announced, {size:,} came; send it again"
        )
    if announced_sha256.lower() != sha256:
        raise bad_field(
            "head.sha256",
            f"the bytes that came have SHA-256 {sha256}, not the announced one; send them again",
        )


def describe(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


async def chunks(path: Path) -> AsyncIterator[bytes]:
    """The bytes of a file."""
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
    finally:
        await to_its_end(file.close)
