"""CZI files, through ZEISS's own library (extra `czi`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segmentctl.oad.errors import ApplicationException
from segmentctl.oad.image import About, Pixels
from segmentd.imagefile import PixelSize


def read(path: Path) -> tuple[Pixels, About]:
    """Read all planes of a CZI file of one scene; colours come as red, green, blue.

    Raises
    ------
    ApplicationException
        If the library is missing, the file cannot be read, or it holds several scenes.
    """
    try:
        from pylibCZIrw import czi
    except ImportError as error:
        raise ApplicationException(
            f"{path}: reading CZI needs pylibCZIrw: pip install 'segmentd[czi]'", "MISSING_EXTRA"
        ) from error
    if not path.is_file():
        raise ApplicationException(f"{path} is not there", "IMAGE_UNREADABLE")
    try:
        with czi.open_czi(str(path)) as document:
            if len(document.scenes_bounding_rectangle) > 1:
                raise ApplicationException(
                    f"{path} holds {len(document.scenes_bounding_rectangle)} scenes; save each to a file of "
                    "its own"
                )
            return _planes(document), _about(document.metadata)
    except RuntimeError as error:  # all that the library raises
        raise ApplicationException(f"{path} cannot be read: {error}", "IMAGE_CORRUPT") from error


def _planes(document: Any) -> Pixels:
    sizes = {axis: end - start for axis, (start, end) in document.total_bounding_box.items()}
    frames = [
        [
            np.concatenate(
                [
                    np.moveaxis(document.read(plane={"T": t, "Z": z, "C": c})[..., ::-1], -1, 0)
                    for c in range(sizes.get("C", 1))
                ]
            )
            for z in range(sizes.get("Z", 1))
        ]
        for t in range(sizes.get("T", 1))
    ]
    return np.array(frames)


def _about(metadata: dict[str, Any]) -> About:
    distances = _items(metadata, "Scaling", "Items", "Distance")
    metres = {entry.get("@Id"): float(entry["Value"]) for entry in distances if entry.get("Value")}
    sizes = (metres[axis] * 1e6 if axis in metres else None for axis in "YXZ")
    channels = _items(metadata, "Information", "Image", "Dimensions", "Channels", "Channel")
    names = tuple(entry.get("@Name") or "" for entry in channels)
    return About(names if all(names) else (), PixelSize(*sizes))


def _items(metadata: dict[str, Any], *path: str) -> list[dict[str, Any]]:
    """Elements below ImageDocument/Metadata; the library gives a single one without a list."""
    found: Any = metadata
    for name in ("ImageDocument", "Metadata", *path):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, list) else [found] if isinstance(found, dict) else []
