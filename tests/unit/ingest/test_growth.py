"""Which parts of a growing image are complete: cases of the pure decision."""

from __future__ import annotations

import pytest

from segmentd.ingest.growth import Part, complete, full_grid

PARTS = {"-": Part.EMPTY, "b": Part.BEGUN, "w": Part.WRITTEN}

CASES = {
    "nothing": ("", set()),
    "one page alone may still be filled": ("w", set()),
    "the next page was begun": ("wb", {0}),
    "the last page is never complete": ("www", {0, 1}),
    "room taken in advance": ("w---", set()),
    "room taken in advance, and filled from the front": ("ww--", {0}),
    "filled from the back": ("--ww", {2}),
    "a dark plane in between": ("w-ww", {0, 2}),
    "half a page in between": ("wbw", {0}),
    "zeros only": ("----", set()),
}


@pytest.mark.parametrize("case", CASES)
def test_complete_parts(case: str) -> None:
    parts, expected = CASES[case]
    assert complete([PARTS[letter] for letter in parts]) == expected


GRIDS = {
    "nothing": ("", 0),
    "no places": ("?? ??", 0),
    "one channel": ("00", 1),
    "channels, then times": ("00 01 10 11", 4),
    "half a time": ("00 01 10", 2),
    "half the third time": ("00 01 10 11 20", 4),
    "one value of each axis": ("00 11", 1),
    "a place twice": ("00 01 00", 2),
    "a page without a place": ("00 01 ?? 10 11", 2),
}


@pytest.mark.parametrize("case", GRIDS)
def test_pages_that_fill_a_grid(case: str) -> None:
    text, expected = GRIDS[case]
    places = [{} if "?" in place else {"T": place[0], "C": place[1]} for place in text.split()]
    assert full_grid(places) == expected
