"""Which channels the files of an image have, and what goes into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from segmentd.imagefile import OmeChannel, OmeImage
from segmentd.records import ClassInfo, FrameInfo, PixelType


@dataclass(frozen=True)
class Contents:
    """What the results of an image say; see `ResultWriter` for the fields."""

    name: bytes
    frame: FrameInfo
    classes: tuple[ClassInfo, ...]
    digests: Mapping[str, str]
    image_channels: int
    with_image: bool

    def describe(self, kind: str) -> OmeImage:
        """Describe the file of one kind."""
        frame = self.frame
        in_front = kind == "classes" and self.with_image
        return OmeImage(
            height=frame.height,
            width=frame.width,
            channels=tuple(self._channels(kind)),
            identity="/".join((*self.digests.values(), kind, *(("image",) if in_front else ()))),
            name=self.name.decode("utf-8", "replace"),
            size_z=frame.size_z,
            size_t=frame.size_t,
            scenes=frame.scenes,
            scene_sizes=frame.scene_sizes,
            pixel_size=frame.pixel_size,
            pixel_type=frame.pixel_type if kind == "image" or in_front else PixelType.UINT8,
            classes=() if kind == "confidence" else self.classes,
            notes={key: value for key, value in self.digests.items() if value},
        )

    def rows(
        self,
        kind: str,
        labels: npt.NDArray[np.uint8],
        confidence: npt.NDArray[np.uint8],
        pixels: npt.NDArray[np.generic],
    ) -> Iterable[npt.NDArray[np.generic]]:
        """Rows of each channel of a kind, made as they are asked for."""
        if kind != "classes":
            return [confidence if kind == "confidence" else labels]
        in_front = pixels if self.with_image else pixels[:0]
        full = (pixels if self.with_image else labels).dtype.type(255)
        return chain(in_front, ((labels == item.value) * full for item in self.classes))

    def _channels(self, kind: str) -> Iterable[OmeChannel]:
        if kind == "confidence":
            return [OmeChannel("confidence (%)")]
        if kind == "image":
            return [OmeChannel(f"{kind} {number}") for number in range(1, self.image_channels + 1)]
        if kind != "classes":
            return [OmeChannel(kind, labels=True)]
        classes = [OmeChannel(item.name, item.color, labels=True) for item in self.classes]
        names, colors = self.frame.channel_names, self.frame.channel_colors
        in_front = map(OmeChannel, names, colors or (None,) * len(names))
        return chain(in_front if self.with_image else (), classes)
