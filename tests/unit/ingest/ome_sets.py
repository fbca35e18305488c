"""Writes OME-TIFF sets, with or without a companion file, as acquisition programs do."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
RNG = np.random.default_rng(5)


def uuid_of(name: str) -> str:
    """The same UUID for the same name, always."""
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, name)}"


def ome(body: str, own: str = "") -> str:
    """An OME-XML; `own` is the name of the file that it is in."""
    identity = f' UUID="{uuid_of(own)}"' if own else ""
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{NAMESPACE}"{identity}>{body}</OME>'


def pixels_xml(shape: tuple[int, ...], data: str, pixel_type: str = "uint8", scene: int = 0) -> str:
    """One image of `shape` (T, C, Z, Y, X) with the elements TiffData in `data`, planes in the order ZCT."""
    size_t, size_c, size_z, size_y, size_x = shape
    channels = "".join(f'<Channel ID="Channel:{scene}:{c}" Name="channel {c}"/>' for c in range(size_c))
    return (
        f'<Image ID="Image:{scene}" Name="set"><Pixels ID="Pixels:{scene}" DimensionOrder="XYZCT" '
        f'Type="{pixel_type}" SizeX="{size_x}" SizeY="{size_y}" SizeZ="{size_z}" SizeC="{size_c}" '
        f'SizeT="{size_t}">{channels}{data}</Pixels></Image>'
    )


def tiff_data(name: str, t: int = 0, c: int = 0, z: int = 0, ifd: int = 0, count: int = 1) -> str:
    """Planes of a file; an empty name stands for the file that the XML is in."""
    file = f'<UUID FileName="{name}">{uuid_of(name)}</UUID>' if name else ""
    place = f'FirstT="{t}" FirstC="{c}" FirstZ="{z}" IFD="{ifd}" PlaneCount="{count}"'
    return f"<TiffData {place}>{file}</TiffData>"


def binary_only(own: str, metadata: str) -> str:
    """The XML of a member that refers to the file with the metadata."""
    return ome(f'<BinaryOnly MetadataFile="{metadata}" UUID="{uuid_of(metadata)}"/>', own)


def write_member(path: Path, pixels: npt.NDArray[Any], xml: str, **options: Any) -> Path:
    """A TIFF of planes (N, Y, X) with that description."""
    with tifffile.TiffWriter(path) as writer:
        for number, plane in enumerate(pixels):
            description = xml.encode() if number == 0 else None
            writer.write(
                plane,
                description=description,
                metadata=None,
                contiguous=False,
                photometric="minisblack",
                **options,
            )
    return path


def random_pixels(shape: tuple[int, ...] = (2, 2, 3, 24, 32)) -> npt.NDArray[Any]:
    """An array (T, C, Z, Y, X)."""
    return RNG.integers(0, 255, shape, np.uint8)


def write_by_time(
    folder: Path, pixels: npt.NDArray[Any], stem: str = "a", companion: bool = False, **options: Any
) -> list[Path]:
    """One file a time, (T, C, Z, Y, X); the leader comes first: the companion, if there is one."""
    names = [f"{stem}_T{t}.ome.tif" for t in range(len(pixels))]
    planes = pixels.shape[1] * pixels.shape[2]
    data = "".join(tiff_data(name, t=t, count=planes) for t, name in enumerate(names))
    body = pixels_xml(pixels.shape, data)
    files = []
    if companion:
        files.append(folder / f"{stem}.companion.ome")
        files[0].write_text(ome(body, files[0].name))
    for name, time in zip(names, pixels, strict=True):
        xml = binary_only(name, files[0].name) if companion else ome(body, name)
        files.append(write_member(folder / name, time.reshape(planes, *time.shape[2:]), xml, **options))
    return files


def write_by_position(folder: Path, pixels: npt.NDArray[Any], stem: str = "a") -> list[Path]:
    """As Micro-Manager: a file a position, (P, T, C, Z, Y, X), the metadata in the first file only."""
    names = [f"{stem}_MMStack_Pos{p}.ome.tif" for p in range(len(pixels))]
    planes = int(np.prod(pixels.shape[1:4]))
    body = "".join(
        pixels_xml(pixels.shape[1:], tiff_data(name, count=planes), scene=p) for p, name in enumerate(names)
    )
    texts = [ome(body, names[0]), *(binary_only(name, names[0]) for name in names[1:])]
    return [
        write_member(folder / name, position.reshape(planes, *position.shape[3:]), xml)
        for name, position, xml in zip(names, pixels, texts, strict=True)
    ]
