"""What travels between the daemon and a worker: JSON with a length before it, descriptors, arrays.

Arrays travel in one memfd that is sealed before it is sent: it can neither shrink (which would end the
reader with SIGBUS) nor change any more. The reader believes nothing: sizes, shapes and seals are checked
before anything is mapped.
"""

from __future__ import annotations

import array
import fcntl
import json
import math
import mmap
import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]

MAX_MESSAGE_BYTES = 32 << 20
MAX_DESCRIPTORS = 8
MAX_ARRAYS = 64
MAX_DIMENSIONS = 8
ALIGNMENT = 64
CHUNK_BYTES = 1 << 30
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
DTYPES = frozenset(
    {"bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"}
    | {"float16", "float32", "float64"}
)
LENGTH = struct.Struct("<Q")


class BrokenWireError(Exception):
    """The other side did not keep to the protocol; it cannot be talked to any more."""


def send(sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message and, with its first bytes, open file descriptors."""
    text = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    if len(text) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {len(text)} bytes: at most {MAX_MESSAGE_BYTES} are allowed")
    header = LENGTH.pack(len(text))
    sent = socket.send_fds(sock, [header], list(fds)) if fds else sock.send(header)
    sock.sendall(header[sent:] + text)


def receive(
    sock: socket.socket, max_fds: int, deadline: float | None = None
) -> tuple[dict[str, Any], list[int]]:
    """Receive one message and at most `max_fds` descriptors, which the caller must close.

    Raises
    ------
    EOFError
        The other side is gone.
    TimeoutError
        `deadline` (of `time.monotonic`) passed.
    BrokenWireError
        What came is not a message.
    """
    fds: list[int] = []
    try:
        length = LENGTH.unpack(_receive_header(sock, max_fds, deadline, fds))[0]
        if length > MAX_MESSAGE_BYTES:
            raise BrokenWireError(f"a message of {length} bytes")
        message = _parse(_receive_exactly(sock, length, deadline))
    except BaseException:
        close_all(fds)
        raise
    return message, fds


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that came with a message."""
    for fd in fds:
        os.close(fd)


def _parse(text: bytes) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenWireError(f"a message that is no JSON: {error}") from error
    if not isinstance(message, dict):
        raise BrokenWireError("a message that is no JSON object")
    return message


def _receive_header(sock: socket.socket, max_fds: int, deadline: float | None, fds: list[int]) -> bytes:
    size = array.array("i").itemsize
    _set_timeout(sock, deadline)
    space = socket.CMSG_SPACE(max_fds * size) if max_fds else 0
    header, extras, flags, _ = sock.recvmsg(LENGTH.size, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in extras:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.extend(array.array("i", data[: len(data) - len(data) % size]))
    if not header:
        raise EOFError
    if flags & socket.MSG_CTRUNC:
        raise BrokenWireError("more descriptors than agreed")
    return header + _receive_exactly(sock, LENGTH.size - len(header), deadline)


def _receive_exactly(sock: socket.socket, size: int, deadline: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        _set_timeout(sock, deadline)
        part = sock.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _set_timeout(sock: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        sock.settimeout(None)
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)


def pack_arrays(arrays: Sequence[AnyArray]) -> tuple[list[dict[str, Any]], int | None]:
    """Write arrays to a new sealed memfd; return what describes them and the descriptor, if any."""
    described: list[dict[str, Any]] = []
    end = 0
    for values in arrays:
        if values.dtype.name not in DTYPES or not values.dtype.isnative:
            raise TypeError(f"an array of type {values.dtype} cannot be sent")
        described.append({"dtype": values.dtype.name, "shape": list(values.shape), "offset": end})
        end += -(-values.nbytes // ALIGNMENT) * ALIGNMENT
    if end == 0:
        return described, None
    fd = os.memfd_create("segmentd-arrays", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, end)
        for values, place in zip(arrays, described, strict=True):
            _write(fd, np.ascontiguousarray(values), place["offset"])
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return described, fd


def _write(fd: int, values: AnyArray, offset: int) -> None:
    data = values.reshape(-1).view(np.uint8).data
    while data:
        written = os.pwrite(fd, data[:CHUNK_BYTES], offset)
        data, offset = data[written:], offset + written


def map_arrays(described: object, fd: int | None) -> list[AnyArray]:
    """Map what `pack_arrays` sent, after checking every word of the description.

    The arrays may be written to; the pages are private to this process.
    """
    if not isinstance(described, list) or len(described) > MAX_ARRAYS:
        raise BrokenWireError("no list of arrays")
    places = [_checked(place) for place in described]
    if not any(nbytes for *_, nbytes in places):
        return [np.empty(shape, dtype) for dtype, shape, _, _ in places]
    if fd is None:
        raise BrokenWireError("arrays without their memory")
    size = _sealed_size(fd)
    if any(offset + nbytes > size for *_, offset, nbytes in places):
        raise BrokenWireError("an array beyond the end of its memory")
    memory = mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return [
        np.frombuffer(memory, dtype, math.prod(shape), offset).reshape(shape)
        for dtype, shape, offset, _ in places
    ]


def _sealed_size(fd: int) -> int:
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise BrokenWireError("array memory that is no memfd") from error
    if seals & SEALS != SEALS:
        raise BrokenWireError("array memory that is not sealed")
    return os.fstat(fd).st_size


def _checked(place: object) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """Type, shape, offset and bytes of one described array."""
    if not isinstance(place, dict):
        raise BrokenWireError("an array without a description")
    name, shape, offset = place.get("dtype"), place.get("shape"), place.get("offset")
    if not isinstance(name, str) or name not in DTYPES:
        raise BrokenWireError("an array of an unknown type")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise BrokenWireError("an array without a shape")
    if not _is_size(offset) or not all(_is_size(length) for length in shape):
        raise BrokenWireError("an array with an impossible shape or place")
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype, tuple(shape), offset, math.prod(shape) * dtype.itemsize


def _is_size(number: object) -> TypeGuard[int]:
    return type(number) is int and 0 <= number < 2**48
