"""`Zen`: the application, and its image processing functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np

from segmentctl.oad.errors import ApplicationException
from segmentctl.oad.image import PIXEL_TYPES, Pixels, ZenImage, as_image, with_channels
from segmentctl.oad.segmentation import Segmentation

_SUBSET = re.compile(r"([TZCYX])\((\d+)(?:-(\d+))?\)")
_AXES = "TZCYX"


class Documents:
    """The open images of a script: a list, since there is no window to show them in."""

    def __init__(self) -> None:
        self._images: list[ZenImage] = []
        self.ActiveDocument: ZenImage | None = None

    def __iter__(self) -> Iterator[ZenImage]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)

    def Add(self, image: ZenImage) -> None:
        """Open an image and make it the active one."""
        if image not in self._images:
            self._images.append(image)
        self.ActiveDocument = image

    def GetByName(self, name: str) -> ZenImage | None:
        """Give the open image of a name; None where there is none."""
        return next((image for image in self._images if image.Name == name), None)

    def Remove(self, image: ZenImage, save: bool = False) -> None:
        """Close an image; `save` writes it to its file before."""
        if save:
            if not image.FileName:
                raise ApplicationException(
                    f"the image '{image.Name}' has no file; save it under a name first"
                )
            image.Save(image.FileName)
        self._images.remove(image)
        if self.ActiveDocument is image:
            self.ActiveDocument = None

    def RemoveAll(self, save: bool = False) -> None:
        """Close all images."""
        for image in list(self._images):
            self.Remove(image, save)


class MacroEditor:
    """The console of scripts; messages go to standard output here, and stay."""

    @staticmethod
    def ClearMessages() -> None:
        """Do nothing: what was printed stays."""


class Application:
    """Files and open images."""

    Documents = Documents()
    MacroEditor = MacroEditor

    @staticmethod
    def LoadImage(path: str | PathLike[str], setActive: bool = False) -> ZenImage:
        """Read a TIFF, OME-TIFF, PNG, JPEG or (with the extra `czi`) CZI file.

        Parameters
        ----------
        path
            The file.
        setActive : bool
            Also open it among the documents.
        """
        image = as_image(Path(path))
        if setActive:
            Application.Documents.Add(image)
        return image

    @staticmethod
    def Save(image: ZenImage, path: str | PathLike[str], askUser: bool = False) -> None:
        """Write an image as OME-TIFF or PNG; nobody is asked."""
        image.Save(path)


class Utilities:
    """Channels, planes and pixel types."""

    @staticmethod
    def CreateSubset(
        image: ZenImage | Pixels | str | PathLike[str], subset: str, keepDimensions: bool = False
    ) -> ZenImage:
        """Give a part of an image: `C(2)`, `T(1-3)`, `Z(1)|C(1)`; all counted from 1, X and Y in pixels."""
        given = as_image(image)
        where = [slice(None)] * 5
        for part in subset.replace(" ", "").split("|"):
            match = _SUBSET.fullmatch(part)
            if match is None:
                raise ApplicationException(f"'{part}' of '{subset}' is no subset; write it as C(1) or T(1-3)")
            axis = _AXES.index(match[1])
            first, last = int(match[2]), int(match[3] or match[2])
            if not 1 <= first <= last <= given.pixels.shape[axis]:
                raise ApplicationException(
                    f"'{part}': the image has {match[1]} from 1 to {given.pixels.shape[axis]}"
                )
            where[axis] = slice(first - 1, last)
        return given.derived(
            given.pixels[tuple(where)], given.channel_names[where[_AXES.index("C")]], given.about.classes
        )

    @staticmethod
    def AddChannels(
        image: ZenImage | Pixels | str | PathLike[str], added: ZenImage | Pixels | str | PathLike[str]
    ) -> ZenImage:
        """Give an image with the channels of a second one behind its own."""
        return with_channels(as_image(image), as_image(added))

    @staticmethod
    def ChangePixelType(image: ZenImage | Pixels | str | PathLike[str], pixelType: str) -> ZenImage:
        """Give an image with the same values in another pixel type; what does not fit becomes the limit."""
        given = as_image(image)
        kinds = {shown: kind for kind, shown in PIXEL_TYPES.items()}
        if pixelType not in kinds:
            raise ApplicationException(f"'{pixelType}' is no pixel type: {', '.join(kinds)}")
        kind = np.dtype(kinds[pixelType])
        pixels = given.pixels
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            pixels = np.rint(np.clip(pixels.astype(np.float64), limits.min, limits.max))
        return given.derived(pixels.astype(kind), given.channel_names, given.about.classes)


class Processing:
    """Image processing functions."""

    Segmentation = Segmentation
    Utilities = Utilities


class Zen:
    """The part of ZEN that scripts for Intellesis Segmentation use."""

    Application = Application
    Processing = Processing
