"""Does an image fit a model? Pixel type and channels must match; a model may use one named channel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError
from segmentd.records import ModelCard, PixelSize, PixelType


def used_channels(
    card: ModelCard,
    pixel_type: PixelType,
    channel_names: tuple[str, ...],
    source: str,
    rgb: bool = True,
) -> slice:
    """Which channels of an image the model computes on.

    A model for one channel finds it by name, else takes the image's only channel, else the channel at
    the position it was trained on. A network that wants blue, green, red gets three channels in turn, unless
    `rgb` says that they are no colours.

    Raises
    ------
    SegmentdError
        PIXEL_TYPE_MISMATCH or CHANNEL_COUNT_MISMATCH; `source` names the image in the message.
    """
    _check_pixel_type(card, pixel_type, source)
    count = len(channel_names)
    if card.channel is not None and card.channel_index is not None:
        if count == 1:
            return slice(0, 1)
        index = card.channel_index
        if channel_names.count(card.channel) == 1:
            index = channel_names.index(card.channel)
        if index < count:
            return slice(index, index + 1)
    elif count == card.channel_count:
        return slice(None, None, -1) if card.bgr and rgb else slice(0, count)
    wanted = f"channel '{card.channel}'" if card.channel is not None else f"{card.channel_count} channel(s)"
    raise SegmentdError(
        Reason.CHANNEL_COUNT_MISMATCH,
        f"{source}: has {count} channel(s) ({', '.join(channel_names)}), model '{card.display_name}' takes "
        f"{wanted}; use a model trained on such images, or train one with --channel",
        field="channel_count",
        image=str(count),
        model=str(card.channel_count),
    )


def check_pixel_size(card: ModelCard, size: PixelSize, tolerance: float | None, source: str) -> None:
    """PIXEL_SIZE_MISMATCH where image and model differ by more than a share of the model's pixel size.

    Parameters
    ----------
    card : ModelCard
        The model; one that does not know its pixel size takes any.
    size : PixelSize
        Of the image; where it does not tell, it cannot be held against it.
    tolerance : float, optional
        Largest difference, 0.1 for 10 %; None checks nothing.
    source : str
        What messages call the image.
    """
    pairs = ((size.y_um, card.pixel_size.y_um), (size.x_um, card.pixel_size.x_um))
    for own, wanted in pairs:
        if tolerance is None or not own or not wanted or abs(own - wanted) <= tolerance * wanted:
            continue
        raise SegmentdError(
            Reason.PIXEL_SIZE_MISMATCH,
            f"{source}: pixels are {own:g} micrometres, model '{card.display_name}' was trained on "
            f"{wanted:g}, and {100 * tolerance:g} % are allowed between them (pixel_size_tolerance); acquire "
            "at that magnification, use a model for this one, or allow more",
            field="pixel_size",
            image=f"{own:g}",
            model=f"{wanted:g}",
        )


def _check_pixel_type(card: ModelCard, pixel_type: PixelType, source: str) -> None:
    allowed = card.pixel_types or (card.pixel_type,)
    if pixel_type in allowed:
        return
    kinds = " or ".join(allowed)
    verb, otherwise = (
        ("takes", "use a model for") if card.pixel_types else ("was trained on", "train a model on")
    )
    raise SegmentdError(
        Reason.PIXEL_TYPE_MISMATCH,
        f"{source}: pixels are {pixel_type}, model '{card.display_name}' {verb} {kinds}; acquire or convert "
        f"to {kinds}, or {otherwise} {pixel_type}",
        field="pixel_type",
        image=str(pixel_type),
        model=kinds,
    )


def pixel_type_of(pixels: npt.NDArray[np.generic], source: str) -> PixelType:
    """The pixel type of an array; PIXEL_TYPE_MISMATCH where the daemon does not compute on it."""
    try:
        return PixelType(pixels.dtype.name)
    except ValueError:
        raise SegmentdError(
            Reason.PIXEL_TYPE_MISMATCH,
            f"{source}: pixels are {pixels.dtype.name}; convert to one of {', '.join(PixelType)}",
            field="pixel_type",
        ) from None
