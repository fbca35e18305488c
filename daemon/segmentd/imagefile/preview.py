"""A small picture of a plane, with its channels in their colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segmentd.imagefile.colors import parse_color
from segmentd.imagefile.stretch import shown_range, stretched

# For channels without a colour of their own: those that can be told apart when they are added.
DEFAULT_COLORS = ("#00FF00", "#FF00FF", "#00FFFF", "#FF0000", "#FFFF00", "#0080FF")
GREY = "#FFFFFF"


def preview_png(
    pixels: npt.NDArray[np.generic], *, rgb: bool = False, colors: Sequence[str | None] = ()
) -> bytes:
    """Draw a plane and return a PNG file.

    Every channel is stretched between its 0.5 and 99.5 percentiles, tinted, and added to the others.

    Parameters
    ----------
    pixels : array (C, Y, X)
        The plane.
    rgb : bool
        Whether the three channels are red, green and blue, which are stretched together.
    colors : sequence of str or None
        `#RRGGBB` for each channel; without one a single channel is grey, and several get default colours.
    """
    import imagecodecs

    if rgb:
        picture = np.moveaxis(stretched(pixels, *shown_range(pixels)), 0, -1)
        return bytes(imagecodecs.png_encode(np.ascontiguousarray(picture), level=2))
    total = np.zeros((*pixels.shape[1:], 3), np.float32)
    for number, channel in enumerate(pixels):
        default = GREY if len(pixels) == 1 else DEFAULT_COLORS[number % len(DEFAULT_COLORS)]
        color = (colors[number] if number < len(colors) else None) or default
        grey = stretched(channel, *shown_range(channel))
        total += grey[..., np.newaxis] * (np.array(parse_color(color), np.float32) / 255)
    return bytes(imagecodecs.png_encode(total.clip(0, 255).astype(np.uint8), level=2))
