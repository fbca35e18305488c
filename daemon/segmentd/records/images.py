"""What is known of an image and its planes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class PixelType(StrEnum):
    """Pixel types the daemon computes on; names are those of numpy."""

    UINT8 = "uint8"
    UINT16 = "uint16"
    INT16 = "int16"
    UINT32 = "uint32"
    FLOAT32 = "float32"


@dataclass(frozen=True, slots=True)
class PixelSize:
    """Physical size of a pixel in micrometres; None where the file does not say."""

    y_um: float | None = None
    x_um: float | None = None
    z_um: float | None = None


@dataclass(frozen=True, slots=True, order=True)
class PlaneIndex:
    """Which plane of a frame: scene, time and Z, counted from 0."""

    scene: int = 0
    time: int = 0
    z: int = 0


@dataclass(frozen=True, slots=True)
class FileStamp:
    """A file's content as the file system tells it; `ctime_ns` (0: not known) is no part of the identity."""

    size_bytes: int
    mtime_ns: int
    inode: int
    device: int
    ctime_ns: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file that is part of an image: its path, relative as that of the image, and its stamp."""

    path: bytes
    stamp: FileStamp


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of a plane in pixels."""

    y: int
    x: int
    height: int
    width: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Its rows and columns, as an index."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """What an image file holds, without pixels. Every plane has all channels.

    Attributes
    ----------
    height, width : int
        Of every plane: of the largest scene, where they differ.
    channel_colors : tuple of str or None
        `#RRGGBB` for each channel, None where the file does not say; empty where it says nothing.
    scene_sizes : tuple of (int, int)
        Height and width of each scene, where they differ. What readers return beyond a scene, to the right
        and below, is 0 and no part of the image.
    """

    format: str
    pixel_type: PixelType
    height: int
    width: int
    channel_names: tuple[str, ...]
    size_t: int = 1
    size_z: int = 1
    scenes: int = 1
    rgb: bool = False
    pixel_size: PixelSize = field(default_factory=PixelSize)
    channel_colors: tuple[str | None, ...] = ()
    scene_sizes: tuple[tuple[int, int], ...] = ()

    @property
    def channel_count(self) -> int:
        """Number of channels, the same for every plane."""
        return len(self.channel_names)

    def scene_size(self, scene: int) -> tuple[int, int]:
        """Height and width of a scene."""
        return self.scene_sizes[scene] if self.scene_sizes else (self.height, self.width)

    def planes(self) -> Iterator[PlaneIndex]:
        """All planes, Z fastest, then time, then scene."""
        for scene in range(self.scenes):
            for time in range(self.size_t):
                for z in range(self.size_z):
                    yield PlaneIndex(scene, time, z)

    @property
    def plane_count(self) -> int:
        """Number of planes in the file."""
        return self.scenes * self.size_t * self.size_z


@dataclass(frozen=True, slots=True)
class Plane:
    """Pixels of one plane on the host: array (C, Y, X) of the frame's pixel type."""

    frame: FrameInfo
    index: PlaneIndex
    pixels: npt.NDArray[np.generic]
