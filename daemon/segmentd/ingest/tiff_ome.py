"""OME-XML of an OME-TIFF: names, sizes, channels. What it says of other files is read by `ome_references`.

Runs in a worker process. A document type definition is refused, since entities can be made to expand
without end; a reference to another file is never followed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from segmentd.errors import Reason
from segmentd.ingest.verdict import BadStructureError
from segmentd.records import PixelSize

MICROMETRES = {
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "nm": 1e-3,
    "pm": 1e-6,
    "Å": 1e-4,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "in": 25400.0,
    "inch": 25400.0,
}
MAX_NAME_CHARACTERS = 200
NO_COLOR = -1
DOCTYPE_TEXT = "has a document type in its OME-XML, which is not allowed"

_DOCTYPE = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class OmeImage:
    """One image: name, number of planes, names of OME channels (None: it has none), pixel size, colours."""

    name: str
    planes: int
    channel_names: tuple[str | None, ...]
    pixel_size: PixelSize
    channel_colors: tuple[str | None, ...] = ()


@dataclass(frozen=True, slots=True)
class OmeInfo:
    """What the XML says; `file_name` is what it calls this file, which may have been renamed since."""

    images: tuple[OmeImage, ...]
    file_name: str | None = None


def is_ome(description: bytes) -> bool:
    """Whether a TIFF's description is OME-XML."""
    return b"<OME" in description[:4096] or b":OME" in description[:4096]


def parse_ome(description: bytes) -> OmeInfo:
    """Parse the OME-XML of a file that stands for itself."""
    root = parse_root(description)
    images = tuple(ome_image(image, pixels) for image, pixels in images_of(root))
    return OmeInfo(images, _own_file_name(root))


def parse_root(description: bytes) -> ElementTree.Element:
    """Parse OME-XML as a tree."""
    text = text_of(description)
    if _DOCTYPE.search(text):
        raise BadStructureError(Reason.IMAGE_CORRUPT, DOCTYPE_TEXT)
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        text = f"has OME-XML that cannot be read ({error}); save it again"
        raise BadStructureError(Reason.IMAGE_CORRUPT, text) from error


def text_of(description: bytes) -> str:
    """Decode OME-XML, which some programs write in the encoding of Windows."""
    try:
        return description.decode("utf-8")
    except UnicodeDecodeError:
        return description.decode("cp1252", "replace")


def images_of(root: ElementTree.Element) -> Iterator[tuple[ElementTree.Element, ElementTree.Element]]:
    """All images, each with its `Pixels`."""
    for image in named(root, "Image"):
        for pixels in named(image, "Pixels"):
            yield image, pixels


def named(parent: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Children of that name, whatever version of the OME namespace they are in."""
    return (child for child in parent if child.tag.rpartition("}")[2] == name)


def _own_file_name(root: ElementTree.Element) -> str | None:
    """Return the name that all planes refer to, None where they do not; another file is refused."""
    files = {
        (uuid.text, uuid.get("FileName"))
        for _, pixels in images_of(root)
        for data in named(pixels, "TiffData")
        for uuid in named(data, "UUID")
    }
    for uuid, name in files:
        if len(files) > 1 or root.get("UUID") not in (None, uuid):
            text = f"has its planes in another file ({clean(name or '?')}); save it as a single file"
            raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
        return name
    return None


def ome_image(image: ElementTree.Element, pixels: ElementTree.Element) -> OmeImage:
    """Read what an image is called, its channels and sizes."""
    channels = tuple(clean(channel.get("Name") or "") or None for channel in named(pixels, "Channel"))
    colors = tuple(_color(channel.get("Color", "")) for channel in named(pixels, "Channel"))
    sizes = (_micrometres(pixels, axis) for axis in "YXZ")
    counts = [
        count_of(pixels, "SizeT"),
        count_of(pixels, "SizeZ"),
        len(channels) or count_of(pixels, "SizeC"),
    ]
    return OmeImage(image.get("Name") or "", math.prod(counts), channels, PixelSize(*sizes), colors)


def _color(text: str) -> str | None:
    """Convert a colour, a signed number 0xRRGGBBAA, to #RRGGBB; white is what has no colour of its own."""
    if not re.fullmatch(r"-?\d{1,10}", text) or int(text) == NO_COLOR:
        return None
    return f"#{(int(text) >> 8) & 0xFFFFFF:06X}"


def count_of(pixels: ElementTree.Element, name: str) -> int:
    """Read a size, at least 1 digit and at most 11."""
    text = pixels.get(name, "1")
    if not text.isdecimal() or not 0 < len(text) < 12:
        raise BadStructureError(Reason.IMAGE_CORRUPT, f"has OME-XML without a proper {name}; save it again")
    return int(text)


def _micrometres(pixels: ElementTree.Element, axis: str) -> float | None:
    unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
    return length_um(pixels.get(f"PhysicalSize{axis}"), unit)


def length_um(value: object, unit: str) -> float | None:
    """Convert a length to micrometres; None where it is none, or in a unit that is no length."""
    scale = MICROMETRES.get(unit.replace("\\u00B5", "µ").strip())
    try:
        length = float(str(value)) * (scale or 0.0)
    except ValueError:
        return None
    return length if math.isfinite(length) and length > 0 else None


def clean(text: str) -> str:
    """Make a name from a file fit for messages and tables."""
    return "".join(char for char in text if char.isprintable())[:MAX_NAME_CHARACTERS].strip()
