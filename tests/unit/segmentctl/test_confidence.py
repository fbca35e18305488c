"""The minimum confidence on arrays and on files of all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from segmentctl import minimum_confidence
from segmentctl.cli import app
from segmentd.errors import Reason, SegmentdError
from segmentd.records import ClassInfo, FrameInfo, PixelSize, PixelType, PlaneIndex
from segmentd.results.store import ResultWriter

RNG = np.random.default_rng(3)
SHAPE = (2, 300, 530)
LABELS = RNG.integers(0, 3, SHAPE).astype(np.uint8)
CONFIDENCE = RNG.integers(0, 101, SHAPE).astype(np.uint8)
KEPT = np.where(CONFIDENCE >= 61, LABELS, 0)


def results(folder: Path, outputs: tuple[str, ...], with_image: bool = False) -> dict[str, Path]:
    """Write the results of a stack of two slices."""
    frame = FrameInfo(
        "TIFF", PixelType.UINT16, *SHAPE[1:], ("GFP",), size_z=2, pixel_size=PixelSize(0.25, 0.5)
    )
    classes = (ClassInfo(1, "ground", "#000000"), ClassInfo(2, "cell", "#FF0000"))
    pixels = np.full((1, *SHAPE[1:]), 7, np.uint16)
    with ResultWriter(folder, b"a.tif", outputs, frame, classes, "ab", with_image=with_image) as writer:
        for z in range(2):
            writer.write_plane(PlaneIndex(z=z), LABELS[z], CONFIDENCE[z], pixels)
        return {kind: file.path for kind, file in writer.commit().items()}


def test_arrays() -> None:
    found = minimum_confidence(LABELS, CONFIDENCE, 61)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, KEPT)
    channels = (LABELS[0] == np.array([1, 2])[:, None, None]) * np.uint16(255)
    kept = minimum_confidence(channels, CONFIDENCE[0], 61)
    np.testing.assert_array_equal(kept, np.where(CONFIDENCE[0] >= 61, channels, 0))
    np.testing.assert_array_equal(minimum_confidence(LABELS, CONFIDENCE, 0), LABELS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LABELS, CONFIDENCE, 101), "0 to 100"),
        ((LABELS, CONFIDENCE, float("nan")), "0 to 100"),
        ((LABELS, CONFIDENCE[:, :-1], 5), "do not fit"),
        ((LABELS, "file.tif", 5), "two arrays, or two files"),
        (("a.tif", "file.tif", 5), "two files and `out`"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        minimum_confidence(*arguments)


def test_result_files_keep_their_planes_and_what_they_say(tmp_path: Path) -> None:
    paths = results(tmp_path, ("labels", "confidence"))
    out = tmp_path / "new" / "sure.ome.tif"
    command = ["min-confidence", *map(str, paths.values()), "61", "--out", str(out)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert [path.name for path in out.parent.iterdir()] == ["sure.ome.tif"]
    np.testing.assert_array_equal(tifffile.imread(out), KEPT)
    with tifffile.TiffFile(out) as new, tifffile.TiffFile(paths["labels"]) as old:
        assert new.series[0].axes == old.series[0].axes == "ZYX"
        given, made = old.ome_metadata, new.ome_metadata
    assert "ground #000000" in made and 'PhysicalSizeX="0.5"' in made
    assert given != made  # another file has another UUID
    np.testing.assert_array_equal(minimum_confidence(tifffile.imread(out), CONFIDENCE, 61), KEPT)


def test_channels_of_classes_and_of_the_image(tmp_path: Path) -> None:
    for with_image in (False, True):
        paths = results(tmp_path, ("classes", "confidence"), with_image)
        out = tmp_path / "out.ome.tif"
        minimum_confidence(paths["classes"], paths["confidence"], 61, out)
        found = tifffile.imread(out)
        assert found.shape == (2, 2 + with_image, *SHAPE[1:])
        assert found.dtype == (np.uint16 if with_image else np.uint8)
        np.testing.assert_array_equal(found[:, -2:], np.stack([KEPT == 1, KEPT == 2], axis=1) * 255)
        assert not with_image or (found[:, 0] == 7).all()


def test_simple_files(tmp_path: Path) -> None:
    labels, confidence, out = tmp_path / "l.png", tmp_path / "c.tif", tmp_path / "o.tif"
    labels.write_bytes(imagecodecs.png_encode(LABELS[0]))
    tifffile.imwrite(confidence, CONFIDENCE[0])
    minimum_confidence(str(labels), str(confidence), 61, str(out))
    np.testing.assert_array_equal(tifffile.imread(out), KEPT[0])


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    paths = results(tmp_path, ("labels", "confidence"))
    single, out = tmp_path / "single.tif", tmp_path / "o.tif"
    tifffile.imwrite(single, CONFIDENCE[0])
    with pytest.raises(SegmentdError) as caught:
        minimum_confidence(paths["labels"], tmp_path / "gone.tif", 50, out)
    assert caught.value.reason in (Reason.IMAGE_UNREADABLE, Reason.IMAGE_UNSUPPORTED)
    done = CliRunner().invoke(
        app, ["min-confidence", str(paths["labels"]), str(single), "50", "--out", str(out)]
    )
    assert done.exit_code == 1
    assert "one plane" in done.stderr
    assert not [path for path in tmp_path.iterdir() if "o.tif" in path.name]
