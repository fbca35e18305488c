"""One daemon for each folder and port: who is second is told who was first."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from segmentd.errors import ConfigurationError, Reason, SegmentdError
from segmentd.process.claims import Claims, check_port_free

HOLDER = """
import sys
from pathlib import Path
from segmentd.process.claims import Claims
claims = Claims()
claims.claim(*map(Path, sys.argv[1:]), subject="theirs").hold()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_elsewhere(*folders: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the folders."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *map(str, folders)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    with process, process.stdin, process.stdout:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder of a disk, where a lock can be had, and one of a file system in memory."""
    if request.param == "disk":
        if os.major(tmp_path.stat().st_dev) == 0:
            pytest.skip("needs temporary files on a disk")
        yield tmp_path
        return
    in_memory = Path("/dev/shm")
    if not os.access(in_memory, os.W_OK):
        pytest.skip("needs a file system in memory on /dev/shm")
    made = in_memory / f"segmentd-test-{os.getpid()}"
    made.mkdir()
    yield made
    made.rmdir()


def test_another_process_is_named(folder: Path) -> None:
    claim = Claims().claim(folder, subject="watch 'hot'")
    with held_elsewhere(folder) as other:
        with pytest.raises(SegmentdError) as caught:
            claim.hold()
        assert caught.value.reason is Reason.LOCKED
        assert caught.value.message.startswith(
            f"watch 'hot': {folder} is in use by another segmentd (process"
        )
        about = caught.value.metadata
        assert (about["pid"], about["host"]) == (str(other.pid), socket.gethostname())
        assert about["since"] in caught.value.message
        assert about["folder"] == str(folder)
    claim.hold()  # the other one was killed, and its claim went with it
    claim.hold()
    with pytest.raises(SegmentdError):
        Claims().claim(folder, subject="ours").hold()
    claim.release()
    claim.release()
    after = Claims().claim(folder, subject="ours")
    after.hold()
    after.release()


def test_claims_of_one_process_share_a_folder(folder: Path) -> None:
    claims = Claims()
    first, second = (claims.claim(folder, subject=name) for name in ("a", "b"))
    first.hold()
    second.hold()
    first.release()
    with pytest.raises(SegmentdError):
        Claims().claim(folder, subject="c").hold()
    second.release()
    last = Claims().claim(folder, subject="c")
    last.hold()
    last.release()


def test_a_folder_that_comes_later_or_anew_is_claimed_then(tmp_path: Path) -> None:
    there, later = tmp_path / "there", tmp_path / "later"
    there.mkdir()
    claim = Claims().claim(there, later, subject="a")
    claim.hold()
    later.mkdir()
    other = Claims().claim(later, subject="b")
    other.hold()
    other.release()
    claim.hold()
    with pytest.raises(SegmentdError):
        other.hold()
    later.rmdir()
    later.mkdir()
    (tmp_path / "keeps the inode from being used again").mkdir()
    claim.hold()
    with pytest.raises(SegmentdError):
        other.hold()
    claim.release()
    other.hold()


def test_a_conflict_gives_nothing_else_up(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    theirs.mkdir()
    other = Claims().claim(theirs, subject="b")
    other.hold()
    claim = Claims().claim(mine, theirs, subject="a")
    with pytest.raises(SegmentdError):
        claim.hold()
    with pytest.raises(SegmentdError):
        Claims().claim(mine, subject="c").hold()


@pytest.fixture
def listen() -> Iterator[Callable[[int, str], int]]:
    """Listen on a port of an address; returns the port."""
    made: list[socket.socket] = []

    def open_port(family: int, host: str) -> int:
        sock = socket.socket(family, socket.SOCK_STREAM)
        made.append(sock)
        sock.bind((host, 0))
        sock.listen()
        port: int = sock.getsockname()[1]
        return port

    yield open_port
    for sock in made:
        sock.close()


def test_a_port_that_is_taken_names_the_process(listen: Callable[[int, str], int]) -> None:
    port = listen(socket.AF_INET, "127.0.0.1")
    with pytest.raises(SegmentdError) as caught:
        check_port_free("127.0.0.1", port, f"127.0.0.1:{port}")
    assert caught.value.reason is Reason.LOCKED
    assert caught.value.metadata["pid"] == str(os.getpid())
    assert f'server.listen = "127.0.0.1:{port}"' in caught.value.message
    with pytest.raises(SegmentdError):
        check_port_free("localhost", port, f"localhost:{port}")
    check_port_free("127.0.0.1", 0, "127.0.0.1:0")


def test_an_address_of_another_machine_is_a_mistake_of_the_configuration() -> None:
    with pytest.raises(ConfigurationError, match=r"server\.listen = \"192\.0\.2\.1:50051\": .* this machine"):
        check_port_free("192.0.2.1", 50051, "192.0.2.1:50051")
