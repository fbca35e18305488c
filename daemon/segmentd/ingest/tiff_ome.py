"""OME-XML of an OME-TIFF that stands for itself: names, sizes, and where its planes are.

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
    """What the XML says; `file_name` is what it calls this file, which may have been renamed since.

    `binary_only` names the file that has the metadata, where this one has none of its own.
    """

    images: tuple[OmeImage, ...]
    file_name: str | None = None
    binary_only: str | None = None


def is_ome(description: bytes) -> bool:
    """Whether a TIFF's description is OME-XML."""
    return b"<OME" in description[:4096] or b":OME" in description[:4096]


def parse_ome(description: bytes) -> OmeInfo:
    """Parse OME-XML; sets of several files are refused, except members that hold a single plane."""
    try:
        text = description.decode("utf-8")
    except UnicodeDecodeError:
        text = description.decode("cp1252", "replace")
    if _DOCTYPE.search(text):
        raise BadStructureError(
            Reason.IMAGE_CORRUPT, "has a document type in its OME-XML, which is not allowed"
        )
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        text = f"has OME-XML that cannot be read ({error}); save it again"
        raise BadStructureError(Reason.IMAGE_CORRUPT, text) from error
    for element in _named(root, "BinaryOnly"):
        return OmeInfo((), binary_only=element.get("MetadataFile", "another file"))
    images = tuple(
        _image(image, pixels) for image in _named(root, "Image") for pixels in _named(image, "Pixels")
    )
    return OmeInfo(images, _own_file_name(root))


def _named(parent: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Children of that name, whatever version of the OME namespace they are in."""
    return (child for child in parent if child.tag.rpartition("}")[2] == name)


def _own_file_name(root: ElementTree.Element) -> str | None:
    """Return the name that all planes refer to, None where they do not; other files are refused."""
    files = {
        (uuid.text, uuid.get("FileName"))
        for image in _named(root, "Image")
        for pixels in _named(image, "Pixels")
        for data in _named(pixels, "TiffData")
        for uuid in _named(data, "UUID")
    }
    if len(files) > 1:
        names = sorted({clean(name or "?") for _, name in files})
        text = (
            f"is one of {len(names)} files of an OME-TIFF set ({', '.join(names[:3])}, ...); "
            "sets are not supported: save it as a single file"
        )
        raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
    for uuid, name in files:
        if root.get("UUID") not in (None, uuid):
            text = f"has its planes in another file ({clean(name or '?')}); save it as a single file"
            raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
        return name
    return None


def _image(image: ElementTree.Element, pixels: ElementTree.Element) -> OmeImage:
    channels = tuple(clean(channel.get("Name") or "") or None for channel in _named(pixels, "Channel"))
    colors = tuple(_color(channel.get("Color", "")) for channel in _named(pixels, "Channel"))
    sizes = (_micrometres(pixels, axis) for axis in "YXZ")
    counts = [_count(pixels, "SizeT"), _count(pixels, "SizeZ"), len(channels) or _count(pixels, "SizeC")]
    return OmeImage(image.get("Name") or "", math.prod(counts), channels, PixelSize(*sizes), colors)


def _color(text: str) -> str | None:
    """Convert a colour, a signed number 0xRRGGBBAA, to #RRGGBB; white is what has no colour of its own."""
    if not re.fullmatch(r"-?\d{1,10}", text) or int(text) == NO_COLOR:
        return None
    return f"#{(int(text) >> 8) & 0xFFFFFF:06X}"


def _count(pixels: ElementTree.Element, name: str) -> int:
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
