"""What the metadata of a package says of a network, whatever the format; raises ValueError for nonsense."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from segmentd.imagefile import default_color
from segmentd.records import ClassInfo, PixelSize, PixelType

Task = Literal["semantic", "regression"]

SEMANTIC: Task = "semantic"
REGRESSION: Task = "regression"
PIXEL_TYPES = (PixelType.UINT8, PixelType.UINT16, PixelType.FLOAT32)
MAX_CLASSES = 255
MAX_NAME = 200
MAX_IGNORED = 10


@dataclass(frozen=True)
class Description:
    """Metadata of a network; None where the package leaves it to the network itself.

    Attributes
    ----------
    input_shape, output_shape : tuple of int, optional
        (y, x, c) or (z, y, x, c), without the batch axis.
    border_px, border_planes : int, optional
        On each side of a tile in y and x, and in z.
    class_names : tuple of str, optional
        In the order of the network's output.
    colors : tuple of str, optional
        `#RRGGBB` for each class.
    channels : int, optional
        Channels of the input as the pixel types tell them.
    bgr : bool
        Colour images go in as blue, green, red.
    postprocessing : str
        What is done to labels by default.
    ignored : tuple of str
        What the package says and is not used here, in words.
    """

    name: str
    text: str
    task: Task
    source: str
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None = None
    border_px: int | None = None
    border_planes: int = 0
    class_names: tuple[str, ...] | None = None
    colors: tuple[str, ...] | None = None
    channels: int | None = None
    pixel_types: tuple[PixelType, ...] = PIXEL_TYPES
    pixel_size: PixelSize = field(default_factory=PixelSize)
    scale_by_bit_depth: bool = True
    bgr: bool = True
    channels_last: bool = True
    softmax: bool = False
    postprocessing: str = "none"
    ignored: tuple[str, ...] = ()

    def told(self) -> str:
        """The description for people, with what is not used of the package."""
        if not self.ignored:
            return self.text
        shown = ", ".join(self.ignored[:MAX_IGNORED]) + (
            " and more" if len(self.ignored) > MAX_IGNORED else ""
        )
        return f"{self.text} (Not used of its package: {shown}.)".strip()

    def classes(self, count: int) -> tuple[ClassInfo, ...]:
        """The classes, for a network with `count` outputs."""
        if not 2 <= count <= MAX_CLASSES:
            raise ValueError(f"the network has {count} outputs; 2 to {MAX_CLASSES} classes can be told apart")
        names = self.class_names or tuple(f"class {value}" for value in range(1, count + 1))
        if len(names) != count:
            raise ValueError(
                f"{len(names)} classes are named, but the network tells {count} apart; name as many"
            )
        colors = self.colors or tuple(default_color(value) for value in range(1, count + 1))
        return tuple(
            ClassInfo(value, name, color)
            for value, (name, color) in enumerate(zip(names, colors, strict=True), 1)
        )


def text_of(value: Any, what: str, default: str = "") -> str:
    """A short text on one line."""
    if value is None:
        return default
    if not isinstance(value, str) or len(value) > 4000:
        raise ValueError(f"{what} must be a text of at most 4000 characters")
    return " ".join("".join(char if char.isprintable() else " " for char in value).split()) or default


def names_of(values: Any, what: str) -> tuple[str, ...]:
    """Names of classes: texts, none empty, none twice."""
    if not isinstance(values, list) or not values:
        raise ValueError(f"{what} must be a list of names")
    names = tuple(text_of(value, what)[:MAX_NAME] for value in values)
    if not all(names) or len(set(names)) != len(names):
        raise ValueError(f"{what} must be names that differ, not {list(names)}")
    return names


def colors_of(values: Any, what: str) -> tuple[str, ...]:
    """Colours `#RRGGBB`."""
    if not isinstance(values, list) or not all(
        isinstance(value, str) and re.fullmatch("#[0-9A-Fa-f]{6}", value) for value in values
    ):
        raise ValueError(f"{what} must be a list of colours #RRGGBB")
    return tuple(values)


def sizes_of(values: Any, what: str, low: int, high: int) -> tuple[int, ...]:
    """Whole numbers from `low` to `high`."""
    if not isinstance(values, list) or not all(
        type(value) is int and low <= value <= high for value in values
    ):
        raise ValueError(f"{what} must be a list of whole numbers from {low} to {high}, not {values}")
    return tuple(values)


def flag_of(value: Any, what: str, default: bool) -> bool:
    """True or false."""
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ValueError(f"{what} must be true or false, not {value!r}")
    return value


def choice_of(value: Any, what: str, choices: tuple[str, ...]) -> str:
    """One of several words, the first by default."""
    if value is None:
        return choices[0]
    if value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}, not {value!r}")
    return str(value)
