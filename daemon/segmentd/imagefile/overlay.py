"""The overlay picture: the image in grey (or its own colours) under translucent class colours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from segmentd.imagefile.colors import parse_color
from segmentd.imagefile.stretch import shown_range, stretched
from segmentd.records import ClassInfo

_OPACITY = 0.45
_OUTLINE_WEIGHT = 230  # of 256
_MAX_EDGE = 4096
_THUMBNAIL_EDGE = 512
_ROWS_AT_ONCE = 64  # so that what is computed between stays small and in cache


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
    overlay = Overlay(*labels.shape)
    overlay.add(pixels, labels)
    return overlay.png(classes, rgb=rgb)


class Overlay:
    """The picture of `overlay_png`, from a plane that comes band by band.

    Only the pixels that the picture shows are kept, so its memory is bounded: 4096 x 4096 pixels of each
    channel.

    Parameters
    ----------
    height, width : int
        Of the plane, in pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        self._step = -(-max(height, width) // _MAX_EDGE)
        self._shape = (-(-height // self._step), -(-width // self._step))
        self._rows_seen = 0
        self._labels = np.zeros(self._shape, np.uint8)
        self._pixels: npt.NDArray[np.generic] | None = None

    def add(self, pixels: npt.NDArray[np.generic], labels: npt.NDArray[np.uint8]) -> None:
        """Take the next rows: pixels (C, rows, X), labels (rows, X)."""
        if self._pixels is None:
            self._pixels = np.zeros((pixels.shape[0], *self._shape), pixels.dtype)
        step = self._step
        skipped = -self._rows_seen % step  # rows of the band above the first one that is shown
        first = (self._rows_seen + skipped) // step
        shown = labels[skipped::step, ::step]
        self._labels[first : first + shown.shape[0]] = shown
        self._pixels[:, first : first + shown.shape[0]] = pixels[:, skipped::step, ::step]
        self._rows_seen += labels.shape[0]

    def png(self, classes: Sequence[ClassInfo], *, rgb: bool = False) -> bytes:
        """Draw the plane, once all its rows were added; may be called once."""
        return _encode(self.picture(classes, rgb=rgb))

    def picture(self, classes: Sequence[ClassInfo], *, rgb: bool = False) -> npt.NDArray[np.uint8]:
        """Draw the plane as `png` does; returns the pixels (Y, X, 3)."""
        if self._pixels is None:
            raise ValueError("an overlay needs pixels: none were added")
        picture = _picture(self._pixels, rgb)
        self._pixels = None  # its memory may be wanted for the PNG
        _tint(picture, self._labels, classes)
        return picture


def picture_pngs(picture: npt.NDArray[np.uint8], kinds: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Encode a picture (Y, X, 3): as it is (`overlay`), or with edges of at most 512 pixels (`thumbnail`)."""
    for kind in kinds:
        yield kind, _encode(_shrunk(picture) if kind == "thumbnail" else picture)


def _shrunk(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Make a picture small by averaging; one that is small stays as it is."""
    import cv2

    scale = _THUMBNAIL_EDGE / max(picture.shape)
    if scale >= 1:
        return picture
    height, width = (max(1, round(edge * scale)) for edge in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _encode(picture: npt.NDArray[np.uint8]) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.png_encode(picture, level=2))


def _picture(pixels: npt.NDArray[np.generic], rgb: bool) -> npt.NDArray[np.uint8]:
    """Stretch channels (C, Y, X) to a picture (Y, X, 3)."""
    colored = rgb and pixels.shape[0] >= 3
    channels = pixels[:3] if colored else pixels
    ranges = [shown_range(channels)] * 3 if colored else [shown_range(channel) for channel in channels]
    picture = np.empty((*pixels.shape[1:], 3), np.uint8)
    for top in range(0, picture.shape[0], _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        shown = np.stack(
            [stretched(channel[rows], *limits) for channel, limits in zip(channels, ranges, strict=True)]
        )
        if colored:
            picture[rows] = np.moveaxis(shown, 0, -1)
        else:
            picture[rows] = shown.mean(axis=0, dtype=np.float32).astype(np.uint8)[..., np.newaxis]
    return picture


def _tint(
    picture: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], classes: Sequence[ClassInfo]
) -> None:
    """Blend class colours into the picture (Y, X, 3)."""
    colors = np.zeros((256, 3), np.uint16)
    tinted = np.zeros(256, bool)
    for item in classes:
        colors[item.value] = parse_color(item.color)
        tinted[item.value] = not item.name.strip().lower().startswith("background")
    weights = np.where(tinted, round(_OPACITY * 256), 0).astype(np.uint16)
    outline = _outline(labels)
    for top in range(0, labels.shape[0], _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        shown = labels[rows]
        weight = np.where(outline[rows] & tinted[shown], _OUTLINE_WEIGHT, weights[shown])[..., np.newaxis]
        picture[rows] = (picture[rows] * (256 - weight) + colors.take(shown, axis=0) * weight) >> 8


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
