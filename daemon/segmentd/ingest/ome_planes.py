"""Where each plane of the images in an OME-XML is: in which file, and which image there. In a worker."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason
from segmentd.ingest.ome_reader import References
from segmentd.ingest.tiff_layout import MAX_PLANES
from segmentd.ingest.tiff_ome import OmeImage, count_of, images_of, named, ome_image, parse_root
from segmentd.ingest.verdict import BadStructureError

NOWHERE = -1


@dataclass(frozen=True, slots=True)
class ImagePlanes:
    """One image of an OME-XML.

    Attributes
    ----------
    image : OmeImage
        Its name, channels and pixel size.
    like : tuple
        What images that are scenes of one have in common: sizes, type, samples of a pixel.
    files, pages : int arrays (T, Z, C)
        Number of the file in `References.files`, and of the image in it; -1 where the XML does not say.
        Channels are those in images of their own.
    """

    image: OmeImage
    like: tuple[object, ...]
    files: npt.NDArray[np.intp]
    pages: npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class _Block:
    """A TiffData: where its first plane is by axis, its first image, how many (None: all from there on)."""

    place: dict[str, int]
    file: int
    page: int
    count: int | None


def planes_in(
    xml: bytes, references: References, images_of_file: Callable[[bytes], int]
) -> list[ImagePlanes]:
    """Find the planes of all images that have some.

    Parameters
    ----------
    xml, references
        The XML, and what it refers to.
    images_of_file : callable
        Returns how many images a file has, for the rare XML that does not say how many planes are in it.

    Raises
    ------
    BadStructureError
        The XML makes no sense, or promises too many planes.
    """
    names = list(references.files)
    numbers = {name: number for number, name in enumerate(names)}
    by_uuid = {file.uuid: numbers[name] for name, file in references.files.items() if file.uuid}
    own = numbers.get(references.own, NOWHERE)
    found = []
    for image, pixels in images_of(parse_root(xml)):
        blocks = list(_blocks(pixels, numbers, by_uuid, own))
        if blocks:
            found.append(
                _placed(ome_image(image, pixels), pixels, blocks, lambda n: images_of_file(names[n]))
            )
    return found


def _blocks(
    pixels: ElementTree.Element, numbers: dict[bytes, int], by_uuid: dict[str, int], own: int
) -> Iterator[_Block]:
    for data in named(pixels, "TiffData"):
        file = own
        for uuid in named(data, "UUID"):
            name = (uuid.get("FileName") or "").encode()
            file = numbers[name] if name in numbers else by_uuid.get((uuid.text or "").strip(), own)
            break  # as others do, the first one only
        count = data.get("PlaneCount", data.get("NumPlanes", None if data.get("IFD") is None else "1"))
        place = {axis: int(data.get(f"First{axis}", "0")) for axis in "TZC"}
        yield _Block(place, file, int(data.get("IFD", "0")), None if count is None else int(count))


def _placed(
    image: OmeImage,
    pixels: ElementTree.Element,
    blocks: list[_Block],
    images_of_file: Callable[[int], int],
) -> ImagePlanes:
    order = (pixels.get("DimensionOrder") or "XYCZT")[::-1].replace("Y", "").replace("X", "")
    if sorted(order) != ["C", "T", "Z"]:
        raise BadStructureError(
            Reason.IMAGE_CORRUPT, "has OME-XML without a proper order of axes; save it again"
        )
    samples = _samples(pixels)
    sizes = {axis: count_of(pixels, f"Size{axis}") for axis in "TZC"}
    sizes["C"] = max(1, sizes["C"] // samples)
    shape = tuple(sizes[axis] for axis in order)
    total = math.prod(shape)
    if not 0 < total <= MAX_PLANES:
        text = f"has {total} planes; {MAX_PLANES} are allowed: split it"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
    files = np.full(total, NOWHERE, np.intp)
    pages = np.full(total, NOWHERE, np.intp)
    for block in blocks:
        place = tuple(block.place[axis] for axis in order)
        if any(at >= size for at, size in zip(place, shape, strict=True)):
            continue  # ImageJ writes such ones when it crops; others pass over them, too
        start = int(np.ravel_multi_index(place, shape))
        count = block.count or images_of_file(block.file) - block.page
        part = slice(start, min(start + max(0, count), total))
        files[part] = block.file
        pages[part] = np.arange(block.page, block.page + part.stop - part.start)
    axes = [order.index(axis) for axis in "TZC"]
    like = (
        *(sizes[axis] for axis in "TZC"),
        samples,
        pixels.get("Type"),
        pixels.get("SizeX"),
        pixels.get("SizeY"),
    )
    return ImagePlanes(
        image, like, files.reshape(shape).transpose(axes), pages.reshape(shape).transpose(axes)
    )


def _samples(pixels: ElementTree.Element) -> int:
    """Read how many samples a pixel has within one image of a file, the same for all channels."""
    stated = {channel.get("SamplesPerPixel", "1") for channel in named(pixels, "Channel")} or {"1"}
    text = stated.pop()
    if stated or not text.isdecimal() or not 0 < len(text) < 4 or int(text) < 1:
        text = "mixes channels of different numbers of samples, or does not say how many; save it again"
        raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
    return int(text)
