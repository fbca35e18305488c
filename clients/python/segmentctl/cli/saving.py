"""Label and confidence images as files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from segmentd.imagefile import ClassInfo, PixelSize, write_confidence_image, write_label_image

if TYPE_CHECKING:
    from segmentctl.assemble import UInt8Array
    from segmentd.v1.pixels_pb2 import PixelClass


def save_planes(
    stem: Path,
    classes: Iterable[PixelClass],
    labels: UInt8Array,
    confidence: UInt8Array | None,
    pixel_size: PixelSize | None = None,
) -> list[Path]:
    """Write `stem.labels.ome.tif` and `stem.confidence.ome.tif`; a file appears when it is complete.

    Parameters
    ----------
    stem : Path
        Folder and name without the endings; the folder is made if it is missing.
    classes : iterable of PixelClass
        What the labels mean.
    labels, confidence : ndarray of uint8 (Y, X)
        Without confidence, only labels are written.
    pixel_size : PixelSize
        Where it is known.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    infos = [ClassInfo(entry.value, entry.display_name, entry.color) for entry in classes]
    written = [stem.with_name(f"{stem.name}.labels.ome.tif")]
    write_label_image(written[0], labels, infos, pixel_size=pixel_size)
    if confidence is not None:
        written.append(stem.with_name(f"{stem.name}.confidence.ome.tif"))
        write_confidence_image(written[1], confidence, pixel_size=pixel_size)
    return written
