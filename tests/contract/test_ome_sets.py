"""OME-TIFF sets: several files are what one of the same content is, and nothing outside is opened."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest import structure
from segmentd.ingest.readers import OpenImage, open_image
from segmentd.ingest.scan import look
from segmentd.ingest.verdict import Verdict
from segmentd.workers import WorkerPool

from ..unit.ingest import ome_sets
from ..unit.ingest.ome_sets import ome, pixels_xml, tiff_data, uuid_of, write_member

MEMORY_BYTES = 1 << 30
FAULTS = {Reason.IMAGE_INCOMPLETE, Reason.IMAGE_CORRUPT, Reason.IMAGE_UNSUPPORTED, Reason.IMAGE_TOO_LARGE}


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1, memory_bytes=MEMORY_BYTES) as started:
        yield started


def all_pixels(image: OpenImage) -> npt.NDArray[Any]:
    """All planes, as (scenes, T, Z, C, Y, X)."""
    info = image.info
    planes = np.stack([image.read_plane(index).pixels for index in info.planes()])
    return planes.reshape(info.scenes, info.size_t, info.size_z, *planes.shape[1:])


WRITERS: dict[str, Callable[..., list[Path]]] = {
    "full XML in each file": lambda folder, pixels: ome_sets.write_by_time(folder, pixels),
    "companion": lambda folder, pixels: ome_sets.write_by_time(folder, pixels, companion=True),
    "compressed strips": lambda folder, pixels: ome_sets.write_by_time(
        folder, pixels, companion=True, compression="zlib", rowsperstrip=7
    ),
}


@pytest.mark.parametrize("how", WRITERS)
def test_a_set_is_what_one_file_of_the_same_content_is(how: str, pool: WorkerPool, tmp_path: Path) -> None:
    pixels = ome_sets.random_pixels((3, 2, 4, 40, 30))
    leader, *members = WRITERS[how](tmp_path, pixels)
    single = tmp_path / "single.ome.tif"
    tifffile.imwrite(single, pixels, metadata={"axes": "TCZYX"}, photometric="minisblack")
    with open_image(pool, leader) as image, open_image(pool, single) as one:
        np.testing.assert_array_equal(all_pixels(image), all_pixels(one))
        assert (image.info.size_t, image.info.size_z, image.info.channel_count) == (3, 4, 2)
        index = list(image.info.planes())[-1]
        rows = image.read_plane(index).pixels[:, 5:23]
        np.testing.assert_array_equal(image.read_rows(index, 5, 23), rows)
        assert [part.path for part in image.parts] == sorted(bytes(Path(file.name)) for file in members)
    if not leader.name.endswith("companion.ome"):
        axes = tifffile.imread(leader, series=0)  # tifffile finds the other files by itself
        np.testing.assert_array_equal(axes, pixels)


def test_positions_of_micro_manager_are_scenes(pool: WorkerPool, tmp_path: Path) -> None:
    pixels = ome_sets.random_pixels((3, 2, 1, 2, 20, 30))
    leader, *members = ome_sets.write_by_position(tmp_path, pixels)
    with open_image(pool, leader) as image:
        assert image.info.scenes == 3
        np.testing.assert_array_equal(all_pixels(image), pixels.transpose(0, 1, 3, 2, 4, 5))
    with pytest.raises(SegmentdError, match=r"part of the set of a_MMStack_Pos0\.ome\.tif; open that one"):
        open_image(pool, members[0])


def test_one_file_a_plane_and_colours(pool: WorkerPool, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (2, 3, 20, 30, 3), np.uint8)
    names = {(t, z): f"b_T{t}_Z{z}.ome.tif" for t in range(2) for z in range(3)}
    data = "".join(tiff_data(name, t=t, z=z) for (t, z), name in names.items())
    body = pixels_xml((2, 3, 3, 20, 30), data).replace(
        'ID="Channel:0:0"', 'ID="Channel:0:0" SamplesPerPixel="3"'
    )
    for number in (1, 2):
        body = body.replace(f'<Channel ID="Channel:0:{number}" Name="channel {number}"/>', "")
    for (t, z), name in names.items():
        tifffile.imwrite(
            tmp_path / name,
            pixels[t, z],
            photometric="rgb",
            metadata=None,
            description=ome(body, name).encode(),
        )
    with open_image(pool, tmp_path / names[0, 0]) as image:
        assert image.info.rgb
        assert image.info.plane_count == 6
        np.testing.assert_array_equal(all_pixels(image)[0], pixels.transpose(0, 1, 4, 2, 3))


def test_more_files_than_are_open_at_a_time(pool: WorkerPool, tmp_path: Path) -> None:
    pixels = ome_sets.random_pixels((40, 1, 1, 8, 9))
    leader = ome_sets.write_by_time(tmp_path, pixels)[0]
    with open_image(pool, leader) as image:
        for _ in range(2):
            np.testing.assert_array_equal(all_pixels(image)[0, :, :, 0], pixels[:, 0])


def test_the_digest_is_that_of_all_files_and_not_of_the_leaders_name(
    pool: WorkerPool, tmp_path: Path
) -> None:
    leader, _, last = ome_sets.write_by_time(tmp_path, ome_sets.random_pixels(), companion=True)
    with open_image(pool, leader) as image:
        before = image.content_digest
        image.check_unchanged()
        renamed = leader.rename(tmp_path / "b.companion.ome")
    with open_image(pool, renamed) as image:
        assert image.content_digest == before
        xml = ome_sets.binary_only(last.name, leader.name)
        write_member(last, ome_sets.random_pixels((6, 24, 32)), xml)
        with pytest.raises(SegmentdError) as caught:
            image.check_unchanged()
        assert caught.value.reason is Reason.IMAGE_CHANGED
    with open_image(pool, renamed) as image:
        assert image.content_digest != before


def verdict_of(path: Path) -> structure.Structure:
    found = look(bytes(path.parent), bytes(Path(path.name)))
    assert found is not None
    return found.structure


def test_what_is_wrong_with_a_member_is_wrong_with_the_set(pool: WorkerPool, tmp_path: Path) -> None:
    leader, first, second = ome_sets.write_by_time(tmp_path, ome_sets.random_pixels(), companion=True)
    assert verdict_of(leader).verdict is Verdict.CLOSED
    assert verdict_of(first).verdict is Verdict.PART
    whole = second.read_bytes()

    def refused(data: bytes | None) -> tuple[Verdict, str]:
        second.unlink(missing_ok=True)
        if data is not None:
            second.write_bytes(data)
        found = verdict_of(leader)
        assert found.fault is not None
        with pytest.raises(SegmentdError) as caught:
            open_image(pool, leader)
        assert (caught.value.reason, caught.value.message) == (found.fault.reason, found.fault.message)
        return found.verdict, found.fault.message

    assert refused(None) == (
        Verdict.OPEN,
        "a.companion.ome is incomplete: its set lacks 1 of 2 files, for example a_T1.ome.tif; copy it again "
        "when its writer is done",
    )
    assert refused(whole[:-9])[0] is Verdict.OPEN
    verdict, text = refused(whole.replace(uuid_of(second.name).encode(), uuid_of("x").encode()))
    assert verdict is Verdict.BAD
    assert "belongs to another set" in text
    verdict, text = refused(b"GIF89a")
    assert verdict is Verdict.BAD
    assert "a_T1.ome.tif that is no TIFF" in text
    write_member(second, np.zeros((5, 24, 32), np.uint8), ome_sets.binary_only(second.name, leader.name))
    verdict, text = refused(second.read_bytes())
    assert verdict is Verdict.OPEN
    assert "a_T1.ome.tif has 5 of 6 planes" in text
    second.write_bytes(whole)
    assert verdict_of(leader).verdict is Verdict.CLOSED


def test_a_companion_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    leader = ome_sets.write_by_time(tmp_path, ome_sets.random_pixels(), companion=True)[0]
    text = leader.read_bytes()
    for end in (0, 3, 60, len(text) // 2, len(text) - 1):
        leader.write_bytes(text[:end])
        assert verdict_of(leader).verdict is Verdict.OPEN
    leader.write_bytes(text[:99] + b"<" + text[99:])
    assert verdict_of(leader).verdict is Verdict.BAD


def test_a_look_at_many_members_takes_some_seconds_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, *members = ome_sets.write_by_time(
        tmp_path, ome_sets.random_pixels((5, 1, 1, 8, 9)), companion=True
    )
    monkeypatch.setattr(structure, "LOOK_SECONDS", -1.0)
    found = verdict_of(leader)
    assert (found.verdict, found.parts) == (Verdict.OPEN, ())
    assert found.fault is not None
    assert "its set of 5 files is still looked at, 0 so far" in found.fault.message
    monkeypatch.undo()
    assert len(verdict_of(leader).parts) == len(members)


def test_who_leads_is_told_by_any_member_whatever_was_read_before(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        leader, *members = ome_sets.write_by_time(tmp_path, ome_sets.random_pixels((4, 1, 1, 8, 9)), stem)
        for _ in range(2):
            for member in (*members, *members):
                assert verdict_of(member).leader == bytes(Path(leader.name))
            assert [part.path for part in verdict_of(leader).parts] == [bytes(Path(m.name)) for m in members]


HOSTILE_NAMES = ["../x.tif", "/etc/passwd", "..", ".", "", "a/b.tif", "a\\b.tif", "a" * 300]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_that_lead_out_of_the_folder_are_refused(name: str, pool: WorkerPool, tmp_path: Path) -> None:
    (tmp_path / "hot").mkdir()
    (tmp_path / "x.tif").write_bytes(b"secret")
    data = tiff_data("a.ome.tif") + tiff_data(name or "?", z=1).replace('"?"', '""')
    body = pixels_xml((1, 1, 2, 8, 9), data)
    leader = write_member(
        tmp_path / "hot" / "a.ome.tif", np.zeros((1, 8, 9), np.uint8), ome(body, "a.ome.tif")
    )
    found = verdict_of(leader)
    assert found.verdict is Verdict.BAD
    with pytest.raises(SegmentdError) as caught:
        open_image(pool, leader)
    assert caught.value.reason in FAULTS


def test_a_member_that_is_no_file_is_refused_and_never_opened(pool: WorkerPool, tmp_path: Path) -> None:
    secret = write_member(tmp_path / "secret.tif", np.zeros((6, 24, 32), np.uint8), "")
    folder = tmp_path / "hot"
    folder.mkdir()
    leader, _, second = ome_sets.write_by_time(folder, ome_sets.random_pixels(), companion=True)

    def fifo(path: Path) -> None:
        os.mkfifo(path)

    kinds: list[Callable[[Path], None]] = [fifo, Path.mkdir, lambda path: path.symlink_to(secret)]
    for make in kinds:
        if second.is_dir() and not second.is_symlink():
            second.rmdir()
        else:
            second.unlink()
        make(second)
        found = verdict_of(leader)
        assert found.verdict is Verdict.BAD
        assert found.fault is not None
        assert "is a link, a folder or a device" in found.fault.message
        with pytest.raises(SegmentdError) as caught:
            open_image(pool, leader)
        assert caught.value.reason is Reason.IMAGE_UNSUPPORTED


def test_a_set_that_names_itself_or_one_file_a_thousand_times(pool: WorkerPool, tmp_path: Path) -> None:
    itself = tmp_path / "itself.ome.tif"
    write_member(itself, np.zeros((1, 8, 9), np.uint8), ome_sets.binary_only(itself.name, itself.name))
    assert verdict_of(itself).verdict is Verdict.BAD
    companion = tmp_path / "b.companion.ome"
    companion.write_text(ome(pixels_xml((1, 1, 1, 8, 9), tiff_data(companion.name)), companion.name))
    assert verdict_of(companion).verdict is Verdict.BAD
    for leader, other in (("c", "d"), ("d", "c")):  # each says that the other one has the metadata
        path = tmp_path / f"{leader}.ome.tif"
        write_member(path, np.zeros((1, 8, 9), np.uint8), ome_sets.binary_only(path.name, f"{other}.ome.tif"))
    assert verdict_of(tmp_path / "c.ome.tif").verdict is Verdict.BAD
    data = tiff_data("e.ome.tif") + 1000 * tiff_data("f.ome.tif", z=1)
    for name in ("e.ome.tif", "f.ome.tif"):
        xml = ome(pixels_xml((1, 1, 2, 8, 9), data), name)
        write_member(tmp_path / name, np.zeros((1, 8, 9), np.uint8), xml)
    assert len(verdict_of(tmp_path / "e.ome.tif").parts) == 1
    with open_image(pool, tmp_path / "e.ome.tif") as image:
        assert all_pixels(image).shape == (1, 1, 2, 1, 8, 9)


def test_too_many_members_and_missing_planes_are_refused(pool: WorkerPool, tmp_path: Path) -> None:
    data = "".join(tiff_data(f"m{z}.ome.tif", z=z) for z in range(10_002))
    leader = tmp_path / "a.companion.ome"
    leader.write_text(ome(pixels_xml((1, 1, 10_002, 8, 9), data), leader.name))
    found = verdict_of(leader)
    assert found.fault is not None
    assert (found.verdict, found.fault.reason) == (Verdict.BAD, Reason.IMAGE_TOO_LARGE)
    leader, *_ = ome_sets.write_by_time(tmp_path, ome_sets.random_pixels(), stem="b", companion=True)
    leader.write_text(leader.read_text().replace('SizeT="2"', 'SizeT="3"'))
    with pytest.raises(SegmentdError, match="says nothing of 6 of its 18 planes") as caught:
        open_image(pool, leader)
    assert caught.value.reason is Reason.IMAGE_INCOMPLETE


def fuzz(count: int, seed: int, pool: WorkerPool, folder: Path) -> None:
    """Damage the XML of leaders and members, with hostile names too: faults of the file and nothing else."""
    random = Random(seed)
    read = 0
    for number in range(count):
        below = folder / str(number)
        below.mkdir()
        pixels = np.zeros((2, 1, 1, 8, 9), np.uint8)
        leader, *members = ome_sets.write_by_time(below, pixels, companion=random.random() < 0.5)
        os.mkfifo(below / "pipe")
        (below / "link").symlink_to("/etc/passwd")
        path = random.choice([leader, leader, members[-1]])
        data = bytearray(path.read_bytes())
        start, end = data.find(b"<?xml"), data.find(b"</OME>") + 6
        for _ in range(random.choice((1, 1, 2, 6))):
            at = random.randrange(start, end)
            named = data.find(b'FileName="', at)
            if named > 0 and random.random() < 0.6:
                name = random.choice((b"../a.tif__", b"/etc/shado", b"link", b"pipe", b".", b"a_T0.ome.t"))
                data[named + 10 : named + 10 + len(name)] = name
                if len(name) < 10:
                    data[named + 10 + len(name)] = ord('"')
            elif random.random() < 0.5:
                data[at] = random.choice(b'<>"&0129aZ\0\xff')
            else:
                data[at : at + 4] = random.choice((b"9999", b"-1-1", b"<a/>", b"0000"))
        path.write_bytes(data)
        for file in (leader, *members):
            verdict_of(file)
            try:
                with open_image(pool, file) as image:
                    read += all_pixels(image).size > 0
            except SegmentdError as error:
                assert error.reason in FAULTS, error.message
        shutil.rmtree(below)
    assert 0 < read < count


def test_damaged_sets_are_faults_of_the_files(pool: WorkerPool, tmp_path: Path) -> None:
    fuzz(25, 3, pool, tmp_path)


@pytest.mark.slow
def test_many_damaged_sets_are_faults_of_the_files(pool: WorkerPool, tmp_path: Path) -> None:
    fuzz(500, 4, pool, tmp_path)
