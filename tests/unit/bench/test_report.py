from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from segmentd_bench import report


@pytest.mark.parametrize("values", [[1.0], [3.0, 0.0, 7.5], [0.0, 0.0]])
def test_a_series_is_drawn(tmp_path: Path, values: list[float]) -> None:
    report.series(tmp_path / "series.png", "title", "ms", values, "note")
    picture = cv2.imread(str(tmp_path / "series.png"))
    assert picture is not None
    assert (picture != 255).any()


def test_a_longer_bar_has_more_ink(tmp_path: Path) -> None:
    report.bars(tmp_path / "bars.png", "title", "Mpx/s", [("long", 8.0), ("short", 1.0)])
    picture = cv2.imread(str(tmp_path / "bars.png"))
    long, short = ((picture == color).all(axis=2).sum() for color in report._COLORS[:2])
    assert long > 6 * short


def test_a_picture_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be written"):
        report.series(tmp_path / "missing" / "series.png", "title", "ms", [1.0])
