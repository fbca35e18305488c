"""Files on their way to the daemon and back."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from segmentctl.errors import StreamError

CHUNK_BYTES = 1 << 20

OnBytes = Callable[[int, int], None]


class FilePart(Protocol):
    """A message of an answer that brings a file: the head first, then data."""

    data: bytes

    def WhichOneof(self, oneof_group: str, /) -> str | None:  # noqa: N802 (protobuf's name)
        """Which field is set."""


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def chunks(path: Path, on_bytes: OnBytes | None = None) -> Iterator[bytes]:
    """Yield the bytes of a file; `on_bytes` gets the number sent and in all."""
    total, sent = path.stat().st_size, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
            sent += len(chunk)
            if on_bytes is not None:
                on_bytes(sent, total)


def save(
    parts: Iterator[FilePart], size: int, sha256: str, target: Path, on_bytes: OnBytes | None = None
) -> Path:
    """Write the data of an answer to a file, which appears when it is complete.

    Raises
    ------
    StreamError
        If the bytes are not those that the head announced.
    """
    digest, came = hashlib.sha256(), 0
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            for message in parts:
                file.write(message.data)
                digest.update(message.data)
                came += len(message.data)
                if on_bytes is not None:
                    on_bytes(came, size)
            file.flush()
            os.fsync(file.fileno())
        if came != size or digest.hexdigest() != sha256:
            raise StreamError(f"{target.name}: what came is not what the daemon announced; try again")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target
