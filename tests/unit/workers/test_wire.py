"""The daemon believes nothing that a worker sends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmentd.workers import wire

Pair = tuple[socket.socket, socket.socket]
GOOD = {"dtype": "uint8", "shape": [4, 4], "offset": 0}


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def memory(size: int, seals: int = wire.SEALS) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def test_a_message_and_its_descriptors_arrive(pair: Pair) -> None:
    reader, writer = os.pipe()
    wire.send(pair[0], {"a": [1, 2.5, "ü"]}, [writer])
    message, fds = wire.receive(pair[1], 1)
    assert message == {"a": [1, 2.5, "ü"]}
    assert not os.get_inheritable(fds[0])
    os.write(fds[0], b"through")
    assert os.read(reader, 100) == b"through"
    wire.close_all([reader, writer, *fds])


@pytest.mark.parametrize("text", [b"[1]", b"{", b"\xff", b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}"])
def test_what_is_no_json_object_breaks_the_wire(pair: Pair, text: bytes) -> None:
    pair[0].sendall(wire.LENGTH.pack(len(text)) + text)
    with pytest.raises(wire.BrokenWireError):
        wire.receive(pair[1], 1)


def test_an_endless_message_is_not_waited_for(pair: Pair) -> None:
    pair[0].sendall(wire.LENGTH.pack(wire.MAX_MESSAGE_BYTES + 1))
    with pytest.raises(wire.BrokenWireError, match="a message of"):
        wire.receive(pair[1], 1)
    with pytest.raises(ValueError, match="a message of"):
        wire.send(pair[0], {"text": "x" * wire.MAX_MESSAGE_BYTES})


def test_too_many_descriptors_break_the_wire_and_stay_closed(pair: Pair) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    wire.send(pair[0], {}, [0, 0, 0])
    with pytest.raises(wire.BrokenWireError, match="more descriptors"):
        wire.receive(pair[1], 1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_end_in_the_middle_is_an_end(pair: Pair) -> None:
    pair[0].sendall(wire.LENGTH.pack(100) + b"{")
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        wire.receive(pair[1], 1)


def test_a_deadline_that_passed_is_a_timeout(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        wire.receive(pair[1], 0, deadline=0.0)


def test_arrays_survive_the_memory(pair: Pair) -> None:
    sent = [np.arange(6, dtype=np.uint16).reshape(2, 3), np.zeros((0, 3)), np.float32([[1.5]])]
    described, fd = wire.pack_arrays(sent)
    received = wire.map_arrays(json.loads(json.dumps(described)), fd)
    assert fd is not None
    os.close(fd)
    for one, other in zip(sent, received, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_arrays_without_pixels_need_no_memory() -> None:
    described, fd = wire.pack_arrays([np.zeros((3, 0), np.float32)])
    assert fd is None
    assert wire.map_arrays(described, None)[0].shape == (3, 0)


@pytest.mark.parametrize("wrong", [np.zeros(3, np.complex64), np.zeros(3, ">u2"), np.array(["a"])])
def test_arrays_of_other_types_are_not_sent(wrong: np.ndarray[Any, Any]) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        wire.pack_arrays([wrong])


@pytest.mark.parametrize(
    "described",
    [
        "text",
        [GOOD] * 65,
        ["text"],
        [{**GOOD, "dtype": "object"}],
        [{**GOOD, "dtype": ["uint8"]}],
        [{**GOOD, "shape": 16}],
        [{**GOOD, "shape": [-4, -4]}],
        [{**GOOD, "shape": [4.0, 4.0]}],
        [{**GOOD, "shape": [True, 4]}],
        [{**GOOD, "shape": [2**47, 2**47, 2**47]}],
        [{**GOOD, "shape": [2] * 9}],
        [{**GOOD, "offset": -1}],
        [{**GOOD, "offset": 49}],
        [{**GOOD, "offset": None}],
        [{**GOOD, "shape": [65]}],
        [{**GOOD, "dtype": "uint64", "shape": [9]}],
    ],
)
def test_lies_about_arrays_are_found_out(described: object) -> None:
    fd = memory(64)
    with pytest.raises(wire.BrokenWireError):
        wire.map_arrays(described, fd)
    os.close(fd)


@pytest.mark.parametrize("missing", [fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_WRITE])
def test_memory_that_may_still_change_is_not_mapped(missing: int) -> None:
    fd = memory(64, wire.SEALS & ~missing)
    with pytest.raises(wire.BrokenWireError, match="not sealed"):
        wire.map_arrays([GOOD], fd)
    os.close(fd)


def test_other_descriptors_are_not_mapped() -> None:
    reader, writer = os.pipe()
    with pytest.raises(wire.BrokenWireError, match="no memfd"):
        wire.map_arrays([GOOD], reader)
    with pytest.raises(wire.BrokenWireError, match="without their memory"):
        wire.map_arrays([GOOD], None)
    wire.close_all([reader, writer])
