"""`segmentd inspect`: what is told of images that are read, and of those that are not."""

from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from .daemon import run_here
from .images import write_truncated

pytestmark = pytest.mark.e2e


def test_text_and_preview(shared_data: Path, tmp_path: Path) -> None:
    name = "T=3_Z=5_CH=2_X=240_Y=170.czi"
    preview = tmp_path / "preview.png"
    done = run_here("inspect", shared_data / "zeiss" / "real" / name, "--preview", preview)
    for line in (
        f"{name}: CZI, complete",
        "axes        S 1, T 3, Z 5, C 2, Y 170, X 240",
        "planes      15 of 240 x 170 pixels",
        "channels    LED555 #FF7E00, LED470 #00FF33",
        "pixel size  0.0905767 x 0.0905767 x 0.32 µm",
        "values      0 to 16368 in one plane",
    ):
        assert line in done.stdout
    picture = imagecodecs.png_decode(preview.read_bytes())
    assert picture.shape == (170, 240, 3)
    # The spindle of this cell is green, its chromosomes are orange.
    green, orange = ((picture == color).all(-1).any() for color in ((0, 255, 51), (255, 126, 0)))
    assert green
    assert orange


def test_json_of_scenes_and_of_what_is_refused(shared_data: Path, tmp_path: Path) -> None:
    scenes = shared_data / "zeiss" / "real" / "S3_1Pos_2Mosaic_T1_Z1_CH1.czi"
    cut, note = write_truncated(tmp_path / "cut.tif"), tmp_path / "note.txt"
    note.write_text("this is a note")
    files = (scenes, cut, note, tmp_path / "gone.tif")
    read, open_file, no_image, gone = json.loads(run_here("inspect", *files, "--json", code=1).stdout)
    assert read["refused"] is None
    assert read["complete"] is True
    assert read["axes"] == {"S": 3, "T": 1, "Z": 1, "C": 1, "Y": 237, "X": 352}
    assert read["scene_sizes"][1] == {"height": 64, "width": 64}
    assert read["channels"] == [{"name": "DAPI", "color": "#00A1FF"}]
    assert read["pixel_size_um"] == {"x": 1.6, "y": 1.6, "z": 1.0}
    assert open_file["complete"] is False
    assert open_file["refused"]["reason"] == "IMAGE_INCOMPLETE"
    assert no_image["refused"]["reason"] == "IMAGE_UNSUPPORTED"
    assert "its name ends with none of .tif" in no_image["note"]
    assert gone["refused"]["reason"] == "IMAGE_VANISHED"


def test_a_large_plane_is_thinned(shared_data: Path, tmp_path: Path) -> None:
    preview = tmp_path / "preview.png"
    run_here("inspect", shared_data / "zeiss" / "real" / "mosaic_test.czi", "--preview", preview)
    picture = imagecodecs.png_decode(preview.read_bytes())
    assert picture.shape == (312, 878, 3)
    assert np.ptp(picture) == 255


def test_a_preview_is_of_one_image(tmp_path: Path) -> None:
    files = (tmp_path / "a.tif", tmp_path / "b.tif")
    done = run_here("inspect", *files, "--preview", tmp_path / "p.png", code=2)
    assert "--preview draws one image, and 2 are named" in done.stderr
