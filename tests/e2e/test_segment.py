"""`segmentd segment`: the pipeline on files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from .daemon import run_here
from .images import CLASSES, write_blobs, write_corrupt, write_truncated

pytestmark = pytest.mark.e2e


def read(out: Path, name: str, kind: str) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = tifffile.imread(out / f"{name}.{kind}.ome.tif")
    return pixels


def test_options(blobs_model: Path, tmp_path: Path) -> None:
    image = write_blobs(tmp_path / "i.tif", 50, (90, 71))
    plain = ("segment", image, "--model", blobs_model, "--out")
    variants: dict[str, tuple[str, ...]] = {
        "default": (),
        "tile16": ("--tile", "16"),
        "border": ("--border", "0", "--tile", "32"),
        "sure": ("--min-confidence", "95", "--tile", "64", "--threads", "1"),
        "classes": ("--format", "multichannel", "--overlay"),
    }
    for name, options in variants.items():
        run_here(*plain, tmp_path / name, *options)
    labels, confidence = (read(tmp_path / "default", "i.tif", kind) for kind in ("labels", "confidence"))
    for kind in ("labels", "confidence"):
        file = f"i.tif.{kind}.ome.tif"
        assert (tmp_path / "tile16" / file).read_bytes() == (tmp_path / "default" / file).read_bytes()
    assert (read(tmp_path / "border", "i.tif", "confidence") != confidence).any()
    np.testing.assert_array_equal(read(tmp_path / "sure", "i.tif", "confidence"), confidence)
    sure = np.where(confidence >= 95, labels, 0)
    assert (sure == 0).any()
    np.testing.assert_array_equal(read(tmp_path / "sure", "i.tif", "labels"), sure)
    channels = read(tmp_path / "classes", "i.tif", "classes")
    np.testing.assert_array_equal(channels, np.stack([labels == 1, labels == 2]) * np.uint8(255))
    files = {
        kind: sorted(path.name for path in (tmp_path / kind).iterdir()) for kind in ("default", "classes")
    }
    assert files["default"] == ["i.tif.confidence.ome.tif", "i.tif.labels.ome.tif"]
    assert files["classes"] == ["i.tif.classes.ome.tif", "i.tif.confidence.ome.tif", "i.tif.overlay.png"]


def test_bad_images_do_not_stop_the_rest(blobs_model: Path, tmp_path: Path) -> None:
    bad = [write_truncated(tmp_path / "a.tif"), write_corrupt(tmp_path / "b.tif"), tmp_path / "gone.tif"]
    bad.append(tmp_path / "note.tif")
    bad[-1].write_text("this is a note\n")
    good = [write_blobs(tmp_path / name, seed) for seed, name in enumerate(("c.tif", "d.tif"))]
    out = tmp_path / "out"
    done = run_here("segment", *bad, *good, "--model", blobs_model, "--out", out, code=1)
    for path in bad:
        lines = [line for line in done.stderr.splitlines() if str(path) in line or path.name in line]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("failed: ")
    assert "4 of 6" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        f"{path.name}.{kind}.ome.tif" for path in good for kind in ("confidence", "labels")
    ]
    for name in (*CLASSES, "c.tif", "d.tif"):
        assert name in done.stdout


def test_inputs_of_one_name(blobs_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in "ab":
        write_blobs(tmp_path / folder / "x.tif", ord(folder))
    command = ("segment", "a/x.tif", "b/x.tif", "--model", blobs_model, "--out", "out")
    refused = run_here(*command, code=2)
    assert "--keep-paths" in refused.stderr
    assert not (tmp_path / "out").exists()
    run_here(*command, "--keep-paths")
    assert sorted(
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.labels.ome.tif")
    ) == [
        "a/x.tif.labels.ome.tif",
        "b/x.tif.labels.ome.tif",
    ]


def test_a_folder_and_a_model_by_name(blobs_model: Path, tmp_path: Path) -> None:
    for seed in range(2):
        write_blobs(tmp_path / "in" / f"{seed}.tif", seed)
    (tmp_path / "in" / "readme.txt").write_text("no image")
    options = ("--models", blobs_model.parent, "--out", tmp_path / "out")
    run_here("segment", tmp_path / "in", "--model", "blobs", *options)
    assert len(list((tmp_path / "out").iterdir())) == 4
    missing = run_here("segment", tmp_path / "in", "--model", "cells", *options, code=1)
    assert "cells" in missing.stderr
    assert "blobs" in missing.stderr
