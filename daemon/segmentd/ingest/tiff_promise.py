"""How many planes the description of a TIFF promises, without a parser that could be led astray.

A stack whose writer appends one plane after the other looks whole after each of them; most writers say at
the start how many there will be.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

MAX_DESCRIPTION_BYTES = 16 << 20
MAX_JSON_BYTES = 64 << 10

_IMAGEJ_IMAGES = re.compile(rb"^images=(\d{1,9})\s*$", re.MULTILINE)
_OME_DATA = re.compile(rb"<(?:\w+:)?TiffData\b([^>]{0,1000})>")
_OME_UUID = re.compile(rb"urn:uuid:[0-9a-fA-F-]{36}\s*</(?:\w+:)?UUID>")
_OME_NUMBER = re.compile(rb"\b(IFD|PlaneCount|NumPlanes)\s*=\s*[\"'](\d{1,9})[\"']")


@dataclass(frozen=True, slots=True)
class Promise:
    """What a description says.

    Attributes
    ----------
    planes : int
        Planes in the file; 0 where it does not say.
    pixels : int, optional
        All numbers of all planes together, where it says that instead.
    contiguous : bool
        One directory may stand for all planes, which then follow each other.
    binding : bool
        Fewer planes than promised mean that the file is not complete.
    """

    planes: int = 0
    pixels: int | None = None
    contiguous: bool = False
    binding: bool = True


def promise_of(description: bytes) -> Promise:
    """Read the promise out of the description of the first image."""
    if description.startswith(b"ImageJ="):
        match = _IMAGEJ_IMAGES.search(description)
        # ImageJ's number is not reliable where each plane has a directory.
        return Promise(int(match[1]) if match else 0, contiguous=True, binding=False)
    if description.startswith(b"{"):
        return _shaped(description)
    if b"TiffData" in description:
        return Promise(_ome_planes(description))
    return Promise()


def _shaped(description: bytes) -> Promise:
    """Read the JSON that tifffile writes: the shape of the whole series."""
    if len(description) > MAX_JSON_BYTES or b'"shape"' not in description:
        return Promise()
    try:
        shape = json.loads(description)["shape"]
        numbers = [int(length) for length in shape]
    except (ValueError, TypeError, KeyError, RecursionError):
        return Promise()
    return Promise(pixels=math.prod(numbers), contiguous=True)


def _ome_planes(description: bytes) -> int:
    """Directories that OME-XML refers to in a file that stands for itself; 0 for sets of files."""
    if len(set(_OME_UUID.findall(description))) > 1:
        return 0
    planes = 0
    for attributes in _OME_DATA.findall(description):
        found = {key: int(value) for key, value in _OME_NUMBER.findall(attributes)}
        if b"IFD" in found:
            planes = max(planes, found[b"IFD"] + found.get(b"PlaneCount", found.get(b"NumPlanes", 1)))
    return planes
