from __future__ import annotations

from dataclasses import replace

import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.models.fit import check_pixel_size
from segmentd.records import PixelSize

from ..tiny_model import model

CARD = replace(model().card, pixel_size=PixelSize(0.1, 0.1))


@pytest.mark.parametrize(
    ("size", "tolerance"),
    [
        (PixelSize(5, 5), None),
        (PixelSize(None, None), 0.0),
        (PixelSize(0.1, 0.1), 0.0),
        (PixelSize(0.109, 0.091), 0.1),
    ],
)
def test_sizes_within_the_tolerance_or_unknown_fit(size: PixelSize, tolerance: float | None) -> None:
    check_pixel_size(CARD, size, tolerance, "a.tif")
    check_pixel_size(replace(CARD, pixel_size=PixelSize()), size, tolerance, "a.tif")


@pytest.mark.parametrize("size", [PixelSize(0.12, 0.1), PixelSize(0.1, 0.08)])
def test_others_are_refused(size: PixelSize) -> None:
    with pytest.raises(SegmentdError, match=r"a\.tif: pixels are 0\.\d+ micrometres, model 'Cells'") as error:
        check_pixel_size(CARD, size, 0.1, "a.tif")
    assert error.value.reason is Reason.PIXEL_SIZE_MISMATCH
