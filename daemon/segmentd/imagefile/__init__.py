"""Image files that the daemon and its client both write and read.

Results are OME-TIFF (`OmeTiffWriter`) or OME-Zarr (`OmeZarrWriter`), pictures for people are PNG
(`overlay_png`), and single planes are read back from simple files (`read_simple`) or from results
(`read_region`). Importing this package loads nothing heavier than numpy. `ClassInfo`, `Region` and
`SegmentdError` are given on here because the client, which needs them for these functions, imports
nothing else of the daemon.
"""

from __future__ import annotations

from segmentd.errors import SegmentdError
from segmentd.imagefile.colors import default_color, ome_color, parse_color
from segmentd.imagefile.ometiff import TILE, OmeTiffWriter, write_confidence_image, write_label_image
from segmentd.imagefile.omexml import CLASSES_NAMESPACE, OmeChannel, OmeImage
from segmentd.imagefile.omezarr import OmeZarrWriter
from segmentd.imagefile.overlay import Overlay, overlay_png, picture_pngs
from segmentd.imagefile.reading import read_region, read_simple
from segmentd.records import ClassInfo, PixelSize, PixelType, Region

__all__ = [
    "CLASSES_NAMESPACE",
    "TILE",
    "ClassInfo",
    "OmeChannel",
    "OmeImage",
    "OmeTiffWriter",
    "OmeZarrWriter",
    "Overlay",
    "PixelSize",
    "PixelType",
    "Region",
    "SegmentdError",
    "default_color",
    "ome_color",
    "overlay_png",
    "parse_color",
    "picture_pngs",
    "read_region",
    "read_simple",
    "write_confidence_image",
    "write_label_image",
]
