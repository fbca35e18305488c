"""The overlay picture: the image in grey (or its own colours) under translucent class colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segmentd.imagefile.colors import parse_color
from segmentd.records import ClassInfo

_OPACITY = 0.45
_OUTLINE_WEIGHT = 230  # of 256
_MAX_EDGE = 4096
_MAX_SAMPLES = 1_000_000


def overlay_png(
    pixels: npt.NDArray[np.generic],
    labels: npt.NDArray[np.uint8],
    classes: Sequence[ClassInfo],
    *,
    rgb: bool = False,
) -> bytes:
    """Draw labels over their image and return a PNG file.

    The image is stretched between its 0.5 and 99.5 percentiles. A class whose name begins with
    `background`, and pixels without a label, show the bare image; every other class is tinted with its
    colour and has an outline in a stronger shade. Planes with an edge above 4096 pixels are thinned to
    every second, third, ... pixel.

    Parameters
    ----------
    pixels : array (C, Y, X)
        The plane; channels are averaged to grey unless `rgb` is true.
    labels : array (Y, X), uint8
        Values 1..K, 0 for no label.
    classes : sequence of ClassInfo
        Names and colours of the values 1..K.
    rgb : bool
        Whether the three channels are red, green and blue.

    Returns
    -------
    bytes
        The same bytes for the same arguments.
    """
    import imagecodecs

    step = -(-max(labels.shape) // _MAX_EDGE)
    labels = labels[::step, ::step]
    picture = _picture(pixels[:, ::step, ::step], rgb)
    blended = _tint(picture, labels, classes)
    return bytes(imagecodecs.png_encode(blended, level=2))


def _picture(pixels: npt.NDArray[np.generic], rgb: bool) -> npt.NDArray[np.uint8]:
    """Stretch channels (C, Y, X) to a picture (Y, X, 3)."""
    if rgb and pixels.shape[0] >= 3:
        return np.moveaxis(_stretch(pixels[:3]), 0, -1)
    channels = np.stack([_stretch(channel) for channel in pixels])
    grey = channels.mean(axis=0, dtype=np.float32).astype(np.uint8)
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)


def _stretch(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Map the 0.5 to 99.5 percentiles of all of `pixels` to 0..255."""
    sample = pixels.ravel()[:: 1 + pixels.size // _MAX_SAMPLES].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return np.zeros(pixels.shape, np.uint8)
    low, high = np.percentile(sample, (0.5, 99.5))
    scaled = (pixels.astype(np.float32) - np.float32(low)) * np.float32(255 / max(high - low, 1e-6))
    shown: npt.NDArray[np.float32] = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255)
    return shown.astype(np.uint8)


def _tint(
    picture: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], classes: Sequence[ClassInfo]
) -> npt.NDArray[np.uint8]:
    """Blend class colours into the picture (Y, X, 3)."""
    colors = np.zeros((256, 3), np.uint16)
    tinted = np.zeros(256, bool)
    for item in classes:
        colors[item.value] = parse_color(item.color)
        tinted[item.value] = not item.name.strip().lower().startswith("background")
    weights = np.where(tinted, round(_OPACITY * 256), 0).astype(np.uint16)
    weight = np.where(_outline(labels) & tinted[labels], _OUTLINE_WEIGHT, weights[labels])[..., np.newaxis]
    blended = picture * (256 - weight) + colors[labels] * weight
    shown: npt.NDArray[np.uint8] = (blended >> 8).astype(np.uint8)
    return shown


def _outline(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Pixels with a neighbour (above, below, left, right) of another label."""
    outline = np.zeros(labels.shape, bool)
    vertical = labels[1:] != labels[:-1]
    horizontal = labels[:, 1:] != labels[:, :-1]
    outline[1:] |= vertical
    outline[:-1] |= vertical
    outline[:, 1:] |= horizontal
    outline[:, :-1] |= horizontal
    return outline
