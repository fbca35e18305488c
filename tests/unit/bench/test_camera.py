from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from segmentd_bench import camera, subjects


@pytest.fixture(scope="module")
def subject() -> subjects.Subject:
    return subjects.texture(64, 2)


def test_frames_differ_and_are_plain_files(subject: subjects.Subject, tmp_path: Path) -> None:
    content = camera.frames(subject)
    assert len(set(content)) == camera.DISTINCT_FRAMES
    camera.write(tmp_path, "a.tif", content[0])
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages.first.compression == 1
        assert tiff.asarray().dtype == np.uint16
        assert (tiff.asarray() == subject.pixels[0]).all()


def test_staged_frames_appear_when_they_are_dropped(subject: subjects.Subject, tmp_path: Path) -> None:
    wanted = camera.names(3, "frame")
    camera.stage(tmp_path, wanted, camera.frames(subject))
    assert not list(tmp_path.glob("*.tif"))
    camera.drop(tmp_path, wanted)
    assert sorted(path.name for path in tmp_path.iterdir()) == wanted


def test_a_camera_does_not_run_ahead_of_its_rate(subject: subjects.Subject, tmp_path: Path) -> None:
    wanted = camera.names(4, "frame")
    closed = camera.shoot(tmp_path, wanted, camera.frames(subject), rate_per_s=100)
    assert closed == sorted(closed)
    assert closed[-1] - closed[0] > 0.01
    assert sorted(path.name for path in tmp_path.iterdir()) == wanted
