"""Structural check of OME-Zarr: metadata are there and make sense, and so are the chunks of level 0.

An image of version 0.5 is a group of Zarr 3, older ones are of Zarr 2. What `multiscales` names first is the
image; further levels have to be there, but are not read. Of a folder of several images (`bioformats2raw`)
those that equal the first, but for height and width, are its scenes.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from segmentd.errors import Reason
from segmentd.ingest import tree
from segmentd.ingest.tiff_ome import clean
from segmentd.ingest.verdict import MAX_FILE_BYTES, MAX_PLANE_BYTES, BadStructureError, StillOpenError
from segmentd.ingest.zarr_metadata import ArrayMetadata, corrupt, read_array, read_document, unsupported
from segmentd.records import PixelSize

AXES = "tczyx"
MAX_PLANES = 1_000_000
MAX_IMAGES = 10_000
MAX_CHANNELS = 65_536
MAX_LEVELS = 64
MICROMETRES = {
    "picometer": 1e-6,
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
    "inch": 25400.0,
}
COLOR = re.compile(r"#?([0-9A-Fa-f]{6})([0-9A-Fa-f]{2})?")


@dataclass(frozen=True, slots=True)
class ZarrSummary:
    """What the check learned.

    Attributes
    ----------
    version : str
        Of the OME metadata.
    scenes : tuple of ArrayMetadata
        Level 0 of each.
    axes : str
        One letter for each axis of the arrays: of `tczyx`, or `?` for others, whose length is 1.
    channel_names, channel_colors : tuple of str or None
        As stated; empty where nothing is.
    pixel_size : PixelSize
        Of level 0.
    pending : bool
        Some chunks are not there. The metadata say what stands for them, but they may also still come.
    """

    version: str
    scenes: tuple[ArrayMetadata, ...]
    axes: str
    channel_names: tuple[str | None, ...]
    channel_colors: tuple[str | None, ...]
    pixel_size: PixelSize
    pending: bool

    def length(self, axis: str, scene: int = 0) -> int:
        """Length of an axis, 1 where there is none of that name."""
        position = self.axes.find(axis)
        return 1 if position < 0 else self.scenes[scene].shape[position]


def examine_zarr(fd: int) -> ZarrSummary:
    """Check a whole image, through the descriptor of its folder."""
    summary, files = read_summary(fd)
    # All of them, not the first.
    pending = any([_chunks_missing(array, summary.axes, files) for array in summary.scenes])
    check_size(summary)
    return replace(summary, pending=pending)


def read_summary(fd: int) -> tuple[ZarrSummary, dict[str, int]]:
    """Read the metadata of an image, whether its chunks are there or not, and the sizes of its files."""
    files = _files(fd)
    root = _attributes(fd, "")
    if root is None:
        raise StillOpenError("it has no metadata yet (zarr.json, or .zgroup and .zattrs)")
    prefixes = [""]
    if "plate" in root:
        raise unsupported("is a plate of many images; put these into the folder one by one")
    if "multiscales" not in root:
        if "bioformats2raw.layout" not in root:
            text = (
                "it has no OME metadata (multiscales): its writer is not done, or it is another kind of Zarr"
            )
            raise StillOpenError(text)
        numbers = range(MAX_IMAGES)
        prefixes = _while_there(fd, numbers)
    images = [_image(fd, prefix, _attributes(fd, prefix) or {}) for prefix in prefixes]
    first = images[0]
    alike = tuple(image.scenes[0] for image in images if _kind(image) == _kind(first))
    return replace(first, scenes=alike), files


def _files(fd: int) -> dict[str, int]:
    """Sizes of all files by path."""
    files: dict[str, int] = {}
    for file in tree.files_of(fd):
        files[file.path.decode("utf-8", "surrogateescape")] = file.size_bytes
        if len(files) > tree.MAX_FILES:
            text = f"is made of more than {tree.MAX_FILES} files; save it with larger chunks, or with shards"
            raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
    if sum(files.values()) > MAX_FILE_BYTES:
        text = f"has {sum(files.values())} bytes; {MAX_FILE_BYTES} are allowed: split it"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
    return files


def _attributes(fd: int, prefix: str) -> dict[str, Any] | None:
    """OME attributes of a group, None where there is no group."""
    group = read_document(fd, f"{prefix}zarr.json")
    if group is not None:
        attributes = group.get("attributes")
        found = attributes.get("ome") if isinstance(attributes, dict) else None
        return found if isinstance(found, dict) else {}
    if read_document(fd, f"{prefix}.zgroup") is None:
        return None
    return read_document(fd, f"{prefix}.zattrs") or {}


def _while_there(fd: int, numbers: range) -> list[str]:
    prefixes = []
    for number in numbers:
        if _attributes(fd, f"{number}/") is None:
            break
        prefixes.append(f"{number}/")
    if not prefixes:
        raise StillOpenError("it has no image yet")
    return prefixes


def _image(fd: int, prefix: str, attributes: dict[str, Any]) -> ZarrSummary:
    """Read the metadata of one image."""
    scales = attributes.get("multiscales")
    if scales is None:
        raise StillOpenError("it has no OME metadata (multiscales) yet")
    if not isinstance(scales, list) or not scales or not isinstance(scales[0], dict):
        raise corrupt("multiscales are no list")
    scale = scales[0]
    datasets = scale.get("datasets")
    if not isinstance(datasets, list) or not 0 < len(datasets) <= MAX_LEVELS:
        raise corrupt("multiscales name no datasets")
    levels = [read_array(fd, prefix + _path(dataset)) for dataset in datasets]
    axes, units = _axes(scale.get("axes"), levels[0])
    names, colors = _channels(attributes.get("omero"))
    version = scale.get("version") or attributes.get("version") or "0.4"
    steps = _product(_steps(scale, len(axes)), _steps(datasets[0], len(axes)))
    return ZarrSummary(
        clean(str(version)), (levels[0],), axes, names, colors, _pixel_size(axes, units, steps), False
    )


def _path(dataset: object) -> str:
    path = dataset.get("path") if isinstance(dataset, dict) else None
    if not isinstance(path, str) or not 0 < len(path) < 500:
        raise corrupt("a dataset without a path")
    if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
        raise corrupt("a dataset outside of the image")
    return path


def _axes(stated: object, array: ArrayMetadata) -> tuple[str, list[str]]:
    """Letters and units of the axes; versions before 0.3 have all five in a fixed order."""
    if stated is None:
        stated = list(AXES)
    if not isinstance(stated, list) or len(stated) != len(array.shape):
        raise corrupt("other axes than the array has")
    letters, units = [], []
    for axis, length in zip(stated, array.shape, strict=True):
        name = str(axis.get("name") if isinstance(axis, dict) else axis).lower()
        if name not in AXES or len(name) != 1:
            if length > 1:
                raise unsupported(
                    f"has an axis '{clean(name)}' of length {length}, which is not supported; split it"
                )
            name = "?"
        letters.append(name)
        units.append(str(axis.get("unit", "")) if isinstance(axis, dict) else "")
    named = [letter for letter in letters if letter != "?"]
    if len(set(named)) != len(named) or not {"y", "x"} <= set(named):
        raise corrupt("axes without y and x, or one twice")
    return "".join(letters), units


def _steps(holder: dict[str, Any], count: int) -> list[float]:
    """Return the scale of each axis, 1 where nothing is stated."""
    transformations = holder.get("coordinateTransformations")
    for one in transformations if isinstance(transformations, list) else []:
        scale = one.get("scale") if isinstance(one, dict) else None
        if isinstance(scale, list) and len(scale) == count:
            numbers = [float(step) for step in scale if isinstance(step, int | float)]
            if len(numbers) == count:
                return numbers
    return [1.0] * count


def _product(one: list[float], other: list[float]) -> list[float]:
    return [a * b for a, b in zip(one, other, strict=True)]


def _pixel_size(axes: str, units: list[str], steps: list[float]) -> PixelSize:
    """Lengths in micrometres, None for axes without a unit of length."""
    lengths: dict[str, float | None] = dict.fromkeys("yxz")
    for axis, unit, step in zip(axes, units, steps, strict=True):
        um = step * MICROMETRES.get(unit, math.nan)
        if axis in lengths and math.isfinite(um) and um > 0:
            lengths[axis] = um
    return PixelSize(lengths["y"], lengths["x"], lengths["z"])


def _channels(omero: object) -> tuple[tuple[str | None, ...], tuple[str | None, ...]]:
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list) or len(channels) > MAX_CHANNELS:
        return (), ()
    entries = [channel if isinstance(channel, dict) else {} for channel in channels]
    names = tuple(clean(str(entry.get("label") or "")) or None for entry in entries)
    found = [COLOR.fullmatch(str(entry.get("color"))) for entry in entries]
    return names, tuple(f"#{match[1].upper()}" if match else None for match in found)


def _kind(image: ZarrSummary) -> tuple[object, ...]:
    """What scenes of one image have in common."""
    return image.axes, image.scenes[0].dtype, *(image.length(axis) for axis in "tcz")


def _chunks_missing(array: ArrayMetadata, axes: str, files: dict[str, int]) -> bool:
    """Whether chunks of an array are missing that its fill value may stand for.

    Of a plane without any chunk is believed that it was not written: nothing that a camera sees is empty.
    """
    planes: Counter[tuple[int, ...]] = Counter()
    for index, name in array.chunks_in(files):
        if files[name] == 0:
            raise StillOpenError(f"its chunk {name} is empty")
        planes[tuple(n for n, axis in zip(index, axes, strict=True) if axis not in "yx")] += 1
    stacked = math.prod(n for n, axis in zip(array.grid, axes, strict=True) if axis not in "yx")
    if len(planes) < stacked:
        text = f"it has {len(planes)} of {stacked} planes (or groups of planes in one chunk): "
        raise StillOpenError(text + "its acquisition runs, or was stopped")
    missing = math.prod(array.grid) - planes.total()
    if missing and not array.fill_stated:
        raise StillOpenError(f"it lacks {missing} chunks, and no fill_value says what stands for them")
    return missing > 0


def check_size(summary: ZarrSummary) -> None:
    """Refuse images beyond the limits."""
    scenes = range(len(summary.scenes))
    height, width = (max(summary.length(axis, scene) for scene in scenes) for axis in "yx")
    nbytes = summary.length("c") * height * width * summary.scenes[0].dtype.itemsize
    if nbytes > MAX_PLANE_BYTES or summary.length("c") > MAX_CHANNELS:
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, f"has planes of {nbytes} bytes; split it")
    planes = summary.length("t") * summary.length("z") * len(summary.scenes)
    if planes > MAX_PLANES:
        raise BadStructureError(
            Reason.IMAGE_TOO_LARGE, f"has {planes} planes; {MAX_PLANES} are allowed: split it"
        )
