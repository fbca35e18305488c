"""Class colours: a colour-blind safe palette, and colours as text, bytes and OME numbers."""

from __future__ import annotations

import re

PALETTE = (
    "#0072B2",  # blue
    "#E69F00",  # orange
    "#009E73",  # green
    "#CC79A7",  # pink
    "#56B4E9",  # sky
    "#D55E00",  # vermilion
    "#F0E442",  # yellow
    "#332288",  # indigo
    "#44AA99",  # teal
    "#882255",  # wine
    "#DDCC77",  # sand
    "#117733",  # forest
    "#AA4499",  # purple
    "#999933",  # olive
)

_COLOR = re.compile(r"#([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})")


def default_color(value: int) -> str:
    """Colour `#RRGGBB` for a class without one; `value` is the label, 1 for the first class.

    The first seven are those of Okabe and Ito, the others are chosen after Paul Tol; after fourteen
    they repeat.
    """
    return PALETTE[(value - 1) % len(PALETTE)]


def parse_color(color: str) -> tuple[int, int, int]:
    """Red, green and blue (0..255) of `#RRGGBB`; anything else is a ValueError.

    Examples
    --------
    >>> parse_color("#FF8000")
    (255, 128, 0)
    """
    match = _COLOR.fullmatch(color)
    if match is None:
        raise ValueError(f"a colour is written #RRGGBB, not {color!r}")
    red, green, blue = (int(part, 16) for part in match.groups())
    return red, green, blue


def ome_color(color: str) -> int:
    """OME's form of an opaque colour: RGBA as a signed 32-bit number.

    Examples
    --------
    >>> ome_color("#FF0000")
    -16776961
    """
    red, green, blue = parse_color(color)
    return int.from_bytes(bytes((red, green, blue, 255)), "big", signed=True)
