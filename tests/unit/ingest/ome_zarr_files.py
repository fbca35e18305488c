"""Writes small OME-Zarr images, as the usual programs do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

UNITS = {"t": ("time", "second"), "c": ("channel", None), **{axis: ("space", "micrometer") for axis in "zyx"}}
STEPS = {"t": 1.0, "c": 1.0, "z": 0.5, "y": 0.2, "x": 0.1}
OMERO = {"channels": [{"label": "DAPI", "color": "0000FF"}, {"label": "GFP", "color": "00ff00"}]}


def multiscales(axes: str, version: str, levels: int = 1) -> dict[str, Any]:
    """The metadata of an image of that version."""
    named = [
        {"name": axis, "type": UNITS[axis][0], **({"unit": UNITS[axis][1]} if UNITS[axis][1] else {})}
        for axis in axes
    ]
    scale = [{"type": "scale", "scale": [STEPS[axis] for axis in axes]}]
    datasets = [{"path": str(level), "coordinateTransformations": scale} for level in range(levels)]
    return {"version": version, "axes": named, "datasets": datasets}


def write_ome_zarr(
    path: Path,
    pixels: npt.NDArray[Any],
    axes: str = "tczyx",
    version: str = "0.5",
    omero: dict[str, Any] | None = None,
    chunk: int = 16,
    levels: int = 1,
    **array: Any,
) -> Path:
    """Write an image whose chunks are planes cut into squares; each level has half the size of the last."""
    form = 3 if version == "0.5" else 2
    chunks = tuple(chunk if axis in "yx" else 1 for axis in axes)
    options: dict[str, Any] = {"chunks": chunks, "config": {"write_empty_chunks": True}}
    if form == 2:
        options["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
    group = zarr.open_group(str(path), mode="w", zarr_format=form)
    for number in range(levels):
        level = pixels[tuple(slice(None, None, 2**number if axis in "yx" else 1) for axis in axes)]
        made = group.create_array(str(number), shape=level.shape, dtype=level.dtype, **(options | array))
        made[...] = level
    scales = {"multiscales": [multiscales(axes, version, levels)], **({"omero": omero} if omero else {})}
    if form == 3:
        scales["multiscales"][0].pop("version")
    group.attrs.update({"ome": {"version": version, **scales}} if form == 3 else scales)
    return path


def change_document(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file; None takes one away."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: field for key, field in value.items() if field is not None}))


def five_dimensions(dtype: str = "uint16", shape: tuple[int, ...] = (2, 2, 3, 24, 30)) -> npt.NDArray[Any]:
    """An array without a plane, or chunk, of one value."""
    return np.random.default_rng(3).integers(1, 120, shape).astype(dtype)
