"""The metadata of an OME-Zarr 0.5 result, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from segmentd.imagefile.colors import parse_color
from segmentd.imagefile.description import Description
from segmentd.imagefile.omexml import OmeChannel, OmeImage
from segmentd.imagefile.zarr_image import ImageLayout
from segmentd.records import ClassInfo

_SPACE = ("z", "y", "x")
_FULL = {"confidence (%)": 100}


def axes_of(image: OmeImage, wanted: str = "") -> dict[str, int]:
    """Axes of an array and their lengths, in order; of length 1 are Y, X and those that are wanted only."""
    lengths = {"t": image.size_t, "c": len(image.channels), "z": image.size_z}
    return {axis: length for axis, length in lengths.items() if length > 1 or axis in wanted} | {
        "y": image.height,
        "x": image.width,
    }


def scene_attributes(
    image: OmeImage, levels: int, source: str, layout: ImageLayout | None = None
) -> dict[str, Any]:
    """Attributes of the group of one scene; labels in an image take its `layout` over."""
    sizes = {"z": image.pixel_size.z_um, "y": image.pixel_size.y_um, "x": image.pixel_size.x_um}
    known = {axis: size for axis, size in sizes.items() if size is not None and size > 0}
    axes = list(axes_of(image))
    multiscale: dict[str, Any] = {
        "name": image.name,
        "axes": [_axis(axis, axis in known) for axis in axes],
        "datasets": [
            {"path": str(level), "coordinateTransformations": _transformations(axes, known, 2**level)}
            for level in range(levels)
        ],
        "type": "mode" if image.channels[0].labels else "mean",
    }
    if layout is not None:
        multiscale = layout.multiscale(image.name)
    ome: dict[str, Any] = {"version": "0.5", "multiscales": [multiscale]}
    if len(image.channels) == 1 and image.channels[0].labels:
        ome["image-label"] = _image_label(image.classes, source)
    else:
        full = int(np.iinfo(image.pixel_type.value).max) if image.pixel_type != "float32" else 1
        ome["omero"] = {"channels": [_shown(channel, full) for channel in image.channels]}
    return {"ome": ome}


def described(image: OmeImage) -> dict[str, Any]:
    """What `read_back` wants to know."""
    return {
        "name": image.name,
        "shape": [image.scenes, image.size_t, image.size_z, len(image.channels), image.height, image.width],
        "classes": [{"value": one.value, "name": one.name, "color": one.color} for one in image.classes],
        "notes": dict(image.notes),
    }


def read_back(attributes: Mapping[str, Any]) -> tuple[Description, int]:
    """Return what the attributes of a top group say, and the number of channels.

    Raises
    ------
    KeyError, TypeError, ValueError
        They are not ours.
    """
    ours = attributes["segmentd"]
    scenes, size_t, size_z, channels, height, width = map(int, ours["shape"])
    description = Description(
        name=str(ours["name"]),
        height=height,
        width=width,
        size_z=size_z,
        size_t=size_t,
        scenes=scenes,
        classes=tuple(ClassInfo(int(one["value"]), one["name"], one["color"]) for one in ours["classes"]),
        notes=dict(ours["notes"]),
    )
    return description, channels


def _axis(name: str, known: bool) -> dict[str, str]:
    if name in _SPACE:
        return {"name": name, "type": "space"} | ({"unit": "micrometer"} if known else {})
    return {"name": name, "type": "time" if name == "t" else "channel"}


def _transformations(axes: list[str], sizes: Mapping[str, float], factor: int) -> list[dict[str, Any]]:
    """Scale of a level, and where its first pixel lies: in the middle of those it was made from."""
    scale = [sizes.get(axis, 1.0) * (factor if axis in "yx" else 1) for axis in axes]
    found: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if factor > 1:
        shift = [sizes.get(axis, 1.0) * (factor - 1) / 2 if axis in "yx" else 0.0 for axis in axes]
        found.append({"type": "translation", "translation": shift})
    return found


def _image_label(classes: tuple[ClassInfo, ...], source: str) -> dict[str, Any]:
    label: dict[str, Any] = {
        "colors": [{"label-value": one.value, "rgba": [*parse_color(one.color), 255]} for one in classes],
        "properties": [{"label-value": one.value, "class": one.name} for one in classes],
    }
    return label | ({"source": {"image": source}} if source else {})


def _shown(channel: OmeChannel, full: int) -> dict[str, Any]:
    most = 255 if channel.labels else _FULL.get(channel.name, full)
    return {
        "label": channel.name,
        "color": (channel.color or "#FFFFFF").removeprefix("#").upper(),
        "active": True,
        "window": {"min": 0, "max": most, "start": 0, "end": most},
    }
