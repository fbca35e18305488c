from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from segmentd.errors import Reason, SegmentdError
from segmentd.records import ClassInfo, FrameInfo, PixelType, PlaneIndex
from segmentd.results.durable import clean_temporaries
from segmentd.results.store import ResultFile, ResultWriter

CLASSES = (ClassInfo(1, "background", "#000000"), ClassInfo(2, "nucleus", "#FF0000"))
FRAME = FrameInfo("PNG", PixelType.UINT8, 20, 30, ("grey",))
LABELS = np.full((20, 30), 2, np.uint8)
PIXELS = np.zeros((1, 20, 30), np.uint8)
OUTPUTS = ("labels", "confidence", "overlay")


def open_writer(folder: Path, source: bytes = b"a.tif", **options: Any) -> ResultWriter:
    options = {"outputs": OUTPUTS, "frame": FRAME} | options
    return ResultWriter(folder, source, classes=CLASSES, content_digest="ab", **options)


def write(folder: Path, source: bytes = b"a.tif", **options: Any) -> dict[str, ResultFile]:
    with open_writer(folder, source, **options) as writer:
        writer.write_plane(PlaneIndex(), LABELS, LABELS, PIXELS)
        return writer.commit()


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_results_are_named_after_their_input_below_the_same_subfolders(tmp_path: Path) -> None:
    files = write(tmp_path / "new" / "results", b"sub/deep/a.tif")
    assert names(tmp_path / "new" / "results") == [
        "sub/deep/a.tif.confidence.ome.tif",
        "sub/deep/a.tif.labels.ome.tif",
        "sub/deep/a.tif.overlay.png",
    ]
    for file in files.values():
        assert file.path.is_absolute()
        assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
    np.testing.assert_array_equal(tifffile.imread(files["labels"].path), LABELS)
    assert imagecodecs.png_decode(files["overlay"].path.read_bytes()).shape == (20, 30, 3)


def test_any_name_works(tmp_path: Path) -> None:
    for source in (b"\xff\n\x1b.tif", b"x" * 255, b"sub\xfe/ a ", "\N{MICROSCOPE}".encode() * 63):
        assert write(tmp_path, source)["labels"].path.is_file()


def test_only_the_outputs_wanted_are_written(tmp_path: Path) -> None:
    assert list(write(tmp_path, outputs={"classes"})) == ["classes"]
    assert names(tmp_path) == ["a.tif.classes.ome.tif"]
    with pytest.raises(ValueError, match="no such outputs"):
        open_writer(tmp_path, outputs=("lables",))


@pytest.mark.parametrize("pixel_type", list(PixelType))
def test_the_image_can_be_in_front_of_the_classes(tmp_path: Path, pixel_type: PixelType) -> None:
    frame = FrameInfo("TIFF", pixel_type, 300, 30, ("DAPI", "GFP"), size_z=2)
    pixels = np.arange(2 * 2 * 300 * 30).reshape(2, 2, 300, 30).astype(pixel_type.value)
    labels = np.random.default_rng(0).integers(0, 3, (2, 300, 30)).astype(np.uint8)
    with open_writer(tmp_path, outputs=("classes",), frame=frame, with_image=True) as writer:
        for z in range(2):
            writer.write_plane(PlaneIndex(z=z), labels[z], labels[z], pixels[z])
        path = writer.commit()["classes"].path
    read = tifffile.imread(path)
    assert read.dtype == pixel_type.value
    wanted = [np.stack([*pixels[z], (labels[z] == 1) * 255, (labels[z] == 2) * 255]) for z in range(2)]
    np.testing.assert_array_equal(read, wanted)
    with tifffile.TiffFile(path) as tiff:
        assert [tiff.ome_metadata.count(f'Name="{name}"') for name in ("DAPI", "GFP", "nucleus")] == [1, 1, 1]


def test_the_overlay_of_a_stack_shows_its_first_plane(tmp_path: Path) -> None:
    frame = FrameInfo("TIFF", PixelType.UINT8, 20, 30, ("grey",), size_z=2)
    with open_writer(tmp_path, frame=frame) as writer:
        writer.write_plane(PlaneIndex(z=0), LABELS, LABELS, PIXELS)
        writer.write_plane(PlaneIndex(z=1), np.zeros_like(LABELS), LABELS, PIXELS)
        files = writer.commit()
    assert imagecodecs.png_decode(files["overlay"].path.read_bytes())[10, 10, 0] > 100
    assert tifffile.imread(files["labels"].path).shape == (2, 20, 30)


def test_planes_must_come_in_order_and_all(tmp_path: Path) -> None:
    frame = FrameInfo("TIFF", PixelType.UINT8, 20, 30, ("grey",), size_z=2)
    with open_writer(tmp_path, frame=frame) as writer, pytest.raises(ValueError, match="was due"):
        writer.write_plane(PlaneIndex(z=1), LABELS, LABELS, PIXELS)
    with open_writer(tmp_path, frame=frame) as writer:
        writer.write_plane(PlaneIndex(), LABELS, LABELS, PIXELS)
        with pytest.raises(ValueError, match="1 of 2 pages"):
            writer.commit()
    assert names(tmp_path) == []


TALL = FrameInfo("TIFF", PixelType.UINT8, 600, 30, ("grey",), size_z=2)
BAND = np.full((256, 30), 1, np.uint8)


def write_band(writer: ResultWriter, z: int, y: int, rows: int, **other: np.ndarray) -> None:
    band = np.full((rows, 30), 1, np.uint8)
    arrays = {"labels": band, "confidence": band, "pixels": band[np.newaxis]} | other
    writer.write_band(PlaneIndex(z=z), y, **arrays)


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ([(0, 256, 256)], "row 256 .* row 0"),
        ([(0, 0, 256), (0, 0, 256)], "row 0 .* row 256"),
        ([(0, 0, 256), (1, 256, 256)], "z=1.* z=0"),
        ([(0, 0, 100)], "multiple of 256 rows or the 600"),
        ([(0, 0, 0)], "multiple of 256"),
        ([(0, 0, 512), (0, 512, 256)], "the 88 that are left"),
        ([(0, 0, 600), (0, 0, 256)], "z=0.* z=1"),
        ([(0, 0, 600), (1, 0, 600), (1, 600, 256)], "None was due"),
    ],
)
def test_bands_must_come_in_order(tmp_path: Path, bands: list[tuple[int, int, int]], message: str) -> None:
    with open_writer(tmp_path, frame=TALL) as writer:
        for band in bands[:-1]:
            write_band(writer, *band)
        with pytest.raises(ValueError, match=message):
            write_band(writer, *bands[-1])
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "other",
    [
        {"confidence": BAND[:9]},
        {"pixels": BAND[np.newaxis, :, :9]},
        {"labels": BAND[:, :9]},
        {"pixels": BAND},
    ],
)
def test_arrays_of_a_band_must_fit_together(tmp_path: Path, other: dict[str, np.ndarray]) -> None:
    with open_writer(tmp_path, frame=TALL) as writer, pytest.raises(ValueError, match="of a band differ"):
        write_band(writer, 0, 0, 256, **other)


@pytest.mark.parametrize("outputs", [("labels",), ("overlay",)])
@pytest.mark.parametrize("bands", [[], [(0, 0, 256)], [(0, 0, 600)], [(0, 0, 600), (1, 0, 512)]])
def test_an_unfinished_image_is_not_committed(
    tmp_path: Path, outputs: tuple[str], bands: list[tuple[int, int, int]]
) -> None:
    with open_writer(tmp_path, frame=TALL, outputs=outputs) as writer:
        for band in bands:
            write_band(writer, *band)
        with pytest.raises(ValueError, match=r"pages were written|not all was written"):
            writer.commit()
    assert names(tmp_path) == []


def test_a_part_of_a_plane_is_no_plane(tmp_path: Path) -> None:
    with open_writer(tmp_path, frame=TALL) as writer, pytest.raises(ValueError, match=r"shape \(256, 30\)"):
        writer.write_plane(PlaneIndex(), BAND, BAND, BAND[np.newaxis])


def test_nothing_is_visible_before_commit_and_nothing_left_without(tmp_path: Path) -> None:
    with open_writer(tmp_path) as writer:
        writer.write_plane(PlaneIndex(), LABELS, LABELS, PIXELS)
        assert len(names(tmp_path)) == 3
        assert all(name.startswith(".a.tif.") and name.endswith(".part") for name in names(tmp_path))
    assert names(tmp_path) == []
    with pytest.raises(ValueError, match="committed or aborted"):
        writer.commit()


def test_old_results_stay_until_new_ones_replace_them(tmp_path: Path) -> None:
    old = write(tmp_path)["labels"]
    with open_writer(tmp_path) as writer:
        writer.write_plane(PlaneIndex(), LABELS * 0, LABELS, PIXELS)
        assert tifffile.imread(old.path).max() == 2
        new = writer.commit()["labels"]
    assert new.path == old.path
    assert new.sha256 != old.sha256
    assert tifffile.imread(old.path).max() == 0


def test_each_file_is_synced_before_it_gets_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def logged_fsync(descriptor: int) -> None:
        calls.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def logged_replace(source: bytes, target: bytes, **folders: int) -> None:
        calls.append(("rename", os.fsdecode(source)))
        replace(source, target, **folders)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "replace", logged_replace)
    write(tmp_path / "results", b"sub/a.tif")

    assert calls[:2] == [("fsync", tmp_path.name), ("fsync", "results")]  # the two folders made
    synced, renamed = calls[2:5], calls[5:8]
    # The files are synced side by side, so in any order.
    assert {name for kind, name in synced if kind == "fsync"} == {name for _, name in renamed}
    assert [kind for kind, _ in renamed] == ["rename"] * 3
    assert len(set(synced)) == 3
    assert calls[8:] == [("fsync", "sub")]


def failing(error: int, calls: list[int]) -> Any:
    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(error, os.strerror(error))

    return fail


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, Reason.DISK_FULL),
        (errno.EDQUOT, Reason.DISK_FULL),
        (errno.EIO, Reason.RESULTS_NOT_WRITABLE),
    ],
)
def test_a_failed_sync_is_not_repeated_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: Reason
) -> None:
    calls: list[int] = []
    with open_writer(tmp_path) as writer:
        writer.write_plane(PlaneIndex(), LABELS, LABELS, PIXELS)
        monkeypatch.setattr(os, "fsync", failing(code, calls))
        with pytest.raises(SegmentdError) as caught:
            writer.commit()
    assert caught.value.reason == reason
    assert str(tmp_path) in caught.value.message
    assert 1 <= len(calls) == len(set(calls))  # no descriptor twice
    assert names(tmp_path) == []


def fill_disk(writer: ResultWriter, kind: str) -> None:
    full = os.open("/dev/full", os.O_RDWR)  # takes no byte
    os.dup2(full, writer._files._files[kind].file.fileno())
    os.close(full)


@pytest.mark.parametrize("bands_before", [0, 1, 3])
@pytest.mark.parametrize("kind", ["labels", "classes"])
def test_a_full_disk_while_writing_is_told_as_such(tmp_path: Path, kind: str, bands_before: int) -> None:
    frame = FrameInfo("PNG", PixelType.UINT8, 2000, 2000, ("grey",))
    noise = np.random.default_rng(0).integers(0, 255, (256, 2000), np.uint8)
    with open_writer(tmp_path, outputs=("confidence", kind), frame=frame) as writer:
        for y in range(0, 256 * bands_before, 256):
            writer.write_band(PlaneIndex(), y, noise, noise, noise[np.newaxis])
        fill_disk(writer, kind)
        with pytest.raises(SegmentdError) as caught:
            writer.write_band(PlaneIndex(), 256 * bands_before, noise, noise, noise[np.newaxis])
    assert caught.value.reason == Reason.DISK_FULL
    assert names(tmp_path) == []


def test_a_disk_that_is_full_at_the_end_is_told_as_such(tmp_path: Path) -> None:
    with open_writer(tmp_path) as writer:
        writer.write_plane(PlaneIndex(), LABELS, LABELS, PIXELS)
        fill_disk(writer, "labels")
        with pytest.raises(SegmentdError) as caught:
            writer.commit()
    assert caught.value.reason == Reason.DISK_FULL
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SegmentdError, match="file/results") as caught:
        open_writer(tmp_path / "file" / "results")
    assert caught.value.reason == Reason.RESULTS_NOT_WRITABLE


def test_nothing_is_written_outside_the_results_folder(tmp_path: Path) -> None:
    outside, results = tmp_path / "outside", tmp_path / "results"
    outside.mkdir()
    results.mkdir()
    (results / "sub").symlink_to(outside)
    with pytest.raises(SegmentdError) as caught:
        write(results, b"sub/a.tif")
    assert caught.value.reason == Reason.RESULTS_NOT_WRITABLE
    with pytest.raises(SegmentdError):
        write(results, b"../outside/a.tif")
    assert names(outside) == []


def test_the_results_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link")
    assert len(names(tmp_path / "real")) == 3


def test_cleaning_removes_abandoned_temporaries_only(tmp_path: Path) -> None:
    write(tmp_path, b"sub/a.tif")
    results = names(tmp_path)
    user_file = tmp_path / ".notes.part"
    user_file.write_text("")
    for folder in (tmp_path, tmp_path / "sub"):
        (folder / ".a.tif.labels.ome.tif.segmentd-0123abcd.part").write_text("half")
    (tmp_path / ".link.segmentd-0123abcd.part").symlink_to(user_file)
    with (tmp_path / ".b.segmentd-89abcdef.part").open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        assert clean_temporaries(tmp_path) == 2
        assert names(tmp_path) == sorted(
            [".b.segmentd-89abcdef.part", ".link.segmentd-0123abcd.part", ".notes.part", *results]
        )
    assert clean_temporaries(tmp_path) == 1
    assert clean_temporaries(tmp_path / "none") == 0


KILLED_AT_EACH_CALL = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    import segmentd.results.store as store
    from segmentd.records import *

    def writer(folder):
        classes = (ClassInfo(1, "a", "#000000"),)
        frame = FrameInfo("PNG", PixelType.UINT8, 20, 30, ("grey",))
        return store.ResultWriter(folder, b"s/a.tif", ("labels", "confidence"), frame, classes, "ab")

    def write(folder, value):
        with writer(folder) as results:
            plane = np.full((20, 30), value, np.uint8)
            results.write_plane(PlaneIndex(), plane, plane, plane[np.newaxis])
            results.commit()

    def kill_at(countdown):
        def wrap(function):
            def wrapped(*args, **kwargs):
                nonlocal countdown
                countdown -= 1
                if countdown < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)
            return wrapped
        for name in ("open", "mkdir", "fsync", "replace", "unlink"):
            setattr(os, name, wrap(getattr(os, name)))

    root = Path(sys.argv[1])
    for countdown in range(100):
        folder = root / str(countdown)
        write(folder, 1)
        child = os.fork()
        if child == 0:
            kill_at(countdown)
            write(folder, 2)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        print(countdown, os.waitstatus_to_exitcode(status), flush=True)
        if status == 0:
            break
""")


def test_after_a_kill_at_any_call_each_result_is_whole_and_no_temporary_stays(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EACH_CALL, str(tmp_path)], capture_output=True, text=True, check=True
    )
    codes = [int(line.split()[1]) for line in run.stdout.splitlines()]
    assert codes[-1] == 0
    assert set(codes[:-1]) == {-signal.SIGKILL}
    assert len(codes) > 8
    values = []
    for countdown in range(len(codes)):
        folder = tmp_path / str(countdown)
        clean_temporaries(folder)
        assert names(folder) == ["s/a.tif.confidence.ome.tif", "s/a.tif.labels.ome.tif"]
        planes = [tifffile.imread(folder / name) for name in names(folder)]
        assert all(np.ptp(plane) == 0 for plane in planes)
        values.append({int(plane[0, 0]) for plane in planes})
    assert values[0] == {1}
    assert {1, 2} in values
    assert values[-1] == {2}
