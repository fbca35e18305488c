"""An image with the original's attributes, around a numpy array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentctl.oad.errors import ApplicationException, translated
from segmentd.imagefile import ClassInfo, PixelSize

Pixels = npt.NDArray[np.generic]


PIXEL_TYPES = {
    "uint8": "Gray8",
    "uint16": "Gray16",
    "int16": "Gray16Signed",
    "uint32": "Gray32",
    "float32": "Gray32Float",
}


@dataclass(frozen=True)
class Bounds:
    """Sizes of an image: columns, rows, channels, slices and time points."""

    SizeX: int
    SizeY: int
    SizeC: int
    SizeZ: int
    SizeT: int


@dataclass(frozen=True)
class Metadata:
    """What an image says of its pixels."""

    PixelType: str
    ChannelNames: tuple[str, ...]

    def GetChannelName(self, index: int) -> str:
        """Give the name of a channel, counted from 0."""
        return self.ChannelNames[index]


@dataclass(frozen=True)
class About:
    """What goes with pixels from one image to the next.

    Attributes
    ----------
    channels
        A name for each channel.
    pixel_size
        Physical size of a pixel in micrometres, where it is known.
    classes
        What the values mean, of an image of labels.
    """

    channels: tuple[str, ...] = ()
    pixel_size: PixelSize = field(default_factory=PixelSize)
    classes: tuple[ClassInfo, ...] = ()


class ZenImage:
    """An image: pixels with a name, and the file that they came from.

    Parameters
    ----------
    pixels : array (Y, X), (C, Y, X) or (T, Z, C, Y, X)
        Colours are three channels: red, green, blue.
    name : str
        Its name.
    file_name : str
        Path of its file; empty where there is none.
    about
        Names of channels, pixel size, classes.

    Notes
    -----
    `numpy.asarray(image)` gives the pixels without T, Z and C where they are 1 long: (Y, X) of a plain image.
    """

    def __init__(
        self, pixels: npt.ArrayLike, name: str = "", file_name: str = "", about: About | None = None
    ) -> None:
        array = np.asarray(pixels)
        if array.ndim not in (2, 3, 5) or array.size == 0:
            raise ApplicationException(
                f"pixels must be (Y, X), (C, Y, X) or (T, Z, C, Y, X) and not empty, not {array.shape}"
            )
        self.pixels: Pixels = array.reshape((1,) * (5 - array.ndim) + array.shape)
        self.Name = name
        self.FileName = file_name
        self.about = about or About()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        alone = tuple(axis for axis in range(3) if self.pixels.shape[axis] == 1)
        array = self.pixels.squeeze(alone)
        return np.array(array, dtype, copy=copy)

    def __repr__(self) -> str:
        return f"<ZenImage {self.Name!r} {self.Metadata.PixelType} {self.Bounds}>"

    @property
    def Bounds(self) -> Bounds:
        """Its sizes."""
        size_t, size_z, size_c, size_y, size_x = self.pixels.shape
        return Bounds(size_x, size_y, size_c, size_z, size_t)

    @property
    def Metadata(self) -> Metadata:
        """Pixel type and names of channels."""
        kind = self.pixels.dtype.name
        return Metadata(PIXEL_TYPES.get(kind, kind), self.channel_names)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """A name for each channel."""
        numbered = tuple(f"C{number}" for number in range(1, self.pixels.shape[2] + 1))
        given = self.about.channels[: len(numbered)]
        return given + numbered[len(given) :]

    def derived(self, pixels: Pixels, channels: Sequence[str], classes: Sequence[ClassInfo] = ()) -> ZenImage:
        """Give an image of other pixels, which has this one's name and pixel size and no file."""
        about = About(tuple(channels), self.about.pixel_size, tuple(classes))
        return ZenImage(pixels, self.Name, "", about)

    def Clone(self) -> ZenImage:
        """Give a copy."""
        return ZenImage(self.pixels.copy(), self.Name, self.FileName, self.about)

    def AddChannel(self, image: ZenImage, name: str = "") -> None:
        """Add the channels of an image of the same size and pixel type behind its own."""
        added = ZenImage(image.pixels, about=image.about)
        if name:
            added.about = About((name,) * added.Bounds.SizeC)
        joined = with_channels(self, added)
        self.pixels, self.about = joined.pixels, joined.about

    def Save(self, path: str | PathLike[str]) -> None:
        """Write it as OME-TIFF, or as PNG where the name ends so; the file appears when it is complete."""
        from segmentctl.oad import files

        with translated():
            files.save(self, Path(path))
        self.FileName = fspath(path)

    def Close(self) -> None:
        """Let go of the pixels."""
        self.pixels = self.pixels[..., :0, :0]


def as_image(image: ZenImage | Pixels | str | PathLike[str]) -> ZenImage:
    """Give a ZenImage for what scripts may pass: one, pixels, or the path of a file."""
    if isinstance(image, ZenImage):
        if image.pixels.size == 0:
            raise ApplicationException(f"the image '{image.Name}' was closed")
        return image
    if isinstance(image, str | PathLike):
        from segmentctl.oad import files

        with translated():
            return files.load(Path(image))
    return ZenImage(image)


def with_channels(image: ZenImage, added: ZenImage) -> ZenImage:
    """Give an image with the channels of a second one behind its own, in its own pixel type.

    Raises
    ------
    ApplicationException
        If sizes differ, or values of the second one do not fit into the pixel type of the first.
    """
    size, other = (np.delete(each.pixels.shape, 2).tolist() for each in (image, added))
    if size != other:
        raise ApplicationException(f"images of sizes {image.Bounds} and {added.Bounds} cannot be joined")
    kind = image.pixels.dtype
    if not np.can_cast(added.pixels.dtype, kind):
        raise ApplicationException(
            f"channels of {added.Metadata.PixelType} cannot be added to an image of "
            f"{image.Metadata.PixelType}; change the pixel type of one of them first"
        )
    pixels = np.concatenate([image.pixels, added.pixels.astype(kind)], axis=2)
    return image.derived(pixels, image.channel_names + added.channel_names)
