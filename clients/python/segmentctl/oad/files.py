"""Images from files and to files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np

from segmentctl.oad.errors import ApplicationException
from segmentctl.oad.image import About, Pixels, ZenImage
from segmentd.imagefile import (
    OmeChannel,
    OmeImage,
    OmeTiffWriter,
    PixelSize,
    PixelType,
    SegmentdError,
    read_simple,
)

if TYPE_CHECKING:
    import tifffile

# axes of tifffile that mean time, slice and channel; pages that do not say what they are count as slices
_GROUPS = ("T", "ZIQ", "CS", "Y", "X")
_TIFF_ENDINGS = (".tif", ".tiff")
_MICROMETRES = {"µm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


def load(path: Path) -> ZenImage:
    """Read a TIFF, OME-TIFF, PNG, JPEG or CZI file of one scene.

    Raises
    ------
    ApplicationException, SegmentdError, OSError, ValueError
        If it cannot be read, or holds several scenes.
    """
    if path.suffix.lower() == ".czi":
        from segmentctl.oad import czi

        pixels, about = czi.read(path)
    elif path.suffix.lower() in _TIFF_ENDINGS:
        pixels, about = _read_tiff(path)
    else:
        pixels, about = read_simple(path), About()
    return ZenImage(pixels, path.name, str(path), about)


def save(image: ZenImage, path: Path) -> None:
    """Write an image as OME-TIFF, or as PNG where it is one plane and the name says so."""
    ending = path.suffix.lower()
    if ending not in (*_TIFF_ENDINGS, ".png"):
        raise ApplicationException(f"{path}: images are written as .ome.tif, .tif or .png; change the name")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        if ending == ".png":
            part.write_bytes(_png(image, path))
        else:
            _write_tiff(image, path.name, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _read_tiff(path: Path) -> tuple[Pixels, About]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            if len(tiff.series) > 1:
                raise ApplicationException(
                    f"{path} holds {len(tiff.series)} images; save each to a file of its own"
                )
            names, size = _described(tiff.ome_metadata)
            series = tiff.series[0]
            if not series.keyframe.extrasamples:
                return _ordered(series), About(names, size)
        return read_simple(path), About(names, size)  # which leaves alpha channels out
    except (ApplicationException, SegmentdError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # the decoders raise whatever their C libraries report
        raise ApplicationException(
            f"{path} cannot be decoded: {error}. Copy or export the file again.", "IMAGE_CORRUPT"
        ) from error


def _ordered(series: tifffile.TiffPageSeries) -> Pixels:
    """Bring the axes of a series into the order T, Z, C, Y, X."""
    unknown = [axis for axis in series.axes if not any(axis in group for group in _GROUPS)]
    if unknown:
        raise ApplicationException(f"the file has axes {series.axes}; T, Z, C, Y and X are known")
    axes = list(enumerate(series.axes))
    groups = [[number for number, axis in axes if axis in group] for group in _GROUPS]
    pixels: Pixels = series.asarray()
    shape = [int(np.prod([pixels.shape[number] for number in group])) for group in groups]
    return pixels.transpose([number for group in groups for number in group]).reshape(shape)


def _described(xml: str | None) -> tuple[tuple[str, ...], PixelSize]:
    """Names of channels and pixel size that OME-XML tells."""
    if not xml:
        return (), PixelSize()
    elements: dict[str, ET.Element] = {}
    names = []
    for element in ET.fromstring(xml).iter():
        tag = element.tag.rpartition("}")[2]
        elements.setdefault(tag, element)
        if tag == "Channel":
            names.append(element.get("Name", ""))
    attributes = elements["Pixels"].attrib if "Pixels" in elements else {}
    sizes = []
    for axis in "YXZ":
        value = attributes.get(f"PhysicalSize{axis}")
        factor = _MICROMETRES.get(attributes.get(f"PhysicalSize{axis}Unit", "µm"))
        sizes.append(float(value) * factor if value and factor else None)
    return tuple(names) if all(names) else (), PixelSize(*sizes)


def _write_tiff(image: ZenImage, name: str, part: Path) -> None:
    size_t, size_z, _, height, width = image.pixels.shape
    if image.pixels.dtype.name not in tuple(PixelType):
        raise ApplicationException(f"pixels of {image.pixels.dtype} cannot be written")
    colors = {entry.name: entry.color for entry in image.about.classes}
    described = OmeImage(
        height=height,
        width=width,
        channels=tuple(OmeChannel(channel, colors.get(channel)) for channel in image.channel_names),
        identity=hashlib.sha256(image.pixels.tobytes()).hexdigest(),
        pixel_type=PixelType(image.pixels.dtype.name),
        name=name,
        size_z=size_z,
        size_t=size_t,
        pixel_size=image.about.pixel_size,
        classes=image.about.classes,
    )
    with part.open("wb+") as file, OmeTiffWriter(file, described) as writer:
        for planes in image.pixels:
            for plane in planes:
                writer.write_plane(plane)


def _png(image: ZenImage, path: Path) -> bytes:
    import imagecodecs

    size_t, size_z, channels, _, _ = image.pixels.shape
    whole = image.pixels.dtype in (np.uint8, np.uint16)
    if size_t * size_z > 1 or channels not in (1, 3) or not whole:
        raise ApplicationException(f"{path}: PNG holds one grey or colour plane; write .ome.tif instead")
    plane = np.moveaxis(image.pixels[0, 0], 0, -1)
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(plane[..., 0] if channels == 1 else plane)))
