"""What a result file says about itself: the way back from `segmentd.imagefile.omexml`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from segmentd.errors import Reason, SegmentdError
from segmentd.imagefile.omexml import CLASSES_NAMESPACE, NOTES_NAMESPACE, SCHEMA
from segmentd.imagefile.reading import CZI_SUFFIX
from segmentd.records import ClassInfo

_OME = f"{{{SCHEMA}}}"
_MAX_XML = 16 << 20


@dataclass(frozen=True, slots=True)
class Description:
    """Name of the image, sizes, classes, and notes such as the digests of image and model."""

    name: str
    height: int
    width: int
    size_z: int
    size_t: int
    scenes: int
    classes: tuple[ClassInfo, ...]
    notes: Mapping[str, str]


def read_description(path: Path) -> Description:
    """Read what a result (OME-TIFF, OME-Zarr or CZI) holds and what it was made from.

    Raises
    ------
    SegmentdError
        RESULT_UNAVAILABLE where it is not such a file.
    """
    if path.suffix == CZI_SUFFIX:
        from segmentd.imagefile.czi_reading import read_czi_description

        return read_czi_description(path)
    if path.is_dir():
        from segmentd.imagefile.omezarr_reading import read_zarr_description

        return read_zarr_description(path)
    import tifffile

    try:
        with tifffile.TiffFile(path, is_ome=False) as tiff:
            text = tiff.pages[0].aspage().description
        if len(text) > _MAX_XML or "<!" in text:
            raise ValueError("its description is none of ours")
        return _description(ET.fromstring(text))
    except (OSError, tifffile.TiffFileError, ET.ParseError, LookupError, ValueError, TypeError) as error:
        raise SegmentdError(
            Reason.RESULT_UNAVAILABLE, f"{path} is not a result file of segmentd: {error}"
        ) from error


def _description(root: ET.Element) -> Description:
    images = root.findall(f"{_OME}Image")
    pixels = images[0].find(f"{_OME}Pixels")
    if pixels is None:
        raise ValueError("it has no pixels")
    name, scenes = images[0].get("Name", ""), len(images)
    return Description(
        name=name if scenes == 1 else name.removesuffix(" #1"),
        height=int(pixels.attrib["SizeY"]),
        width=int(pixels.attrib["SizeX"]),
        size_z=int(pixels.attrib["SizeZ"]),
        size_t=int(pixels.attrib["SizeT"]),
        scenes=scenes,
        classes=tuple(_class(value, text) for value, text in _entries(root, CLASSES_NAMESPACE)),
        notes=dict(_entries(root, NOTES_NAMESPACE)),
    )


def _entries(root: ET.Element, namespace: str) -> Iterator[tuple[str, str]]:
    for annotation in root.iter(f"{_OME}MapAnnotation"):
        if annotation.get("Namespace") == namespace:
            for entry in annotation.iter(f"{_OME}M"):
                yield entry.attrib["K"], entry.text or ""


def _class(value: str, text: str) -> ClassInfo:
    name, _, color = text.rpartition(" ")
    return ClassInfo(int(value), name, color)
