"""Metadata of a CZI: pixel size, names and colours of channels. Runs in a worker process."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree

from segmentd.errors import Reason
from segmentd.ingest.tiff_ome import clean, length_um
from segmentd.ingest.verdict import BadStructureError
from segmentd.records import PixelSize

_DOCTYPE = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
_COLOR = re.compile(r"#(?:[0-9A-Fa-f]{2})?([0-9A-Fa-f]{6})")


@dataclass(frozen=True, slots=True)
class CziMetadata:
    """What the XML says; names and colours (`#RRGGBB`) in the order of channels, None where it does not."""

    pixel_size: PixelSize
    names: tuple[str | None, ...]
    colors: tuple[str | None, ...]


def parse_metadata(xml: bytes) -> CziMetadata:
    """Parse the XML of a CZI; a document type definition is refused, what is missing is None."""
    if not xml.strip(b"\0 \r\n\t"):
        return CziMetadata(PixelSize(), (), ())
    if _DOCTYPE.search(xml):
        text = "has a document type in its metadata, which is not allowed"
        raise BadStructureError(Reason.IMAGE_CORRUPT, text)
    try:
        root = ElementTree.fromstring(xml.strip(b"\0"))
    except ElementTree.ParseError as error:
        text = f"has metadata that cannot be read ({error}); save it again"
        raise BadStructureError(Reason.IMAGE_CORRUPT, text) from error
    # In metres, of which a power of ten more or less must not show in the last digits.
    metres = {
        item.get("Id"): item.findtext("Value") for item in root.iterfind("Metadata/Scaling/Items/Distance")
    }
    sizes = (_rounded(length_um(metres.get(axis), "m")) for axis in "YXZ")
    shown = root.findall("Metadata/DisplaySetting/Channels/Channel")
    named = root.findall("Metadata/Information/Image/Dimensions/Channels/Channel") or shown
    by_id = {channel.get("Id"): channel for channel in shown}
    colors = [_color(channel) or _color(by_id.get(channel.get("Id"))) for channel in named]
    if not any(colors) and len(shown) == len(named):
        colors = [_color(channel) for channel in shown]
    return CziMetadata(PixelSize(*sizes), tuple(_name(channel) for channel in named), tuple(colors))


def _rounded(size_um: float | None) -> float | None:
    return None if size_um is None else float(f"{size_um:.14g}")


def _name(channel: ElementTree.Element) -> str | None:
    return clean(channel.get("Name") or "") or None


def _color(channel: ElementTree.Element | None) -> str | None:
    match = _COLOR.fullmatch((channel is not None and channel.findtext("Color")) or "")
    return f"#{match[1].upper()}" if match else None
