"""Images that are done go to another folder: nothing is lost or overwritten, whatever happens."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from segmentd import moving
from segmentd.ingest.scan import sight
from segmentd.moving import Mover, move_file
from segmentd.records import FileStamp, WatchSpec

GO_ON = threading.Event()


@pytest.fixture
def hot(tmp_path: Path) -> Path:
    (tmp_path / "hot" / "sub").mkdir(parents=True)
    return tmp_path / "hot"


@pytest.fixture
def away(tmp_path: Path) -> Path:
    return tmp_path / "away"


@pytest.fixture(params=["one file system", "two", "without RENAME_NOREPLACE"])
def file_systems(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the system says to a rename between the folders."""

    class Kernel:
        def renameat2(self, old_at: int, old: bytes, new_at: int, new: bytes, flags: int) -> int:
            code = errno.EINVAL if request.param.startswith("without") else errno.EXDEV
            if code == errno.EXDEV and old.rpartition(b"/")[2].startswith(b"."):
                return real.renameat2(old_at, old, new_at, new, flags)  # within a folder
            moving.ctypes.set_errno(code)
            return -1

    real = moving._libc
    if request.param != "one file system":
        monkeypatch.setattr(moving, "_libc", Kernel())
    return str(request.param)


def write(hot: Path, name: str, content: bytes) -> FileStamp:
    (hot / name).write_bytes(content)
    (sighting,) = sight(bytes(hot), [name.encode()])
    return sighting.stamp


def in_the_way(path: Path) -> None:
    path.write_bytes(b"no folder")


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_goes_to_the_same_place_below_the_other_folder(
    hot: Path, away: Path, file_systems: str
) -> None:
    stamp = write(hot, "sub/a.tif", b"pixels")
    os.utime(hot / "sub/a.tif", ns=(1, 2))
    stamp = sight(bytes(hot), [b"sub/a.tif"])[0].stamp
    moved = move_file(hot, b"sub/a.tif", stamp, away, GO_ON)
    assert moved == bytes(away / "sub/a.tif")
    assert (away / "sub/a.tif").read_bytes() == b"pixels"
    assert (away / "sub/a.tif").stat().st_mtime_ns == 2
    assert (names(hot), names(away)) == ([], ["sub/a.tif"])


def test_a_file_that_others_name_stays_where_its_name_is_taken(
    hot: Path, away: Path, file_systems: str
) -> None:
    away.mkdir()
    (away / "a.tif").write_bytes(b"another")
    stamp = write(hot, "a.tif", b"pixels")
    with pytest.raises(FileExistsError, match=r"a file of a set keeps its name, and there is another a\.tif"):
        move_file(hot, b"a.tif", stamp, away, GO_ON, keep_name=True)
    assert (names(hot), names(away)) == (["a.tif"], ["a.tif"])
    (away / "a.tif").unlink()
    assert move_file(hot, b"a.tif", stamp, away, GO_ON, keep_name=True) == bytes(away / "a.tif")


def test_nothing_is_overwritten(hot: Path, away: Path, file_systems: str) -> None:
    for number in range(3):
        stamp = write(hot, "a.tif", b"%d" % number)
        move_file(hot, b"a.tif", stamp, away, GO_ON)
    assert {name: (away / name).read_bytes() for name in names(away)} == {
        "a.tif": b"0",
        "a-2.tif": b"1",
        "a-3.tif": b"2",
    }
    assert names(hot) == []


def test_a_file_that_changed_or_went_away_is_left_alone(hot: Path, away: Path) -> None:
    stamp = write(hot, "a.tif", b"old")
    write(hot, "a.tif", b"newer")
    assert move_file(hot, b"a.tif", stamp, away, GO_ON) is None
    (hot / "a.tif").unlink()
    assert move_file(hot, b"a.tif", stamp, away, GO_ON) is None
    (hot / "a.tif").symlink_to("b.tif")
    assert move_file(hot, b"a.tif", stamp, away, GO_ON) is None
    assert names(away) == []


def test_a_file_that_takes_the_place_at_the_last_moment_is_not_taken_away(
    hot: Path, away: Path, file_systems: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = write(hot, "a.tif", b"old")
    take_name = moving._take_name

    def replaced_first(*args: object) -> bytes:
        monkeypatch.undo() if file_systems != "two" else None
        (hot / "next").write_bytes(b"a new image")
        (hot / "next").replace(hot / "a.tif")
        return take_name(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(moving, "_take_name", replaced_first)
    move_file(hot, b"a.tif", stamp, away, GO_ON)
    assert (hot / "a.tif").read_bytes() == b"a new image"
    assert [path for path in names(hot) if path != "a.tif"] == []
    assert all((away / name).read_bytes() == b"old" for name in names(away))


def test_a_copy_that_is_stopped_or_fails_leaves_the_file_where_it_was(
    hot: Path, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_device(*_: object) -> bytes:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    stamp, stopped = write(hot, "a.tif", b"pixels"), threading.Event()
    stopped.set()
    monkeypatch.setattr(moving, "_take_name", other_device)
    with pytest.raises(moving._StoppedError):
        move_file(hot, b"a.tif", stamp, away, stopped)

    def full(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(moving.os, "fsync", full)
    with pytest.raises(OSError, match="Input/output error"):
        move_file(hot, b"a.tif", stamp, away, GO_ON)
    assert (names(hot), names(away)) == (["a.tif"], [])


def test_an_image_that_is_a_folder_is_moved_within_a_file_system(
    hot: Path, away: Path, file_systems: str
) -> None:
    (hot / "a.zarr" / "0").mkdir(parents=True)
    (hot / "a.zarr" / "0" / "chunk").write_bytes(b"pixels")
    (sighting,) = sight(bytes(hot), [b"a.zarr"])
    if file_systems == "two":
        with pytest.raises(IsADirectoryError, match="one file system"):
            move_file(hot, b"a.zarr", sighting.stamp, away, GO_ON)
        assert names(hot / "a.zarr") == ["0/chunk"]
    else:
        assert move_file(hot, b"a.zarr", sighting.stamp, away, GO_ON) == bytes(away / "a.zarr")
        assert (away / "a.zarr" / "0" / "chunk").read_bytes() == b"pixels"
        assert not (hot / "a.zarr").exists()


async def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(4000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come")


async def test_a_mover_tells_what_stops_it_and_goes_on_later(hot: Path, away: Path) -> None:
    now = [100.0]
    mover = Mover(WatchSpec("w", hot, "m", hot / "segmented", move_to=away), lambda: now[0])
    left = hot / ".b.tif.segmentd-0123abcd.part"
    left.write_bytes(b"its copy is at its place")
    running = asyncio.create_task(mover.run())
    in_the_way(away)
    stamp = write(hot, "a.tif", b"pixels")
    mover.want(b"a.tif", stamp)
    await wait_for(lambda: mover.trouble)
    assert f"cannot be moved to {away}: Not a directory" in mover.trouble
    assert not left.exists()
    os.unlink(away)  # noqa: PTH108
    mover.want(b"a.tif", stamp)
    assert not mover._wanted, "it waits a while before it tries again"
    now[0] += moving.RETRY_SECONDS
    mover.want(b"a.tif", stamp)
    await wait_for(lambda: names(away) == ["a.tif"])
    await wait_for(lambda: not mover.trouble)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_watch_that_keeps_its_images_moves_none(hot: Path) -> None:
    mover = Mover(WatchSpec("w", hot, "m", hot / "segmented"))
    mover.want(b"a.tif", write(hot, "a.tif", b"pixels"))
    await mover.run()
    assert names(hot) == ["a.tif"]
