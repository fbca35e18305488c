"""The OME-XML (schema 2016-06) of a result file, composed before the first pixel is written."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt

from segmentd.imagefile.colors import ome_color
from segmentd.records import ClassInfo, PixelSize, PixelType

SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
CLASSES_NAMESPACE = "segmentd/classes"
NOTES_NAMESPACE = "segmentd/provenance"

_UUID_NAMESPACE = uuid.UUID("5f1c6f2e-6a0b-5c7e-9d53-2b8e4f0a7c11")
_OME_TYPES = {PixelType.FLOAT32: "float"}
_NOT_XML = re.compile("[^\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class OmeChannel:
    """A channel's name and, if it has one, its display colour `#RRGGBB`.

    The values of `labels` are names: smaller levels show the most frequent one instead of the mean.
    """

    name: str
    color: str | None = None
    labels: bool = False


@dataclass(frozen=True, slots=True)
class OmeImage:
    """What an OME-TIFF file will hold; known before its pixels are.

    Attributes
    ----------
    height, width
        Of every plane, in pixels.
    channels
        One or more; the channel is the fastest axis of the file, then Z, then time, then scene.
    identity
        The file's UUID is derived from this text, so equal text means an equal UUID.
    scene_sizes
        Height and width of each scene, where they differ; only CZI can tell.
    classes
        What the label values mean; written as an annotation (`1` -> `nucleus #E69F00`).
    notes
        Further names and values to keep in the file, such as the model's digest.
    """

    height: int
    width: int
    channels: tuple[OmeChannel, ...]
    identity: str
    pixel_type: PixelType = PixelType.UINT8
    name: str = ""
    size_z: int = 1
    size_t: int = 1
    scenes: int = 1
    scene_sizes: tuple[tuple[int, int], ...] = ()
    pixel_size: PixelSize = field(default_factory=PixelSize)
    classes: tuple[ClassInfo, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def page_count(self) -> int:
        """Number of TIFF pages: one for each channel of each plane."""
        return len(self.channels) * self.size_z * self.size_t * self.scenes

    def check_rows(self, rows: npt.NDArray[np.generic], expected: tuple[int, int]) -> None:
        """Check that the next rows of a channel have a shape, and the pixel type; else a ValueError."""
        if rows.shape != expected or rows.dtype != np.dtype(self.pixel_type.value):
            raise ValueError(f"the next rows are {expected} {self.pixel_type}, not {rows.shape} {rows.dtype}")

    def check_not_whole(self, pages_written: int) -> None:
        """Check that pages are missing; else a ValueError."""
        if pages_written == self.page_count:
            raise ValueError(f"the file is declared with {self.page_count} pages and has them all")

    def check_whole(self, pages_written: int) -> None:
        """Check that no page is missing; else a ValueError."""
        if pages_written != self.page_count:
            raise ValueError(f"{pages_written} of {self.page_count} pages were written")


def ome_xml(image: OmeImage) -> bytes:
    """Compose the OME-XML as UTF-8.

    It has no numeric character references (`&#181;`): Bio-Formats blanks them before it parses, and then
    takes the file for a plain TIFF.
    """
    root = ET.Element(
        "OME",
        {
            "xmlns": SCHEMA,
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:schemaLocation": f"{SCHEMA} {SCHEMA}/ome.xsd",
            "UUID": f"urn:uuid:{file_uuid(image)}",
            "Creator": "segmentd",
        },
    )
    annotations = _annotations(image)
    for scene in range(image.scenes):
        element = ET.SubElement(root, "Image", ID=f"Image:{scene}", Name=_scene_name(image, scene))
        _add_pixels(element, image, scene)
        for index in range(len(annotations)):
            ET.SubElement(element, "AnnotationRef", ID=f"Annotation:{index}")
    if annotations:
        _add_annotations(root, annotations)
    body: bytes = ET.tostring(root, encoding="utf-8")
    return b'<?xml version="1.0" encoding="UTF-8"?>' + body


def file_uuid(image: OmeImage) -> uuid.UUID:
    """Return the UUID of a file, which follows from the image's identity."""
    return uuid.uuid5(_UUID_NAMESPACE, clean_text(image.identity))


def _scene_name(image: OmeImage, scene: int) -> str:
    name = clean_text(image.name)
    return name if image.scenes == 1 else f"{name} #{scene + 1}".strip()


def _add_pixels(parent: ET.Element, image: OmeImage, scene: int) -> None:
    size = image.pixel_size
    attributes = {
        "ID": f"Pixels:{scene}",
        "DimensionOrder": "XYCZT",
        "Type": _OME_TYPES.get(image.pixel_type, image.pixel_type.value),
        "BigEndian": "false",
        "Interleaved": "false",
        "SizeX": str(image.width),
        "SizeY": str(image.height),
        "SizeC": str(len(image.channels)),
        "SizeZ": str(image.size_z),
        "SizeT": str(image.size_t),
    }
    for axis, value in (("X", size.x_um), ("Y", size.y_um), ("Z", size.z_um)):
        if value is not None and value > 0:  # the schema has no zero or negative sizes
            attributes |= {f"PhysicalSize{axis}": repr(float(value)), f"PhysicalSize{axis}Unit": "µm"}
    pixels = ET.SubElement(parent, "Pixels", attributes)
    for index, channel in enumerate(image.channels):
        element = ET.SubElement(
            pixels,
            "Channel",
            ID=f"Channel:{scene}:{index}",
            Name=clean_text(channel.name),
            SamplesPerPixel="1",
        )
        if channel.color is not None:
            element.set("Color", str(ome_color(channel.color)))
    pages = image.page_count // image.scenes
    ET.SubElement(pixels, "TiffData", IFD=str(scene * pages), PlaneCount=str(pages))


def _annotations(image: OmeImage) -> dict[str, dict[str, str]]:
    """Map annotations by namespace, without the empty ones."""
    named = {
        CLASSES_NAMESPACE: {str(item.value): f"{item.name} {item.color}" for item in image.classes},
        NOTES_NAMESPACE: dict(image.notes),
    }
    return {namespace: entries for namespace, entries in named.items() if entries}


def _add_annotations(root: ET.Element, annotations: Mapping[str, Mapping[str, str]]) -> None:
    parent = ET.SubElement(root, "StructuredAnnotations")
    for index, (namespace, entries) in enumerate(annotations.items()):
        annotation = ET.SubElement(parent, "MapAnnotation", ID=f"Annotation:{index}", Namespace=namespace)
        value = ET.SubElement(annotation, "Value")
        for key, text in entries.items():
            ET.SubElement(value, "M", K=clean_text(key)).text = clean_text(text)


def clean_text(text: str) -> str:
    """Replace what XML 1.0 cannot carry (controls, lone surrogates), and line breaks and tabs."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
